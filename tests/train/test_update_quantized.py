"""Updates of the quantized weights instead of the full-precision ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.cli.main import run

pytest.importorskip("torch")

# Weights of 4 bits are multiples of 1/4 from -2 to 7/4.
NET = """
    layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
            shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { value: 1 } data_filler { value: 0 } } }
    layer { name: "ip" type: "FcRistretto" bottom: "x" top: "ip"
            inner_product_param { num_output: 2 bias_term: false }
            quantization_param { bw_params: 4 fl_params: 2 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
WEIGHTS = np.array([[0.3, -0.2, 0.9], [0.1, 0.45, -1.3]], np.float32)
NEAREST = np.array([[0.25, -0.25, 1.0], [0.0, 0.5, -1.25]], np.float32)


def trained(workshop: object, *flags: str, rate: float = 0.001, iterations: int = 3) -> np.ndarray:
    """The weights in the last snapshot."""
    workshop.net(NET)  # type: ignore[attr-defined]
    workshop.weights({"ip": [WEIGHTS]})  # type: ignore[attr-defined]
    Path("s").write_text(
        f'net: "net.prototxt" base_lr: {rate} lr_policy: "fixed" max_iter: {iterations} snapshot_prefix: "t" '
        "random_seed: 1"
    )
    assert run(["train", "--solver=s", "--weights=net.caffemodel", *flags]) == 0
    return np.array(read_weights(f"t_iter_{iterations}.caffemodel").layers["ip"][0].array)


def test_small_updates_gather_in_shadow_weights_and_are_lost_in_quantized_ones(workshop: object) -> None:
    shadow = trained(workshop, "--round_to_nearest")
    assert 0 < np.abs(shadow - WEIGHTS).max() < 0.01
    assert (trained(workshop, "--round_to_nearest", "--update=shadow") == shadow).all()
    assert (trained(workshop, "--round_to_nearest", "--update=quantized") == NEAREST).all()


def test_enough_small_updates_move_shadow_weights_to_other_numbers_but_no_quantized_ones(workshop: object) -> None:
    flags = ("--round_to_nearest",)
    assert (np.round(trained(workshop, *flags, rate=0.1, iterations=30) * 4) != NEAREST * 4).any()
    assert (trained(workshop, *flags, "--update=quantized", rate=0.1, iterations=30) == NEAREST).all()


def test_large_updates_lead_to_other_numbers_of_the_format(workshop: object) -> None:
    found = trained(workshop, "--round_to_nearest", "--update", "quantized", rate=1.0, iterations=1)
    # The net scores the classes 1 and -0.75 in each image: the gradient is softmax - label in all inputs.
    score = NEAREST.sum(axis=1)
    gradient = np.exp(score) / np.exp(score).sum() - [1, 0]
    expected = np.round(np.clip(NEAREST - gradient[:, None], -2, 1.75) * 4) / 4
    assert (found == expected).all()
    assert (found != NEAREST).any()


def test_stochastic_rounding_keeps_small_updates_on_average(workshop: object) -> None:
    found = trained(workshop, "--update=quantized", rate=0.1, iterations=60)
    assert (found * 4 == np.round(found * 4)).all()  # numbers of the format
    assert (found != NEAREST).any()
    assert (trained(workshop, "--update=quantized", rate=0.1, iterations=60) == found).all()  # by random_seed


def test_a_net_that_quantizes_no_weights_is_refused(workshop: object, capsys: pytest.CaptureFixture[str]) -> None:
    trained(workshop)
    text = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(
        text.replace("FcRistretto", "InnerProduct").replace("quantization_param { bw_params: 4 fl_params: 2 }", "")
    )
    assert run(["train", "--solver=s", "--update=quantized"]) == 1
    assert "--update=quantized has no effect: no layer quantizes its parameters" in capsys.readouterr().err
