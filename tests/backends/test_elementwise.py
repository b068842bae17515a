"""The primitives that work element by element, or on shapes."""

import numpy as np
import pytest

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add", [5, 3, 2.5]),
        ("sub", [-1, -5, -1.5]),
        ("mul", [6, -4, 1]),
        ("div", [2 / 3, -0.25, 0.25]),
        ("maximum", [3, 4, 2]),
        ("pow", [8, 1, 0.25]),
    ],
)
def test_two_operands(compute, name, expected):
    top = compute(lambda ops, a, b: getattr(ops, name)(a, b), [2, -1, 0.5], [3, 4, 2])
    np.testing.assert_allclose(top, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("abs", [-2, 0, 3], [2, 0, 3]),
        ("exp", [0, 1], [1, 2.7182817]),
        ("log", [1, 2.7182817], [0, 1]),
        ("sqrt", [4, 2], [2, 1.4142135]),
        ("floor", [1.9, -0.1, 2], [1, -1, 2]),
        ("relu", [-1, 0, 2], [0, 0, 2]),
        ("sigmoid", [0, 2], [0.5, 0.8807971]),
        ("tanh", [0, 1], [0, 0.7615942]),
    ],
)
def test_one_operand(compute, name, x, expected):
    np.testing.assert_allclose(compute(lambda ops, v: getattr(ops, name)(v), x), expected, rtol=2e-6, atol=1e-7)


def test_halves_are_rounded_to_the_even_neighbour(compute):
    top = compute(lambda ops, x: ops.round(x), [0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6])
    assert top.tolist() == [0, 2, 2, 0, -2, 2, 3]


def test_the_binary_logarithm_of_every_power_of_two_is_exact(compute):
    exponents = np.arange(-149, 128)
    powers = (2.0 ** exponents.astype(np.float64)).astype(np.float32)
    assert compute(lambda ops, x: ops.log2(x), powers).tolist() == exponents.tolist()


def test_the_binary_logarithm_is_rounded_correctly(compute):
    x = np.random.default_rng(0).uniform(1e-3, 1e3, 10_000).astype(np.float32)
    expected = np.log2(x.astype(np.float64)).astype(np.float32)
    assert np.array_equal(compute(lambda ops, v: ops.log2(v), x), expected)


def test_clip_saturates_and_makes_nan_the_upper_bound(compute):
    top = compute(lambda ops, x: ops.clip(x, -2, 3), [-INF, -2.5, -2, 0.5, 3, 3.5, INF, NAN])
    assert top.tolist() == [-2, -2, -2, 0.5, 3, 3, 3, 3]


def test_clip_makes_nan_the_upper_bound_at_every_length(compute):
    for length in (1, 3, 4, 8, 15, 16, 17, 64, 1000):
        assert set(compute(lambda ops, x: ops.clip(x, -1, 7), np.full(length, NAN))) == {7}


@pytest.mark.parametrize(
    ("name", "expected"), [("equal", [0, 1, 0]), ("less", [1, 0, 0]), ("greater_equal", [0, 1, 1])]
)
def test_comparisons_choose_for_where(compute, name, expected):
    def build(ops, a, b):
        return ops.where(getattr(ops, name)(a, b), ops.constant(1), ops.constant(0))

    assert compute(build, [1, 2, 3], [2, 2, 2]).tolist() == expected


def test_operands_are_broadcast(compute):
    top = compute(lambda ops, a, b: ops.add(a, b), [[1], [2]], [10, 20, 30])
    assert top.tolist() == [[11, 21, 31], [12, 22, 32]]


def test_shapes_that_cannot_be_broadcast_are_refused(refuse):
    said = refuse(lambda ops, a, b: ops.mul(a, b), (2, 3), (2, 4))
    assert said == "shapes 2x3 and 2x4 do not fit each other"


def test_reshape_transpose_and_expand(compute):
    x = np.arange(6)
    assert compute(lambda ops, v: ops.reshape(v, (2, 3)), x).tolist() == [[0, 1, 2], [3, 4, 5]]
    top = compute(lambda ops, v: ops.transpose(ops.reshape(v, (1, 2, 3)), (2, 0, 1)), x)
    assert top.tolist() == [[[0, 3]], [[1, 4]], [[2, 5]]]
    assert compute(lambda ops, v: ops.expand(v, (2, 2)), [[1], [2]]).tolist() == [[1, 1], [2, 2]]


