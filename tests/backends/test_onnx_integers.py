"""Products in integers of eight bits: when they are exact, and what is told of a machine where they are not."""

import numpy as np
import pytest

from ristretto_cli.backends import onnx_integers, onnx_session
from ristretto_cli.backends.onnx_integers import IntegerForm, Product, integers_are_exact
from ristretto_cli.ops import Grid

BYTES = Grid(0, -128, 127)


def product(weight, bias=None, *, steps=BYTES, frac_bits=0, op="Gemm"):
    """An inner product with these weights, (N, K)."""
    weight = np.asarray(weight, np.float32)
    return Product(
        op,
        steps=steps,
        weight=weight,
        weight_grid=Grid(frac_bits, -(2**15), 2**15),
        bias=None if bias is None else np.asarray(bias, np.float32),
        shape=(1, weight.shape[0]),
        attributes={},
    )


def test_weights_become_multiples_of_their_step_and_biases_of_the_sums_unit():
    form = product([[0.5, -32]], [1.5], steps=Grid(3, -128, 127), frac_bits=2).integer_form(Grid(1, -128, 127))
    assert form.weight.tolist() == [[2, -128]]
    assert form.weight.dtype == np.int8
    assert form.bias.tolist() == [48]  # 1.5 in units of 2^-5
    assert form.rest.tolist() == [False]


@pytest.mark.parametrize(("bias", "below"), [(0.25, 0), (-0.25, -1), (3, 3), (-3.75, -4), (2.0**-30, 0)])
def test_a_bias_between_two_units_is_rounded_down_and_known_to_have_a_rest(bias, below):
    form = IntegerForm(product([[1]], [bias]), BYTES)
    assert (form.bias.tolist(), form.rest.tolist()) == ([below], [bias != below])


@pytest.mark.parametrize("weight", [[[128]], [[-129]], [[1e30]], [[float("inf")]]])
def test_weights_that_are_no_bytes_have_no_integer_form(weight):
    assert product(weight).integer_form(BYTES) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 1, 1, 1)])
def test_convolutions_of_one_and_three_axes_have_none(shape):
    assert product(np.ones(shape), op="Conv").integer_form(BYTES) is None


@pytest.mark.parametrize("bias", [2.0**31, -(2.0**31), 1e30, float("inf"), float("nan")])
def test_a_bias_beyond_int32_has_none(bias):
    assert product([[1]], [bias]).integer_form(Grid(-30, -128, 127)) is None


@pytest.mark.parametrize("frac_bits", [61, -61, 2**31 - 1, -(2**31)])
def test_grids_that_are_too_far_from_that_of_the_sums_have_none(frac_bits):
    assert product([[0]], [1], frac_bits=frac_bits).integer_form(BYTES) is None
    assert product([[0]], [1]).integer_form(Grid(frac_bits, -128, 127)) is None


def test_sums_that_float32_cannot_hold_are_exact_only_where_they_saturate_anyway():
    """2000 products of up to 127 by 128 are more than 2^24; 128 steps of 2^16 are still below 2^24, of 2^18 not."""
    many = product(np.full((1, 2000), 127))
    assert many.integer_form(Grid(-16, -128, 127)) is not None
    assert many.integer_form(Grid(-18, -128, 127)) is None
    assert product(np.full((1, 900), 127)).integer_form(Grid(-18, -128, 127)) is not None


def test_sums_beyond_int32_have_none():
    assert product(np.full((1, 2**18), 127)).integer_form(BYTES) is None


def test_weights_are_looked_at_in_parts():
    weight = np.ones((3, 2**20), np.float32)
    weight[2, 5] = 100
    form = IntegerForm(product(weight), Grid(-2, -128, 127))
    assert form.weight.sum() == 3 * 2**20 + 99


def test_this_machines_kernels_are_tried():
    assert integers_are_exact() in (True, False)


def test_kernels_that_add_in_16_bits_are_noticed(monkeypatch):
    """Two products of 255 by -128 are -65280: beyond 16 bits."""

    class Saturating:
        def __init__(self, graph, outputs):
            self.inner = onnx_real(graph, outputs)

        def run(self, feeds):
            return {name: np.minimum(top, 200) for name, top in self.inner.run(feeds).items()}

    onnx_real = onnx_session.Session
    monkeypatch.setattr(onnx_session, "Session", Saturating)
    assert not integers_are_exact.__wrapped__()


def test_kernels_that_round_bytes_otherwise_are_noticed(monkeypatch):
    class RoundingUp(onnx_session.Session):
        def run(self, feeds):
            (x,) = feeds.values()
            return {"top": np.floor((x - 128) / 2 + 0.5) + 128} if x.shape == (256,) else super().run(feeds)

    monkeypatch.setattr(onnx_session, "Session", RoundingUp)
    assert not integers_are_exact.__wrapped__()


def test_an_onnxruntime_without_the_kernels_is_one_that_is_not_exact(monkeypatch):
    def refuse(graph, outputs):
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for QGemm")

    monkeypatch.setattr(onnx_session, "Session", refuse)
    assert not integers_are_exact.__wrapped__()


def test_the_answer_is_kept(monkeypatch):
    integers_are_exact()
    monkeypatch.setattr(onnx_integers, "_agrees", None)
    integers_are_exact()
