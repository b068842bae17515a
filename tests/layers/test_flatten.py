"""Flatten."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ("", (2, 60)),
        ("axis: 2", (2, 3, 20)),
        ("axis: -2", (2, 3, 20)),
        ("axis: 0", (120,)),
        ("end_axis: 2", (2, 12, 5)),
        ("axis: 0 end_axis: -3", (6, 4, 5)),
        ("axis: 3 end_axis: 3", (2, 3, 4, 5)),
        ("axis: 2 end_axis: 1", (2, 3, 1, 4, 5)),
    ],
)
def test_the_axes_from_axis_to_end_axis_become_one(bench, settings, shape):
    x = np.arange(120).reshape(2, 3, 4, 5)
    (top,) = bench.run("Flatten", f"flatten_param {{ {settings} }}", [x])
    assert top.shape == shape
    assert top.reshape(-1).tolist() == list(range(120))


def test_an_end_before_the_beginning_is_refused(bench):
    message = bench.refusal("Flatten", "flatten_param { axis: 2 end_axis: 0 }", [(2, 3, 4)])
    assert "end_axis 0 is before axis 2" in message


@pytest.mark.parametrize("settings", ["axis: 3", "axis: -4", "end_axis: 3"])
def test_an_axis_that_is_not_there_is_refused(bench, settings):
    assert "out of range" in bench.refusal("Flatten", f"flatten_param {{ {settings} }}", [(2, 3, 4)])


def test_a_bottom_without_axes_is_refused(bench):
    assert "without axes" in bench.refusal("Flatten", "", [()])


def test_the_top_is_the_bottoms_memory_and_not_in_place(bench):
    assert LAYERS.get("Flatten").shares_memory(bench.layer("Flatten", ""))
    assert not LAYERS.get("Flatten").in_place
