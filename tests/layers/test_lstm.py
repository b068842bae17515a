"""LSTM."""

import math

import numpy as np
import pytest

SETTINGS = "recurrent_param { num_output: 1 }"
EXPOSED = "recurrent_param { num_output: 1 expose_hidden: true }"
OPEN = 100.0

# Rows: input, forget and output gate, new values. The gates are open unless the biases close them.
X_WEIGHTS, X_BIAS, HIDDEN_WEIGHTS = [[0], [0], [0], [1]], [OPEN, OPEN, OPEN, 0], [[0], [0], [0], [0.5]]
COUNTER = [X_WEIGHTS, X_BIAS, HIDDEN_WEIGHTS]


def steps(xs, conts, hidden=0.0, cell=0.0):
    """Hidden states and the last cell of COUNTER: all that comes in is added to the cell."""
    found = []
    for x, cont in zip(xs, conts, strict=True):
        cell = cont * cell + math.tanh(x + 0.5 * cont * hidden)
        hidden = math.tanh(cell)
        found.append(hidden)
    return found, cell


def column(values):
    return np.reshape(values, (-1, 1, 1))


def run(bench, xs, conts):
    (top,) = bench.run("LSTM", SETTINGS, [column(xs), np.reshape(conts, (-1, 1))], params=COUNTER)
    return top


def test_each_step_knows_the_last_ones_hidden_state_and_cell(bench):
    top = run(bench, [0.5, -1, 0.25], [0, 1, 1])
    assert top.shape == (3, 1, 1)
    assert top.ravel() == pytest.approx(steps([0.5, -1, 0.25], [0, 1, 1])[0])


def test_a_continuation_of_zero_resets_both(bench):
    assert run(bench, [0.5, -1, 0.25], [0, 1, 0]).ravel()[2] == pytest.approx(math.tanh(math.tanh(0.25)))


def test_a_continuation_between_zero_and_one_scales_both(bench):
    assert run(bench, [0.5, -1], [0, 0.5]).ravel() == pytest.approx(steps([0.5, -1], [0, 0.5])[0])


def test_a_pass_starts_from_zeros(bench):
    assert run(bench, [0.5], [1]).ravel() == pytest.approx(steps([0.5], [0])[0])


def test_expose_hidden_takes_and_gives_hidden_state_and_cell_in_this_order(bench):
    bottoms = [column([0.5, -1]), [[1], [1]], [[[0.75]]], [[[2]]]]
    top, hidden, cell = bench.run("LSTM", EXPOSED, bottoms, params=COUNTER, tops=3)
    expected, last = steps([0.5, -1], [1, 1], hidden=0.75, cell=2)
    assert top.ravel() == pytest.approx(expected)
    assert (hidden.shape, cell.shape) == ((1, 1, 1), (1, 1, 1))
    assert [hidden.item(), cell.item()] == [pytest.approx(expected[-1]), pytest.approx(last)]


def test_a_static_input_is_added_at_every_step(bench):
    params = [X_WEIGHTS, X_BIAS, [[0], [0], [0], [0.25]], HIDDEN_WEIGHTS]
    (top,) = bench.run("LSTM", SETTINGS, [column([0.5, -1]), [[0], [1]], [[2]]], params=params)
    assert top.ravel() == pytest.approx(steps([1.0, -0.5], [0, 1])[0])


def test_a_static_input_stands_in_front_of_the_states(bench):
    params = [X_WEIGHTS, X_BIAS, [[0], [0], [0], [0.25]], HIDDEN_WEIGHTS]
    bottoms = [column([0.5]), [[1]], [[2]], [[[0.75]]], [[[3]]]]
    top, _, cell = bench.run("LSTM", EXPOSED, bottoms, params=params, tops=3)
    expected, last = steps([1.0], [1], hidden=0.75, cell=3)
    assert (top.item(), cell.item()) == (pytest.approx(expected[0]), pytest.approx(last))


def test_the_values_of_a_step_may_have_several_axes(bench):
    params = [np.tile(X_WEIGHTS, (1, 4)) / 4, X_BIAS, HIDDEN_WEIGHTS]
    (top,) = bench.run("LSTM", SETTINGS, [np.full((1, 1, 2, 2), 0.5), [[0]]], params=params)
    assert top.item() == pytest.approx(steps([0.5], [0])[0][0])


def test_the_parameters_stand_in_the_order_of_the_unrolled_net(bench):
    text = 'recurrent_param { num_output: 3 weight_filler { type: "gaussian" } bias_filler { value: 1 } }'
    params = bench.params("LSTM", text, [(4, 2, 5), (4, 2)])
    assert [(p.shape, p.filler.type) for p in params] == [
        ((12, 5), "gaussian"),
        ((12,), "constant"),
        ((12, 3), "gaussian"),
    ]
    static = bench.params("LSTM", text, [(4, 2, 5), (4, 2), (2, 7, 1)])
    assert [p.shape for p in static] == [(12, 5), (12,), (12, 7), (12, 3)]


@pytest.mark.parametrize(
    ("settings", "shapes", "tops", "said"),
    [
        (SETTINGS, [(4, 2, 5), (4, 2), (1, 2, 1), (1, 2, 1)], 1, "expected 2 or 3 bottoms without"),
        (EXPOSED, [(4, 2, 5), (4, 2), (1, 2, 1)], 3, "expected 4 or 5 bottoms with"),
        (EXPOSED, [(4, 2, 5), (4, 2), (1, 2, 1), (1, 2, 1)], 2, "expected 3 tops with"),
        (
            EXPOSED,
            [(4, 2, 5), (4, 2), (1, 2, 1), (1, 2, 2)],
            3,
            "an initial state has shape 1x2x2. Expected 1x2x1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(bench, settings, shapes, tops, said):
    assert said in bench.refusal("LSTM", settings, shapes, tops=tops)
