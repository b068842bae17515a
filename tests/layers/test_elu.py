"""ELU."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


def test_negative_values_follow_the_exponential(bench):
    (top,) = bench.run("ELU", "", [[-1, 0, 2]])
    assert top == pytest.approx(np.array([-0.6321206, 0, 2]))


def test_alpha_scales_the_negative_side_only(bench):
    (top,) = bench.run("ELU", "elu_param { alpha: 3 }", [[-1, 0, 2]])
    assert top == pytest.approx(np.array([-1.8963617, 0, 2]))


def test_large_values_stay_finite(bench):
    (top,) = bench.run("ELU", "", [[-1000, 1000]])
    assert top.tolist() == [-1, 1000]


def test_it_may_run_in_place():
    assert LAYERS.get("ELU").in_place
