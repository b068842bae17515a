"""The interface of a graph pass: a class in a file of this package, registered under the name that users know it by."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from ristretto_cli.backends.exact_kernels import IntegerKernels
from ristretto_cli.backends.facts import Facts
from ristretto_cli.backends.onnx_graph import Graph, Node, Tensor
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.registry import Registry

_BLOCK = 16  # channels, at most


@dataclass(frozen=True)
class Target:
    """What a graph is rewritten for.

    kernels: the integer kernels that may be used. has_blocks: whether onnxruntime keeps channels in blocks between
    convolutions. bound_of_inputs: see Facts. assumes_in_range: values are assumed to have no exponent above that of
    their minifloat format; `guards` tell whether it was true.
    """

    kernels: IntegerKernels
    has_blocks: bool
    bound_of_inputs: float | None = None
    assumes_in_range: bool = False


@dataclass(frozen=True)
class Guard:
    """An assumption on which `value` rests: no element of `magnitude` reaches the limit."""

    value: Tensor
    magnitude: Tensor
    limit: float

    def follow(self, replaced: Mapping[str, Tensor]) -> Guard:
        """The guard after tensors were replaced, by name."""
        value, magnitude = (replaced.get(tensor.name, tensor) for tensor in (self.value, self.magnitude))
        return Guard(value, magnitude, self.limit)


@dataclass
class Context:
    """What passes share."""

    graph: Graph
    facts: Facts
    target: Target
    guards: list[Guard] = field(default_factory=list)

    @property
    def ops(self) -> OnnxOps:
        """The primitives, recorded in the graph."""
        return OnnxOps(graph=self.graph)


class GraphPass(ABC):
    """One rewrite of a graph.

    It sees the nodes that the outputs need in the order in which they are computed, each with the inputs that earlier
    replacements gave it. Each graph gets a new object, which may have state. order: passes run
    from low to high.
    """

    order: ClassVar[int]

    def __init__(self, context: Context) -> None:
        self.context = context
        self.graph = context.graph
        self.facts = context.facts
        self.target = context.target

    def visit(self, node: Node) -> Sequence[Tensor] | None:
        """The tensors that take the place of the node's outputs; None to keep the node."""
        raise NotImplementedError

    def one(
        self, op: str, inputs: Sequence[Tensor | None], like: Tensor, domain: str = "", **attributes: object
    ) -> Tensor:
        """Record a node with one output of the shape of `like`."""
        return self.graph.record(op, inputs, [like.shape], domain, **attributes)[0]

    def again(self, node: Node, x: Tensor) -> Tensor:
        """Record a node of one output a second time, with another first input."""
        return self.graph.record(node.op, [x, *node.inputs[1:]], [node.output.shape], node.domain, **node.attributes)[0]


GRAPH_PASSES: Registry[type[GraphPass]] = Registry("graph pass", __package__ or "", "ristretto.graph_passes")

P = TypeVar("P", bound=type[GraphPass])


def graph_pass(name: str, *, order: int) -> Callable[[P], P]:
    """Class decorator: register a GraphPass under its name."""

    def register(cls: P) -> P:
        cls.order = order
        GRAPH_PASSES.register(name)(cls)
        return cls

    return register


def all_passes() -> list[str]:
    """The names of all passes, in the order in which they run."""
    found: Mapping[str, type[GraphPass]] = GRAPH_PASSES.usable()
    return sorted(found, key=lambda name: (found[name].order, name))


def has_blocks(target: Target, x: Tensor) -> bool:
    """Whether onnxruntime can keep the channels of a convolution's output in blocks."""
    return target.has_blocks and len(x.shape) == 4 and x.shape[1] % _BLOCK == 0


def is_move(node: Node | None) -> bool:
    """Whether a node's output has some of its first input's elements, in an order that does not depend on them or
    only on which are larger."""
    return (
        node is not None and not node.domain and len(node.outputs) == 1 and node.op in {"MaxPool", "Reshape", "Slice"}
    )
