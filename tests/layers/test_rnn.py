"""RNN."""

import math

import numpy as np
import pytest

from ristretto_cli.layers.recurrent import MAX_STEPS

X_WEIGHT, X_BIAS, HIDDEN_WEIGHT, TOP_WEIGHT, TOP_BIAS = 1.0, 0.25, 0.5, 2.0, -0.125
PARAMS = [[[X_WEIGHT]], [X_BIAS], [[HIDDEN_WEIGHT]], [[TOP_WEIGHT]], [TOP_BIAS]]


def steps(xs, conts, hidden=0.0, static=0.0):
    """The top and the last hidden state, step by step as Caffe's documentation of the layer writes them."""
    tops = []
    for x, cont in zip(xs, conts, strict=True):
        hidden = math.tanh(X_WEIGHT * x + X_BIAS + static + HIDDEN_WEIGHT * cont * hidden)
        tops.append(math.tanh(TOP_WEIGHT * hidden + TOP_BIAS))
    return tops, hidden


def settings(more=""):
    return f"recurrent_param {{ num_output: 1 {more} }}"


def column(values):
    return np.reshape(values, (-1, 1, 1))


def run(bench, xs, conts):
    (top,) = bench.run("RNN", settings(), [column(xs), np.reshape(conts, (-1, 1))], params=PARAMS)
    return top


def test_each_step_knows_the_last_ones_hidden_state(bench):
    top = run(bench, [0.5, -1, 0.25], [0, 1, 1])
    assert top.shape == (3, 1, 1)
    assert top.ravel() == pytest.approx(steps([0.5, -1, 0.25], [0, 1, 1])[0])


def test_a_continuation_of_zero_begins_a_sequence(bench):
    top = run(bench, [0.5, -1, 0.25], [0, 1, 0]).ravel()
    assert top[2] == pytest.approx(steps([0.25], [0])[0][0])


def test_a_continuation_between_zero_and_one_scales_the_hidden_state(bench):
    assert run(bench, [0.5, -1], [0, 0.5]).ravel() == pytest.approx(steps([0.5, -1], [0, 0.5])[0])


def test_a_pass_starts_from_zeros(bench):
    assert run(bench, [0.5], [1]).ravel() == pytest.approx(steps([0.5], [0])[0])


def test_streams_are_apart(bench):
    x, cont = [[[0.5], [0.1]], [[-1], [0.2]]], [[0, 0], [1, 0]]
    (top,) = bench.run("RNN", settings(), [x, cont], params=PARAMS)
    assert top[:, 0].ravel() == pytest.approx(steps([0.5, -1], [0, 1])[0])
    assert top[:, 1].ravel() == pytest.approx(steps([0.1, 0.2], [0, 0])[0])


def test_a_static_input_is_added_at_every_step(bench):
    bottoms = [column([0.5, -1]), [[0], [1]], [[2, 3]]]
    params = [*PARAMS[:2], [[0.125, -0.25]], *PARAMS[2:]]  # 2 / 8 - 3 / 4 is -0.5
    (top,) = bench.run("RNN", settings(), bottoms, params=params)
    assert top.ravel() == pytest.approx(steps([0.5, -1], [0, 1], static=-0.5)[0])


def test_expose_hidden_takes_the_state_to_start_from_and_gives_the_last_one(bench):
    bottoms = [column([0.5, -1]), [[1], [1]], [[[0.75]]]]
    top, hidden = bench.run("RNN", settings("expose_hidden: true"), bottoms, params=PARAMS, tops=2)
    expected, last = steps([0.5, -1], [1, 1], hidden=0.75)
    assert top.ravel() == pytest.approx(expected)
    assert hidden.shape == (1, 1, 1)
    assert float(hidden.item()) == pytest.approx(last)


def test_a_single_step(bench):
    assert run(bench, [0.5], [0]).shape == (1, 1, 1)


def test_the_parameters_stand_in_the_order_of_the_unrolled_net(bench):
    text = 'recurrent_param { num_output: 3 weight_filler { type: "gaussian" } bias_filler { value: 1 } }'
    params = bench.params("RNN", text, [(4, 2, 5), (4, 2)])
    assert [(p.shape, p.filler.type) for p in params] == [
        ((3, 5), "gaussian"),
        ((3,), "constant"),
        ((3, 3), "gaussian"),
        ((3, 3), "gaussian"),
        ((3,), "constant"),
    ]
    static = bench.params("RNN", text, [(4, 2, 5, 2), (4, 2), (2, 7)])
    assert [p.shape for p in static] == [(3, 10), (3,), (3, 7), (3, 3), (3, 3), (3,)]


X, CONT = (4, 2, 5), (4, 2)


@pytest.mark.parametrize(
    ("more", "shapes", "tops", "said"),
    [
        ("", [(4, 2), CONT], 1, "4x2 and 4x2 are not steps x streams x values"),
        ("", [X, (4, 3)], 1, "4x2x5 and 4x3 are not"),
        ("", [X, (4,)], 1, "4x2x5 and 4 are not"),
        ("", [X, CONT, (3, 7)], 1, "the static input has shape 3x7. Expected 2 x values"),
        ("", [X, CONT, (2,)], 1, "the static input has shape 2"),
        ("", [X, CONT, (2, 7), (1, 2, 1)], 1, "expected 2 or 3 bottoms without expose_hidden, got 4"),
        ("", [X, CONT], 2, "expected 1 top without expose_hidden, got 2"),
        ("expose_hidden: true", [X, CONT], 2, "expected 3 or 4 bottoms with expose_hidden, got 2"),
        ("expose_hidden: true", [X, CONT, (1, 2, 1)], 1, "expected 2 tops with expose_hidden, got 1"),
        ("expose_hidden: true", [X, CONT, (2, 1)], 2, "an initial state has shape 2x1. Expected 1x2x1"),
        ("", [(MAX_STEPS + 1, 1, 1), (MAX_STEPS + 1, 1)], 1, "1025 time steps are too many. The maximum is 1024"),
        ("", [(2**30, 1, 1), (2**30, 1)], 1, "time steps are too many"),
    ],
)
def test_what_does_not_fit_is_refused(bench, more, shapes, tops, said):
    assert said in bench.refusal("RNN", settings(more), shapes, tops=tops)


def test_without_num_output_it_is_refused(bench):
    assert "num_output is missing" in bench.refusal("RNN", "", [X, CONT])


def test_a_state_beyond_all_bounds_is_refused_and_not_made(bench):
    said = bench.refusal("RNN", "recurrent_param { num_output: 20000 }", [(1, 2**21, 1), (1, 2**21)])
    assert "too many elements" in said