def test_a_scalar_has_no_axes_to_permute_and_none_to_sum(compute):
    assert compute(lambda ops, x: ops.sum(ops.transpose(ops.reshape(x, ()), ()), ()), [4]) == 4


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda ops, x: ops.reshape(x, (4, 2)), "2x3 cannot be reshaped to 4x2"),
        (lambda ops, x: ops.reshape(x, (-1, 6)), "2x3 cannot be reshaped to -1x6"),
        (lambda ops, x: ops.transpose(x, (0, 0)), "[0, 0] is not a permutation of the axes of 2x3"),
        (lambda ops, x: ops.expand(x, (2, 6)), "shapes 2x3 and 2x6 do not fit each other"),
        (lambda ops, x: ops.expand(x, (1, 3)), "2x3 cannot be expanded to 1x3"),
        (lambda ops, x: ops.slice(x, 1, 2, 4), "2:4 is out of range for axis 1 of 2x3"),
        (lambda ops, x: ops.slice(x, 2, 0, 1), "axis 2 is out of range for 2x3"),
        (lambda ops, x: ops.pad(x, (0, -1), (0, 0)), "2x3 cannot be padded by [0, -1] and [0, 0]"),
        (lambda ops, x: ops.concat([], 0), "there is nothing to concatenate"),
        (lambda ops, x: ops.sum(x, (0, -2)), "axes 0, -2 of 2x3 contain an axis twice"),
        (lambda ops, x: ops.max(x, (3,)), "axis 3 is out of range for 2x3"),
        (lambda ops, x: ops.top_k(x, 4, 1), "the top 4 of axis 1 of 2x3 cannot be taken"),
        (lambda ops, x: ops.softmax(x, 2), "axis 2 is out of range for 2x3"),
        (lambda ops, x: ops.matmul(x, x), "matrices 2x3 and 2x3 cannot be multiplied"),
        (lambda ops, x: ops.uniform((2**20, 2**20)), "a blob of shape 1048576x1048576 has too many elements"),
    ],
)
def test_what_does_not_fit_is_refused(refuse, build, said):
    assert refuse(build, (2, 3)) == said


def test_blobs_that_differ_on_another_axis_are_not_joined(refuse):
    said = refuse(lambda ops, a, b: ops.concat([a, b], 1), (2, 3), (3, 3))
    assert said == "2x3, 3x3 cannot be joined on axis 1: they differ on another axis"


def test_concat_slice_and_pad(compute):
    a, b = [[1, 2], [3, 4]], [[5], [6]]
    assert compute(lambda ops, x, y: ops.concat([x, y], 1), a, b).tolist() == [[1, 2, 5], [3, 4, 6]]
    assert compute(lambda ops, x: ops.slice(x, 0, 1, 2), a).tolist() == [[3, 4]]
    top = compute(lambda ops, x: ops.pad(x, (1, 0), (0, 2), 9), [[1, 2]])
    assert top.tolist() == [[9, 9, 9, 9], [1, 2, 9, 9]]


def test_reductions_keep_their_axes(compute):
    x = [[1, 2, 6], [3, 5, 1]]
    assert compute(lambda ops, v: ops.sum(v, (1,)), x).tolist() == [[9], [9]]
    assert compute(lambda ops, v: ops.mean(v, (0, 1)), x).tolist() == [[3]]
    assert compute(lambda ops, v: ops.max(v, (0,)), x).tolist() == [[3, 5, 6]]


@pytest.mark.parametrize("axis", [1, -1])
def test_of_equals_top_k_gives_the_larger_index_first(compute, axis):
    values, indices = compute(lambda ops, x: ops.top_k(x, 5, axis), [[1, 3, 3, 0, 3, 1]])
    assert values.tolist() == [[3, 3, 3, 1, 1]]
    assert indices.tolist() == [[4, 2, 1, 5, 0]]


def test_top_k_takes_any_axis(compute):
    values, indices = compute(lambda ops, x: ops.top_k(x, 1, 0), [[1, 9, 2], [4, 5, 2]])
    assert (values.tolist(), indices.tolist()) == ([[4, 9, 2]], [[1, 0, 1]])


def test_softmax_of_large_values_does_not_overflow(compute):
    assert compute(lambda ops, x: ops.softmax(x, 0), [1000, 1000]).tolist() == [0.5, 0.5]


def test_uniform_numbers_are_in_0_to_1_and_differ_from_run_to_run():
    from ristretto_cli.backends.onnx import OnnxOps
    from ristretto_cli.backends.onnx_lower import lower

    ops = OnnxOps()
    session = lower(ops.graph, {"a": ops.uniform((1000, 1000)), "b": ops.uniform((1000, 1000))}).session()
    first, second = session.run({}), session.run({})
    assert first["a"].min() >= 0
    assert first["a"].max() < 1
    assert abs(first["a"].mean() - 0.5) < 0.01
    assert not np.array_equal(first["a"], second["a"])
    assert not np.array_equal(first["a"], first["b"])


def test_uniform_gives_a_scalar_too(compute):
    assert 0 <= compute(lambda ops: ops.uniform(())) < 1
