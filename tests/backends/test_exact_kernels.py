"""Which of onnxruntime's integer kernels are exact on this machine, and that kernels which are not are noticed."""

import numpy as np
import pytest

from ristretto_cli.backends import exact_kernels as onnx_kernels
from ristretto_cli.backends.exact_kernels import ALL, NONE, IntegerKernels, exact_kernels, is_exact, rescales_exactly
from ristretto_cli.backends.onnx_integers import ALL_KERNELS, IntegerForm, Kernel, Operation, Product, Weights
from ristretto_cli.ops import Grid

BYTES = Grid(0, -128, 127)


def in_order(kernels):
    return sorted(kernels, key=lambda kernel: (kernel.operation.name, kernel.weights.name))


def a_form(weight=1, steps=BYTES):
    product = Product(steps, np.full((1, 1), weight, np.float32), BYTES, None, (1, 1), None)
    return IntegerForm(product, BYTES)


@pytest.mark.parametrize("kernel", in_order(ALL_KERNELS), ids=str)
def test_kernel_is_exact_on_this_machine(kernel):
    """Where one is not, `agree` computes what it would give with float32 operations."""
    if not is_exact(kernel):
        pytest.skip(f"the {kernel.operation.value} of {kernel.weights.value} weights is not exact on this processor")


@pytest.mark.parametrize("operation", Operation)
def test_kernels_that_never_saturate_are_exact_if_faster_ones_are(operation):
    """Where unbounded pairs of products do not saturate, bounded ones do not."""
    assert is_exact(Kernel(operation, Weights.SIGNED_BOUNDED)) or not is_exact(Kernel(operation, Weights.SIGNED))


def saturating(real):
    """A session whose results are cut off at 200, as sums of 16 bits would be."""

    class Saturating(real):
        def run(self, feeds):
            return {name: np.minimum(top, 200) for name, top in super().run(feeds).items()}

    return Saturating


@pytest.mark.parametrize("operation", Operation)
def test_kernels_that_saturate_are_noticed(monkeypatch, operation):
    monkeypatch.setattr(onnx_kernels, "Session", saturating(onnx_kernels.Session))
    for weights in Weights:
        assert not is_exact.__wrapped__(Kernel(operation, weights))


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("operation", Operation)
def test_each_case_saturates_where_a_kernel_adds_pairs_in_16_bits(operation, case):
    """So that none of them passes by luck: adjacent products of a filter, in the order of its weights, are added."""
    shape = onnx_kernels._cases(Kernel(operation, Weights.SIGNED))[case]
    rng = np.random.default_rng(0)
    weight = shape.form(rng).weight.reshape(shape.weight[0], -1)
    if weight.shape[1] == 1:
        return  # a single product
    pairs = weight[:, : weight.shape[1] // 2 * 2].reshape(weight.shape[0], -1, 2).astype(int).sum(-1)
    assert np.abs(pairs * 255).max() > 2**15


def test_rescaling_that_rounds_otherwise_is_noticed(monkeypatch):
    class RoundingUp(onnx_kernels.Session):
        def run(self, feeds):
            (x,) = feeds.values()
            found = super().run(feeds)
            return {**found, "-1 -128 -128": np.floor((x - 128) / 2 + 0.5) + 128}

    monkeypatch.setattr(onnx_kernels, "Session", RoundingUp)
    assert not rescales_exactly.__wrapped__()


def test_an_onnxruntime_without_a_kernel_does_not_have_it(monkeypatch):
    def refuse(graph, outputs, threads):
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for QGemm")

    monkeypatch.setattr(onnx_kernels, "Session", refuse)
    assert not is_exact.__wrapped__(Kernel(Operation.GEMM, Weights.UNSIGNED))
    assert not rescales_exactly.__wrapped__()


def test_a_kernel_is_tried_no_sooner_than_it_is_needed(monkeypatch):
    tried = []
    monkeypatch.setattr(onnx_kernels, "is_exact", lambda kernel: tried.append(kernel.weights) or True)
    found = exact_kernels()
    assert tried == []
    assert found.fastest(a_form()) == Kernel(Operation.GEMM, Weights.SIGNED)
    assert tried == [Weights.SIGNED]


@pytest.mark.parametrize(
    ("kernels", "form", "fastest"),
    [
        (ALL, a_form(), Weights.SIGNED),
        (NONE, a_form(), None),
        ({Weights.SIGNED_BOUNDED, Weights.UNSIGNED}, a_form(64), Weights.SIGNED_BOUNDED),
        ({Weights.SIGNED_BOUNDED, Weights.UNSIGNED}, a_form(127), Weights.UNSIGNED),
        ({Weights.SIGNED_BOUNDED, Weights.UNSIGNED}, a_form(127, Grid(0, 0, 127)), Weights.SIGNED_BOUNDED),
        ({Weights.SIGNED_BOUNDED, Weights.UNSIGNED}, a_form(64, Grid(0, 0, 255)), Weights.SIGNED_BOUNDED),
        ({Weights.SIGNED_BOUNDED, Weights.UNSIGNED}, a_form(65, Grid(0, 0, 255)), Weights.UNSIGNED),
        ({Weights.SIGNED_BOUNDED}, a_form(127), None),
    ],
)
def test_a_product_takes_the_fastest_kernel_that_there_is(kernels, form, fastest):
    if isinstance(kernels, set):
        kernels = IntegerKernels.of([Kernel(Operation.GEMM, weights) for weights in kernels])
    found = kernels.fastest(form)
    assert (found and found.weights) == fastest
