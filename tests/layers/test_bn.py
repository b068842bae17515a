"""BN."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.layers.layer_type import LAYERS

X = np.array([1, 3, 10, 10]).reshape(1, 2, 1, 2)  # channel 0: mean 2, variance 1; channel 1: mean 10, variance 0


def per_channel(*numbers):
    return np.array(numbers).reshape(1, 2, 1, 1)


def run(bench, settings, *params, phase=TEST):
    numbers = [per_channel(*param) for param in params]
    (top,) = bench.run("BN", f"bn_param {{ {settings} }}", [X], params=numbers, phase=phase)
    return top.ravel().tolist()


def test_inference_is_scale_and_shift(bench):
    assert run(bench, "bn_mode: INFERENCE", (2, 1), (5, -10)) == [7, 11, 0, 0]


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_training_uses_the_statistics_of_the_batch(bench, phase):
    assert run(bench, "", (2, 1), (5, -10), phase=phase) == pytest.approx([3, 7, -10, -10])


def test_with_stored_statistics_it_normalizes_by_them(bench):
    found = run(bench, "frozen: true eps: 1", (2, 1), (5, -10), (1, 4), (3, 8))
    assert found == pytest.approx([5, 7, -8, -8])  # 2 (x - 1) / 2 + 5; (x - 4) / 3 - 10


def test_in_training_these_are_the_batchs_unless_frozen(bench):
    params = (2, 1), (5, -10), (1, 4), (3, 8)
    assert run(bench, "eps: 0", *params, phase=TRAIN)[:2] == pytest.approx([3, 7])
    assert run(bench, "eps: 1 frozen: true", *params, phase=TRAIN) == pytest.approx([5, 7, -8, -8])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 2),
        ("bn_param { scale_filler { value: 1 } shift_filler { value: 0 } bn_mode: INFERENCE }", 2),
        ("param { } param { }", 2),
        ("param { } param { } param { } param { }", 4),
        ("bn_param { momentum: 0.95 }", 4),
        ("bn_param { slope_filler { value: 1 } }", 4),
    ],
)
def test_settings_tell_which_forks_it_is(bench, text, count):
    assert [param.shape for param in bench.params("BN", text, [(2, 3, 4, 5)])] == [(1, 3, 1, 1)] * count


def test_fillers_are_kept(bench):
    text = "bn_param { scale_filler { value: 1 } shift_filler { value: 0.001 } }"
    assert [param.filler.value for param in bench.params("BN", text, [(2, 3)])] == pytest.approx([1, 0.001])
    slope, bias, mean, variance = bench.params("BN", "bn_param { frozen: true bias_filler { value: 3 } }", [(2, 3)])
    assert [param.filler.value for param in (slope, bias, mean, variance)] == [1, 3, 0, 1]
    *_, variance = bench.params("BN", "bn_param { momentum: 0.9 }", [(2, 3)])
    assert variance.filler.value == 0


def test_in_training_the_statistics_move_towards_the_batchs(bench):
    params = [per_channel(*param) for param in ((2, 1), (5, -10), (1, 4), (3, 8))]
    found = bench.updates("BN", "bn_param { momentum: 0.75 }", [X], params=params, phase=TRAIN)
    # 0.75 * 1 + 0.25 * 2 and 0.75 * 4 + 0.25 * 10; 0.75 * 3 + 0.25 * 1 and 0.75 * 8, the batch's as it is
    assert {i: value.ravel().tolist() for i, value in found.items()} == {2: [1.25, 5.5], 3: [2.5, 6.0]}


@pytest.mark.parametrize("settings", ["frozen: true", "bn_mode: INFERENCE"])
def test_else_nothing_moves(bench, settings):
    params = [per_channel(*param) for param in ((2, 1), (5, -10), (1, 4), (3, 8))]
    count = 2 if "bn_mode" in settings else 4
    assert bench.updates("BN", f"bn_param {{ {settings} }}", [X], params=params[:count], phase=TRAIN) == {}


@pytest.mark.parametrize(
    ("settings", "held"),
    [("momentum: 0.9", [2, 3]), ("frozen: true", [0, 1, 2, 3]), ("bn_mode: INFERENCE", [])],
)
def test_statistics_are_never_trained_nor_are_frozen_slopes(settings, held):
    message = parse(f"bn_param {{ {settings} }}", "LayerParameter", "net").message
    assert list(LAYERS.get("BN").statistics(message)) == held


def test_a_bottom_without_channels_is_refused(bench):
    assert "needs a channel axis" in bench.refusal("BN", "", [(3,)])
