"""BatchNorm."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.layers.layer_type import LAYERS

EXACT = "batch_norm_param { eps: 0 }"
BATCH = "batch_norm_param { eps: 0 use_global_stats: false moving_average_fraction: 0.5 }"


def test_the_test_phase_uses_the_stored_statistics(bench):
    (top,) = bench.run("BatchNorm", EXACT, [[[1, 10], [5, 30]]], params=[[3, 10], [4, 100], [1]])
    assert top.tolist() == [[-1, 0], [1, 2]]


def test_stored_statistics_are_divided_by_the_factor(bench):
    (top,) = bench.run("BatchNorm", EXACT, [[[1, 10], [5, 30]]], params=[[6, 20], [8, 200], [2]])
    assert top.tolist() == [[-1, 0], [1, 2]]


def test_a_factor_of_zero_makes_mean_and_variance_zero(bench):
    settings = "batch_norm_param { eps: 0.25 }"
    (top,) = bench.run("BatchNorm", settings, [[[1, 10]]], params=[[6, 20], [8, 200], [0]])
    assert top.tolist() == [[2, 20]]


def test_eps_is_a_hundred_thousandth(bench):
    (top,) = bench.run("BatchNorm", "", [[[1]]], params=[[0], [0], [1]])
    assert top == pytest.approx(np.array([[316.22777]]))


@pytest.mark.parametrize(("settings", "phase"), [("batch_norm_param { eps: 0 }", TRAIN), (BATCH, None), (BATCH, TRAIN)])
def test_otherwise_the_statistics_are_those_of_the_batch(bench, settings, phase):
    options = {} if phase is None else {"phase": phase}
    (top,) = bench.run("BatchNorm", settings, [[[1, 10], [5, 30]]], params=[[6, 20], [8, 200], [2]], **options)
    assert top.tolist() == [[-1, -1], [1, 1]]


def test_use_global_stats_holds_in_the_train_phase_too(bench):
    settings = "batch_norm_param { eps: 0 use_global_stats: true }"
    (top,) = bench.run("BatchNorm", settings, [[[1], [5]]], params=[[3], [1], [1]], phase=TRAIN)
    assert top.tolist() == [[-2], [2]]


def test_batch_statistics_are_taken_over_all_axes_but_the_channels(bench):
    # channel 0 holds 0 4 0 4, channel 1 holds 1 1 1 1
    x = [[[0, 4], [1, 1]], [[0, 4], [1, 1]]]
    settings = "batch_norm_param { eps: 1e-12 use_global_stats: false }"
    (top,) = bench.run("BatchNorm", settings, [x], params=[[0, 0], [0, 0], [0]])
    assert top.tolist() == [[[-1, 1], [0, 0]], [[-1, 1], [0, 0]]]


def test_batch_statistics_move_the_stored_ones(bench):
    # mean 3, variance 4, corrected by 2 / (2 - 1) to 8
    updates = bench.updates("BatchNorm", BATCH, [[[1], [5]]], params=[[10], [20], [1]])
    assert {i: value.tolist() for i, value in updates.items()} == {0: [8], 1: [18], 2: [1.5]}


def test_a_single_value_is_not_corrected(bench):
    updates = bench.updates("BatchNorm", BATCH, [[[7]]], params=[[2], [4], [1]])
    assert {i: value.tolist() for i, value in updates.items()} == {0: [8], 1: [2], 2: [1.5]}


def test_the_stored_statistics_stay_while_they_are_used(bench):
    assert bench.updates("BatchNorm", "", [[[1], [5]]], params=[[10], [20], [1]]) == {}


def test_parameters_are_mean_variance_and_factor_and_start_at_zero(bench):
    params = bench.params("BatchNorm", "", [(2, 3, 4, 4)])
    assert [(p.shape, p.filler.type, p.filler.value) for p in params] == [
        ((3,), "constant", 0),
        ((3,), "constant", 0),
        ((1,), "constant", 0),
    ]


def test_parameters_with_a_learning_rate_are_refused(bench):
    message = bench.refusal("BatchNorm", "param { lr_mult: 0 } param { }", [(2, 3)])
    assert "Set lr_mult: 0" in message


def test_fewer_param_blocks_than_parameters_are_accepted(bench):
    assert len(bench.params("BatchNorm", "param { lr_mult: 0 decay_mult: 0 }", [(2, 3)])) == 3


def test_a_bottom_without_channels_is_refused(bench):
    assert "at least 2 axes" in bench.refusal("BatchNorm", "", [(3,)])


def test_it_may_run_in_place():
    assert LAYERS.get("BatchNorm").in_place
