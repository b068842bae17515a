"""InnerProduct."""

import pytest


def fc(settings):
    return f"inner_product_param {{ {settings} }}"


def test_each_row_of_weights_is_an_output(bench):
    (top,) = bench.run("InnerProduct", fc("num_output: 2"), [[[1, 2, 3]]], params=[[[1, 0, 0], [1, 1, 1]], [10, 20]])
    assert top.tolist() == [[11, 26]]


def test_all_axes_after_the_batch_are_one_vector(bench):
    x = [[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]]  # (2, 1, 2, 2)
    text = fc("num_output: 1 bias_term: false")
    (top,) = bench.run("InnerProduct", text, [x], params=[[[1, 10, 100, 1000]]])
    assert top.tolist() == [[4321], [8765]]


@pytest.mark.parametrize("axis", [2, -1])
def test_axes_before_the_given_one_stay(bench, axis):
    text = fc(f"num_output: 1 axis: {axis} bias_term: false")
    (top,) = bench.run("InnerProduct", text, [[[[1, 2], [3, 4]]]], params=[[[1, 10]]])
    assert top.tolist() == [[[21], [43]]]


def test_axis_0_makes_one_vector_of_all(bench):
    (top,) = bench.run("InnerProduct", fc("num_output: 2 axis: 0"), [[[1], [2]]], params=[[[1, 1], [1, 10]], [0, 1]])
    assert top.tolist() == [3, 22]


def test_transposed_weights_are_by_input_first(bench):
    text = fc("num_output: 3 transpose: true")
    (top,) = bench.run("InnerProduct", text, [[[1, 2]]], params=[[[1, 0, 1], [0, 1, 10]], [0, 0, 5]])
    assert top.tolist() == [[1, 2, 26]]


def test_parameters_are_a_matrix_and_one_bias_each(bench):
    text = fc('num_output: 3 weight_filler { type: "gaussian" } bias_filler { value: 2 }')
    weights, bias = bench.params("InnerProduct", text, [(5, 2, 4)])
    assert (weights.shape, weights.filler.type) == ((3, 8), "gaussian")
    assert (bias.shape, bias.filler.value) == ((3,), 2)
    (weights,) = bench.params("InnerProduct", fc("num_output: 3 transpose: true bias_term: false"), [(5, 2, 4)])
    assert weights.shape == (8, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "num_output is missing"),
        ("num_output: 2 axis: 3", "axis 3 is out of range"),
        ("num_output: 4000000000", "has too many elements"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, said):
    assert said in bench.refusal("InnerProduct", fc(settings), [(5, 2, 4)])
