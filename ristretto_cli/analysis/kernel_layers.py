"""Attribution of onnxruntime's kernels to layers, by the names of nodes and the computation of fused nodes.

onnxruntime renames nodes (`conv1/Conv_nchwc`, `fused fc/Gemm`), fuses several into one with the name of any of
them (a convolution and the ReLU after it may be called `relu1/Relu_nchwc`), and adds nodes of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ristretto_cli.backends.onnx_model import NodeProto
from ristretto_cli.backends.onnx_profile import Kernel

# Prefix of operators with an activation; the names of their nodes have it in lower case.
_FUSED = "Fused"
_ENDS = re.compile(r"[_/ ](?=[^_/ ]*$)")  # the start of the last part of a name


@dataclass
class Shares:
    """The time of kernels. layers: microseconds of each layer with kernels. others: of kernels of no layer.

    within: for layers whose nodes onnxruntime fused into another layer's, that layer, as far as known.
    """

    layers: dict[str, float] = field(default_factory=dict)
    others: float = 0.0
    within: dict[str, str] = field(default_factory=dict)

    def add(self, layers: Collection[str], nodes: Sequence[NodeProto], kernels: Iterable[Kernel]) -> None:
        """Add a session's kernels. layers: all layers' names; nodes of a layer are named `layer/...`."""
        kernels = list(kernels)
        graph = _FusedGraph(nodes, kernels)
        for kernel in kernels:
            ran = graph.named(kernel.name)
            owner = None if ran is None else graph.computed_by(kernel, ran)
            layer = None if owner is None else _layer(owner.name, layers)
            if layer is None:
                self.others += kernel.microseconds
                continue
            self.layers[layer] = self.layers.get(layer, 0.0) + kernel.microseconds
            for node in [] if ran is None else graph.fused_with(kernel, ran):
                other = _layer(node.name, layers)
                if other is not None and other != layer:
                    self.within[other] = layer


class _FusedGraph:
    """A graph's nodes, and those that onnxruntime fused into others."""

    def __init__(self, nodes: Sequence[NodeProto], kernels: Sequence[Kernel]) -> None:
        self._nodes: Mapping[str, NodeProto] = {node.name: node for node in nodes}
        self._producers = {name: node for node in nodes for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        found = (self.named(kernel.name) for kernel in kernels)
        self._with_kernels = {node.name for node in found if node is not None}

    def named(self, name: str) -> NodeProto | None:
        """The node that a kernel is named after."""
        name = name if name in self._nodes else name.removeprefix("fused ")
        while name not in self._nodes and (end := _ENDS.search(name)):
            name = name[: end.start()]
        return self._nodes.get(name)

    def computed_by(self, kernel: Kernel, ran: NodeProto) -> NodeProto:
        """The node with the kernel's operator, which may precede the one that the kernel is named after."""
        return self._path(kernel, ran)[-1]

    def fused_with(self, kernel: Kernel, ran: NodeProto) -> list[NodeProto]:
        """Further nodes known to be computed by a kernel."""
        joined = self._path(kernel, ran)
        if kernel.op.startswith(_FUSED):  # one activation, the only reader of the value
            readers = [node for name in ran.output for node in self._readers.get(name, [])]
            joined += [node for node in readers if len(readers) == 1 and node.name not in self._with_kernels]
        return joined

    def _path(self, kernel: Kernel, ran: NodeProto) -> list[NodeProto]:
        """From the node that a kernel is named after to that of its operator, through nodes without kernels."""
        op = kernel.op.removeprefix(_FUSED)
        paths = [[ran]]
        while paths:
            path = paths.pop(0)
            if path[-1].op_type == op:
                return path
            producers = (self._producers[name] for name in path[-1].input if name in self._producers)
            paths += [[*path, producer] for producer in producers if producer.name not in self._with_kernels]
        return [ran]


def _layer(node: str, layers: Collection[str]) -> str | None:
    """The layer that a node was recorded for; layer names may contain slashes."""
    while "/" in node:
        node = node.rpartition("/")[0]
        if node in layers:
            return node
    return None
