"""LSTMUnit."""

import math

import numpy as np
import pytest

OPEN, SHUT = 100.0, -100.0  # what opens and shuts a gate wholly
TANH1 = math.tanh(1)


def unit(bench, cell, gates, cont):
    tops = bench.run("LSTMUnit", "", [np.reshape(cell, (1, 1, -1)), np.reshape(gates, (1, 1, -1)), [[cont]]], tops=2)
    assert [top.shape for top in tops] == [(1, 1, np.size(cell))] * 2
    return [top.ravel().tolist() for top in tops]


@pytest.mark.parametrize(
    ("gates", "cell", "hidden"),
    [
        ([SHUT, OPEN, OPEN, 9], 2, math.tanh(2)),  # kept
        ([OPEN, SHUT, OPEN, 1], TANH1, math.tanh(TANH1)),  # overwritten
        ([OPEN, OPEN, OPEN, 1], 2 + TANH1, math.tanh(2 + TANH1)),  # added to
        ([OPEN, OPEN, SHUT, 1], 2 + TANH1, 0),  # not shown
        ([0, 0, 0, 0], 1, TANH1 / 2),  # all gates half open, and nothing new
    ],
)
def test_the_gates_are_input_forget_and_output_and_then_come_the_new_values(bench, gates, cell, hidden):
    found = unit(bench, [2], gates, 1)
    assert found == [[pytest.approx(cell, abs=1e-6)], [pytest.approx(hidden, abs=1e-6)]]


def test_the_continuation_scales_what_is_kept(bench):
    gates = [OPEN, OPEN, OPEN, 0]
    assert [unit(bench, [2], gates, cont)[0] for cont in (1, 0.5, 0)] == [[2], [1], [0]]


def test_a_gate_has_a_value_for_each_of_the_cell(bench):
    gates = [SHUT, SHUT, OPEN, SHUT, OPEN, OPEN, 0, 0]
    assert unit(bench, [2, 3], gates, 1)[0] == [2, 0]


def test_streams_are_apart(bench):
    gates = np.tile([SHUT, OPEN, OPEN, 0], (1, 2, 1))
    cell, _ = bench.run("LSTMUnit", "", [[[[2], [3]]], gates, [[1, 0]]], tops=2)
    assert cell.tolist() == [[[2], [0]]]


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(3, 4), (1, 3, 16), (1, 3)], "the cell has shape 3x4"),
        ([(2, 3, 4), (2, 3, 16), (2, 3)], "the cell has shape 2x3x4"),
        ([(1, 3, 4), (1, 3, 12), (1, 3)], "Expected 1x3x16 and 1x3"),
        ([(1, 3, 4), (1, 2, 16), (1, 3)], "Expected 1x3x16 and 1x3"),
        ([(1, 3, 4), (1, 3, 16), (3,)], "Expected 1x3x16 and 1x3"),
    ],
)
def test_what_does_not_fit_is_refused(bench, shapes, said):
    assert said in bench.refusal("LSTMUnit", "", shapes, tops=2)
