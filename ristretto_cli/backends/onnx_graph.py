"""An ONNX graph while it grows: nodes, inputs, constants, and the model they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ristretto_cli.ops import AnyArray, ConvGeometry, Shape

# onnxruntime 1.20 runs opset 21 in full; of 22, even 1.31 lacks some (RandomUniform).
OPSET = 21
IR_VERSION = 10

# Constants of fewer bytes are written into the model: onnxruntime must see the values of shapes and axes.
LARGE_BYTES = 4096
EXTERNAL_FILE = "weights"  # never opened: whoever loads such a model brings the constants

NodeProto: TypeAlias = Any  # onnx is not typed
ModelProto: TypeAlias = Any


@dataclass(frozen=True)
class Node:
    """A value of the graph: its name there, and its shape."""

    name: str
    shape: Shape


class Graph:
    """Nodes in the order they were recorded; `model` picks those that some outputs need."""

    def __init__(self) -> None:
        self.inputs: dict[str, Node] = {}
        self.initializers: dict[str, AnyArray] = {}
        self._nodes: list[NodeProto] = []
        self._names: set[str] = set()
        self._prefix = ""
        self._by_memory: dict[tuple[object, ...], tuple[AnyArray, Node]] = {}
        self._by_content: dict[tuple[str, Shape, bytes], Node] = {}
        self._deferred: dict[str, Callable[[], AnyArray]] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names given inside begin with `name/`; scopes nest."""
        outer = self._prefix
        self._prefix = f"{outer}{name}/"
        try:
            yield
        finally:
            self._prefix = outer

    def in_this_scope(self, make: Callable[..., Node]) -> Callable[..., Node]:
        """A function that records what another one does, with the names that it has if it is called here."""
        prefix = self._prefix

        def scoped(*args: Any) -> Node:
            outer, self._prefix = self._prefix, prefix
            try:
                return make(*args)
            finally:
                self._prefix = outer

        return scoped

    def input(self, name: str, shape: Shape) -> Node:
        """What is fed under this name, float32."""
        if name in self._names:
            raise ValueError(f"there is already a value named {name}")
        self._names.add(name)
        self.inputs[name] = Node(name, tuple(shape))
        return self.inputs[name]

    def constant(self, array: AnyArray, name: str = "") -> Node:
        """An array as a value, kept and not copied. The same memory given again is the same value, and so is
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
            self._by_memory[memory] = (array, self._initializer(kept, name or f"{self._prefix}constant"))
        return self._by_memory[memory][1]

    def deferred(self, shape: Shape, make: Callable[[], AnyArray]) -> Node:
        """A constant that is made only when a model needs it."""
        name = self._fresh(f"{self._prefix}constant")
        self._deferred[name] = make
        return Node(name, tuple(shape))

    def record(
        self, op: str, inputs: Sequence[Node | None], shapes: Sequence[Shape], domain: str = "", **attributes: Any
    ) -> list[Node]:
        """Record a node; its outputs, one per shape. None stands for an optional input that is left out."""
        name = self._fresh(self._prefix + op)
        outputs = [Node(self._fresh(f"{name}:{i}") if i else name, shape) for i, shape in enumerate(shapes)]
        self._nodes.append(
            helper.make_node(
                op,
                ["" if value is None else value.name for value in inputs],
                [value.name for value in outputs],
                name=name,
                domain=domain,
                **attributes,
            )
        )
        return outputs

    def model(self, outputs: Mapping[str, Node], *, embed_weights: bool) -> ModelProto:
        """The model that computes these outputs, by their names, from such inputs as they need.

        Its outputs stand in the order of the mapping. An output called like one of the inputs gets another
        name, since a graph can have it but once. Without embed_weights, large constants are only declared (as
        external data, of no file); `initializers` has them by name.
        """
        nodes = self._needed(value.name for value in outputs.values())
        produced = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in node.input}
        read |= {value.name for value in outputs.values()} - produced
        inputs = [value for name, value in self.inputs.items() if name in read]
        for name in [name for name in self._deferred if name in read]:
            self.initializers[name] = self._deferred.pop(name)()
        constants = [name for name in self.initializers if name in read]

        taken = {value.name for value in inputs} | set(constants)
        names = {name: name for name in taken}
        results = [unused(name, taken) for name in outputs]
        copies = []
        for result, value in zip(results, outputs.values(), strict=True):
            if value.name in names:  # an input, a constant, or an output already
                copies.append(helper.make_node("Identity", [names[value.name]], [result], name=result))
            else:
                names[value.name] = result
        for name in [name for node in nodes for name in node.output if name not in names]:
            names[name] = unused(name, taken)
        graph = helper.make_graph(
            [_renamed(node, names) for node in nodes] + copies,
            "net",
            [_declared(value.name, value.shape) for value in inputs],
            [_declared(name, value.shape) for name, value in zip(results, outputs.values(), strict=True)],
            [_tensor(name, self.initializers[name], embed_weights) for name in constants],
        )
        return helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid(domain, OPSET if domain == "" else 1)
                for domain in sorted({"", *(node.domain for node in nodes)})
            ],
            ir_version=IR_VERSION,
            producer_name="ristretto-cli",
        )

    def values(self, outputs: Iterable[Node]) -> set[str]:
        """The names of all values that nodes compute on the way to these."""
        return {name for node in self._needed(value.name for value in outputs) for name in node.output}

    def keep_only(self, outputs: Mapping[str, Node]) -> None:
        """Forget the large constants that these outputs do not need: another model cannot be made of the graph."""
        needed = self._needed(value.name for value in outputs.values())
        read = {name for node in needed for name in node.input} | {value.name for value in outputs.values()}
        for name in [name for name, array in self.initializers.items() if is_large(array) and name not in read]:
            del self.initializers[name]
        self._by_memory = {key: held for key, held in self._by_memory.items() if held[1].name in self.initializers}
        self._deferred = {name: make for name, make in self._deferred.items() if name in read}

    def _needed(self, names: Iterable[str]) -> list[NodeProto]:
        """The nodes that compute these values, in order."""
        wanted = set(names)
        found = []
        for node in reversed(self._nodes):
            if not wanted.isdisjoint(node.output):
                wanted.update(node.input)
                found.append(node)
        return found[::-1]

    def _initializer(self, array: AnyArray, name: str) -> Node:
        name = self._fresh(name)
        self.initializers[name] = array
        return Node(name, array.shape)

    def _fresh(self, name: str) -> str:
        return unused(name, self._names)


def conv_attributes(kernel: Shape, geometry: ConvGeometry) -> dict[str, Any]:
    """The attributes of a Conv, ConvTranspose or QLinearConv node."""
    return {
        "kernel_shape": kernel,
        "strides": geometry.stride,
        "pads": geometry.pad * 2,
        "dilations": geometry.dilation,
        "group": geometry.group,
    }


def unused(name: str, taken: set[str]) -> str:
    """The name, with a number behind it where it is taken; it is taken from now on."""
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


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names[name] if name else "" for name in node.input]
    copy.output[:] = [names[name] for name in node.output]
    return copy


def _declared(name: str, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _tensor(name: str, array: AnyArray, embed: bool) -> Any:
    if embed or not is_large(array):
        return numpy_helper.from_array(array, name)
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value=EXTERNAL_FILE)
    return tensor
