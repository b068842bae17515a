"""Which of onnxruntime's integer kernels compute exactly on this machine.

Each is probed once, when a graph could use it, with numbers that saturate where a kernel can. There is no list of
processors: what onnxruntime runs depends on the processor, on how onnxruntime was built and on its release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto

from ristretto_cli.backends.onnx_graph import Graph, Tensor
from ristretto_cli.backends.onnx_integers import (
    ALL_KERNELS,
    MAX_STEPS_BITS,
    IntegerForm,
    Kernel,
    Operation,
    Product,
    Weights,
    record_rescaled,
)
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.ops import AnyArray, ConvGeometry, Grid

_BYTES = Grid(0, -128, 127)
_RECTIFIED = Grid(0, 0, 127)


@dataclass(frozen=True)
class IntegerKernels:
    """The integer kernels that a graph may use: for products, and, if `rescales`, to bring bytes onto another grid.

    Both are asked for only where a graph has use for them, since it takes a few milliseconds to try a kernel.
    even_if_slower: whether a product takes an integer kernel also where float32 is faster.
    """

    allows: Callable[[Kernel], bool]
    rescales: Callable[[], bool]
    even_if_slower: bool = False

    @classmethod
    def of(cls, kernels: Collection[Kernel], *, rescales: bool = True, even_if_slower: bool = True) -> IntegerKernels:
        """These kernels, exact or not."""
        return cls(kernels.__contains__, lambda: rescales, even_if_slower)

    def fastest(self, form: IntegerForm) -> Kernel | None:
        """The fastest kernel for a product; None where there is none, or where float32 is faster."""
        kernel = next(filter(self.allows, form.kernels()), None)
        return kernel if kernel is not None and (self.even_if_slower or form.is_faster(kernel)) else None


ALL = IntegerKernels.of(ALL_KERNELS)
NONE = IntegerKernels.of((), rescales=False)


def exact_kernels() -> IntegerKernels:
    """The kernels that are exact on this machine."""
    return IntegerKernels(is_exact, rescales_exactly)


@cache
def is_exact(kernel: Kernel) -> bool:
    """Whether a kernel computes a few products of extreme numbers exactly; not so where onnxruntime lacks it."""
    rng = np.random.default_rng(0)
    graph, feeds, wanted, outputs = Graph(), {}, {}, {}
    for number, case in enumerate(_cases(kernel)):
        name, form = str(number), case.form(rng)
        bottom = rng.choice(_extremes(case.steps), case.bottom).astype(np.float32)
        feeds[name] = bottom - case.steps.low
        stored = _as_bytes(graph, graph.input(name, case.bottom))
        made = form.record(graph, stored, form.grid.low, kernel)
        outputs[name] = _as_floats(graph, made)
        steps = np.rint(np.ldexp(_sums(form.product, bottom), form.grid.frac_bits))
        wanted[name] = np.clip(steps, form.grid.low, form.grid.high) - form.grid.low
    found = _run(graph, outputs, feeds)
    # What is right for bias remainders is right above 0 only: see IntegerForm.record.
    return found is not None and all(
        np.array_equal(np.maximum(found[name], 128), np.maximum(wanted[name], 128)) for name in wanted
    )


@cache
def rescales_exactly() -> bool:
    """Whether each byte is brought onto other grids as in float64."""
    graph, outputs, wanted = Graph(), {}, {}
    bytes_ = np.arange(256, dtype=np.float32)
    stored = _as_bytes(graph, graph.input("x", bytes_.shape))
    for shift in (-MAX_STEPS_BITS, -3, -1, 0, 1, 2, MAX_STEPS_BITS):
        for low, top_low in ((-128, -128), (-128, 0), (0, -128), (-8, -32)):
            name = f"{shift} {low} {top_low}"
            outputs[name] = _as_floats(graph, record_rescaled(graph, stored, low, shift, top_low))
            steps = np.rint(np.ldexp(bytes_.astype(np.float64) + low, shift))
            wanted[name] = np.clip(steps - top_low, 0, 255)
    found = _run(graph, outputs, {"x": bytes_})
    return found is not None and all(np.array_equal(found[name], wanted[name]) for name in wanted)


@dataclass(frozen=True)
class _Case:
    """A product to try a kernel on. bottom, weight: shapes; largest: the magnitude that no weight exceeds."""

    operation: Operation
    bottom: tuple[int, ...]
    weight: tuple[int, ...]
    steps: Grid = _BYTES
    largest: int = 128
    stride: int = 1
    pad: int = 0

    def form(self, rng: np.random.Generator) -> IntegerForm:
        """It with weights of extreme magnitudes, and biases whole and not."""
        low, high = -self.largest, min(127, self.largest)
        weight = rng.choice([low, low + 1, 3, high - 1, high], self.weight).astype(np.float32)
        bias = rng.integers(-2000, 2000, self.weight[0]) + rng.choice([0, 0.25, 0.5], self.weight[0])
        geometry, shape = None, self.bottom[:1] + self.weight[:1]
        if kernel := self.weight[2:]:
            group = self.bottom[1] // self.weight[1]
            geometry = ConvGeometry((self.stride,) * 2, (self.pad,) * 2, (1, 1), group)
            shape += geometry.convolved(self.bottom[2:], kernel)
        product = Product(self.steps, weight, _BYTES, bias.astype(np.float32), shape, geometry)
        # Sums spread over the bytes and beyond both their ends.
        bits = round(math.log2(self.largest * math.sqrt(math.prod(self.weight[1:]))))
        return IntegerForm(product, Grid(-max(1, bits), -128, 127))


def _cases(kernel: Kernel) -> list[_Case]:
    """Products of many shapes: a processor has several kernels for each operation, and code for what is left over."""
    shapes: dict[Operation, list[dict[str, Any]]] = {
        Operation.CONV: [
            {"bottom": (1, 256, 4, 4), "weight": (16, 256, 1, 1)},
            {"bottom": (2, 5, 7, 7), "weight": (3, 5, 3, 3), "pad": 1},
            {"bottom": (1, 32, 9, 9), "weight": (24, 32, 5, 5), "pad": 2, "stride": 2},
        ],
        Operation.GROUPED_CONV: [
            {"bottom": (1, 32, 6, 6), "weight": (16, 8, 3, 3), "pad": 1},
            {"bottom": (2, 6, 5, 5), "weight": (6, 3, 1, 1)},
            {"bottom": (1, 4, 5, 5), "weight": (8, 1, 3, 3)},
        ],
        Operation.DEPTHWISE_CONV: [
            {"bottom": (1, 32, 8, 8), "weight": (32, 1, 3, 3), "pad": 1},
            {"bottom": (2, 19, 9, 9), "weight": (19, 1, 5, 5), "pad": 2, "stride": 2},
            {"bottom": (1, 16, 8, 8), "weight": (16, 1, 1, 1)},
        ],
        Operation.GEMM: [
            {"bottom": (64, 256), "weight": (16, 256)},
            {"bottom": (1, 131), "weight": (37, 131)},
            {"bottom": (5, 6), "weight": (2, 6)},
        ],
    }
    limits: Sequence[dict[str, Any]] = [{}]
    if kernel.weights is Weights.SIGNED_BOUNDED:
        limits = [{"steps": _RECTIFIED}, {"largest": 64}]
    return [_Case(kernel.operation, **shape, **limit) for shape in shapes[kernel.operation] for limit in limits]


def _extremes(steps: Grid) -> list[int]:
    middle = (steps.low + steps.high + 1) // 2
    return [steps.low, steps.low + 1, middle - 1, middle, middle + 1, steps.high - 1, steps.high]


def _sums(product: Product, bottom: AnyArray) -> AnyArray:
    """The product in float64."""
    x, weight = bottom.astype(np.float64), product.weight.astype(np.float64)
    bias = np.zeros(weight.shape[0]) if product.bias is None else product.bias.astype(np.float64)
    if product.geometry is None:
        return np.asarray(x @ weight.T + bias)
    (down, across), group = product.geometry.stride, product.geometry.group
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in product.geometry.pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::down, ::across]
    parts = zip(np.split(windows, group, axis=1), np.split(weight, group), strict=True)
    # (N, C, H', W', KH, KW) by (C', C, KH, KW) to (N, H', W', C')
    sums = [np.tensordot(part, filters, ((1, 4, 5), (1, 2, 3))) for part, filters in parts]
    top: AnyArray = np.moveaxis(np.concatenate(sums, axis=-1) + bias, -1, 1)
    return top


def _as_bytes(graph: Graph, x: Tensor) -> Tensor:
    return graph.record("Cast", [x], [x.shape], to=TensorProto.UINT8)[0]


def _as_floats(graph: Graph, x: Tensor) -> Tensor:
    return graph.record("Cast", [x], [x.shape], to=TensorProto.FLOAT)[0]


def _run(graph: Graph, outputs: dict[str, Tensor], feeds: dict[str, AnyArray]) -> dict[str, AnyArray] | None:
    try:
        return Session(graph, outputs, threads=1).run(feeds)
    except Exception:  # onnxruntime's errors have no common class; a build may lack a kernel
        return None
