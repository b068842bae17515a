"""An ONNX graph while it is recorded and rewritten: tensors, nodes, constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ristretto_cli.ops import AnyArray, ConvGeometry, Grid, Shape

# Constants of fewer bytes are written into the model: onnxruntime must see the values of shapes and axes.
LARGE_BYTES = 4096


@dataclass(frozen=True)
class Tensor:
    """A value of the graph: its name there, and its shape."""

    name: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Node:
    """An operation of the graph. inputs: None for an optional one that is left out. scope: the prefix of its name."""

    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any]
    domain: str
    scope: str

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int) -> Tensor:
        """An input that is not left out."""
        tensor = self.inputs[index]
        if tensor is None:
            raise ValueError(f"input {index} of {self.op} is omitted")
        return tensor


@dataclass(frozen=True)
class _Scaled:
    base: Tensor
    exponent: int


class Graph:
    """Nodes in an order in which they can be computed. A rewrite adds nodes and forgets none: a model has only those
    that its outputs need.

    grids: for constants of which it is known, a grid that holds all elements.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.initializers: dict[str, AnyArray] = {}
        self.grids: dict[str, Grid] = {}
        self._nodes: list[Node] = []
        self._producers: dict[str, Node] = {}
        self._names: set[str] = set()
        self._scope = ""
        self._by_memory: dict[tuple[object, ...], tuple[AnyArray, Tensor]] = {}
        self._by_content: dict[tuple[str, Shape, bytes], Tensor] = {}
        self._deferred: dict[str, Callable[[], AnyArray]] = {}
        self._scalings: dict[str, _Scaled] = {}
        self._scaled: dict[tuple[str, int], Tensor] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """A context in which the names of new nodes begin with `name/`; scopes nest."""
        with self.scope_of(f"{self._scope}{name}/"):
            yield

    @contextmanager
    def scope_of(self, prefix: str) -> Iterator[None]:
        """A context in which new nodes have this whole prefix, that of another node."""
        outer, self._scope = self._scope, prefix
        try:
            yield
        finally:
            self._scope = outer

    def input(self, name: str, shape: Shape) -> Tensor:
        """A float32 input of the model."""
        if name in self._names:
            raise ValueError(f"there is already a value named {name}")
        self._names.add(name)
        self.inputs[name] = Tensor(name, tuple(shape))
        return self.inputs[name]

    def constant(self, array: AnyArray, name: str = "") -> Tensor:
        """An array as a tensor; the array is not copied. The same memory given again is the same tensor, and so is
        a small array without a name that equals another."""
        kept = np.asarray(array, order="C")  # np.ascontiguousarray would turn a scalar into a vector
        if not name and not is_large(kept):
            content = (kept.dtype.str, kept.shape, kept.tobytes())
            if content not in self._by_content:
                self._by_content[content] = self._initializer(kept, _constant_name(kept))
            return self._by_content[content]
        # The array is held, so no other can come to lie in its memory.
        memory = (array.ctypes.data, array.dtype.str, array.shape, array.strides)
        if memory not in self._by_memory:
            self._by_memory[memory] = (array, self._initializer(kept, name or f"{self._scope}constant"))
        return self._by_memory[memory][1]

    def ints(self, numbers: Iterable[int]) -> Tensor:
        """An int64 vector: a shape, axes, bounds."""
        return self.constant(np.asarray(list(numbers), dtype=np.int64))

    def number(self, number: float) -> Tensor:
        """A float32 scalar."""
        return self.constant(np.asarray(number, dtype=np.float32))

    def deferred(self, shape: Shape, make: Callable[[], AnyArray]) -> Tensor:
        """A constant that is computed only if a model needs it."""
        name = unused(f"{self._scope}constant", self._names)
        self._deferred[name] = make
        return Tensor(name, tuple(shape))

    def scaled(self, constant: Tensor, exponent: int) -> Tensor:
        """A constant times 2^exponent, computed only if a model needs it."""
        base, total = self.scaling(constant)
        total += exponent
        if total == 0:
            return base
        if (base.name, total) not in self._scaled:
            array, factor = self.initializers[base.name], np.float32(math.ldexp(1.0, total))
            tensor = self.deferred(base.shape, lambda: array * factor)
            self._scaled[base.name, total] = tensor
            self._scalings[tensor.name] = _Scaled(base, total)
        return self._scaled[base.name, total]

    def scaling(self, constant: Tensor) -> tuple[Tensor, int]:
        """The constant that this one was scaled from, and the exponent; itself and 0 for others."""
        scaling = self._scalings.get(constant.name)
        return (constant, 0) if scaling is None else (scaling.base, scaling.exponent)

    def array(self, tensor: Tensor | None) -> AnyArray | None:
        """The elements of a constant; None for other tensors, and for constants that are not computed yet."""
        return None if tensor is None else self.initializers.get(tensor.name)

    def record(
        self, op: str, inputs: Sequence[Tensor | None], shapes: Sequence[Shape], domain: str = "", **attributes: Any
    ) -> list[Tensor]:
        """Add a node, and return its outputs, one per shape. None stands for an optional input that is left out."""
        return list(self._add(op, inputs, shapes, domain, attributes).outputs)

    def copy(self, node: Node, inputs: Sequence[Tensor | None]) -> Node:
        """Add a node like another one, with other inputs."""
        return self._add(node.op, inputs, [output.shape for output in node.outputs], node.domain, node.attributes)

    def producer(self, tensor: Tensor | None) -> Node | None:
        """The node that computes a tensor; None for inputs and constants."""
        return None if tensor is None else self._producers.get(tensor.name)

    def needed(self, outputs: Iterable[Tensor]) -> list[Node]:
        """The nodes that compute these tensors, in order."""
        wanted = {tensor.name for tensor in outputs}
        found = []
        for node in reversed(self._nodes):
            if any(output.name in wanted for output in node.outputs):
                wanted.update(tensor.name for tensor in node.inputs if tensor is not None)
                found.append(node)
        return found[::-1]

    def keep_only(self, outputs: Iterable[Tensor]) -> None:
        """Compute the deferred constants that these outputs need, and forget all other large constants: the graph is
        of no use for other outputs afterwards."""
        outputs = list(outputs)
        read = {t.name for node in self.needed(outputs) for t in node.inputs if t is not None}
        read |= {tensor.name for tensor in outputs}
        for name in [name for name in self._deferred if name in read]:
            self.initializers[name] = self._deferred.pop(name)()
        for name in [name for name, array in self.initializers.items() if is_large(array) and name not in read]:
            del self.initializers[name]
        self._by_memory = {key: held for key, held in self._by_memory.items() if held[1].name in self.initializers}
        self._deferred.clear()

    def _add(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        shapes: Sequence[Shape],
        domain: str,
        attributes: Mapping[str, Any],
    ) -> Node:
        outputs = [Tensor(unused(f"{op} {len(self._nodes)}:{i}", self._names), s) for i, s in enumerate(shapes)]
        node = Node(op, tuple(inputs), tuple(outputs), attributes, domain, self._scope)
        self._nodes.append(node)
        self._producers.update((output.name, node) for output in outputs)
        return node

    def _initializer(self, array: AnyArray, name: str) -> Tensor:
        name = unused(name, self._names)
        self.initializers[name] = array
        return Tensor(name, array.shape)


def conv_attributes(kernel: Shape, geometry: ConvGeometry) -> dict[str, Any]:
    """The attributes of a Conv, ConvTranspose or QLinearConv node."""
    return {
        "kernel_shape": kernel,
        "strides": geometry.stride,
        "pads": geometry.pad * 2,
        "dilations": geometry.dilation,
        "group": geometry.group,
    }


def conv_geometry(node: Node) -> ConvGeometry:
    """The geometry that a Conv node was recorded with."""
    attributes = node.attributes
    strides, pads, dilations = (tuple(attributes[name]) for name in ("strides", "pads", "dilations"))
    return ConvGeometry(strides, pads[: len(strides)], dilations, attributes["group"])


def unused(name: str, taken: set[str]) -> str:
    """The name, followed by a number if it is taken; it is taken from now on."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def is_large(array: AnyArray) -> bool:
    """Whether a model without weights leaves this constant out."""
    return array.nbytes >= LARGE_BYTES


def _constant_name(array: AnyArray) -> str:
    return f"constant {array.item():g}" if array.size == 1 else "constant"
