"""Trimmed types of forks in programs over integers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integers.conftest import DATA, FORMATS, conv, run_beside

WHOLE = " ".join(f"{key}: {value}" for key, value in FORMATS.items())
FIRST = DATA + conv("c", "x") + conv("d", "x")


def layer(kind: str, bottoms: str, settings: str = "") -> str:
    """A layer "l" with top "l"."""
    ends = " ".join(f'bottom: "{name}"' for name in bottoms)
    return f'layer {{ name: "l" type: "{kind}" {ends} top: "l" {settings} quantization_param {{ {WHOLE} }} }}'


@pytest.mark.parametrize(
    ("kind", "bottoms", "settings"),
    [
        ("EltwiseRistretto", "cd", ""),
        ("EltwiseRistretto", "cd", "eltwise_param { operation: MAX }"),
        ("ConcatRistretto", "cd", ""),
        ("PoolingRistretto", "c", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
        ("PoolingRistretto", "c", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"),
        ("ReLURistretto", "c", ""),
        ("SliceRistretto", "c", ""),
        ("PReLURistretto", "c", "prelu_param { filler { value: 0.3 } }"),
        ("ScaleRistretto", "c", "scale_param { bias_term: true filler { value: 0.7 } bias_filler { value: 0.2 } }"),
        ("BatchNormRistretto", "c", ""),
        ("InnerProductRistretto", "c", "inner_product_param { num_output: 3 weight_filler { type: 'xavier' } }"),
    ],
)
def test_their_program_gives_the_values_of_the_float_pass(
    workshop: Any, kind: str, bottoms: str, settings: str
) -> None:
    net = workshop.load(FIRST + layer(kind, bottoms, settings))
    if kind == "BatchNormRistretto":
        net.weights["l/0"][:], net.weights["l/1"][:], net.weights["l/2"][:] = 0.6, 2.3, 1
    both = run_beside(net)
    assert "l" in both.program
    assert both.differing() == {}
    assert both.program["l"] == pytest.approx(both.floats["l"], abs=2 ** -FORMATS["fl_layer_out"])


def test_a_bias_has_the_format_of_the_layer_that_reads_it(workshop: Any) -> None:
    text = layer("BiasRistretto", "c", "bias_param { filler { value: 0.2 } }") + conv("e", "l")
    both = run_beside(workshop.load(FIRST + text))
    assert {"c", "e"} <= both.exact
    assert both.differing() == {}
