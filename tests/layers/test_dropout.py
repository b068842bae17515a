"""Dropout."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.layers.layer_type import LAYERS


def test_nothing_is_dropped_in_the_test_phase(bench):
    (top,) = bench.run("Dropout", "dropout_param { dropout_ratio: 0.75 }", [[1, 2, 3]])
    assert top.tolist() == [1, 2, 3]


def test_the_train_phase_drops_that_share_and_scales_the_rest_up(bench):
    (top,) = bench.run("Dropout", "dropout_param { dropout_ratio: 0.75 }", [np.ones(10_000)], phase=TRAIN)
    assert sorted(set(top.tolist())) == [0, 4]
    # The mean of 10,000 draws has a standard deviation of 0.0043.
    assert np.mean(top == 0) == pytest.approx(0.75, abs=0.03)


def test_the_usual_ratio_is_one_half(bench):
    (top,) = bench.run("Dropout", "", [np.ones(1000)], phase=TRAIN)
    assert sorted(set(top.tolist())) == [0, 2]


@pytest.mark.parametrize("ratio", ["1", "-0.5", "nan"])
def test_a_ratio_that_is_no_probability_is_refused(bench, ratio):
    assert "dropout_ratio must be in" in bench.refusal("Dropout", f"dropout_param {{ dropout_ratio: {ratio} }}", [(3,)])


def test_it_may_run_in_place():
    assert LAYERS.get("Dropout").in_place
