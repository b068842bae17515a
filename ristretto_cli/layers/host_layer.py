"""Host layers: computed in numpy after the graph, because the shapes of their tops depend on the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ristretto_cli.layers.average_precision import ApVersion
from ristretto_cli.layers.layer_type import LAYERS, LayerType
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array, Ops, Shape, V

Compute: TypeAlias = Callable[[Sequence[Array]], Sequence[Array]]  # from the bottoms of a batch to the tops, float32


class HostLayer(LayerType):
    """A layer type whose layers run after the graph, on its outputs and on fed blobs, because graphs are static.

    If other layers read their tops, these are inputs of a second graph, compiled for the shapes that a batch has.
    """

    @abstractmethod
    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """The shapes of the tops, with DYNAMIC for unknown extents; LayerError for bad settings."""

    @abstractmethod
    def start(self, layer: Layer) -> Compute:
        """A function that computes successive batches, starting with the first; LayerError if the data do not fit."""

    def forward_at_once(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], to_array: Callable[[V], Array]
    ) -> Sequence[V]:
        """The tops on a backend that computes at once; to_array gives the elements of a value.

        Without gradients, unless a layer type overrides it.
        """
        return [ops.constant(top) for top in self.start(layer)([to_array(bottom) for bottom in bottoms])]

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        raise TypeError(f"{layer.type} layers cannot be computed by a backend")


@dataclass(frozen=True)
class MetricOptions:
    """Options of metrics. requested_by: the flag by which the user asks for such a metric, which the net must have.

    detection: the metric is the score, whatever other outputs the net has.
    """

    ap_version: ApVersion = ApVersion.INTEGRAL
    requested_by: str = ""
    detection: bool = False


@dataclass(frozen=True)
class MetricValue:
    """The value of a metric: one number, higher is better, and its components by name."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


class MetricLayer(HostLayer):
    """A layer whose first top, taken over all batches together, gives a metric of the net."""

    @abstractmethod
    def compute(self, layer: Layer, tops: Sequence[Array], metric_options: MetricOptions) -> MetricValue:
        """The metric for these values of the layer's first top, one per batch."""


class HostLoss(HostLayer):
    """A host layer whose only top is a loss, (); training gets the gradients from it.

    Its bottoms are blobs of the graph or tops of data layers.
    """

    is_loss = True

    @abstractmethod
    def loss(self, layer: Layer, bottoms: Sequence[Array]) -> tuple[Array, Sequence[Array | None]]:
        """The loss of a batch, and its gradient with respect to each bottom; None for those without a gradient."""

    def start(self, layer: Layer) -> Compute:
        return lambda bottoms: [self.loss(layer, bottoms)[0]]


def host_loss(layer: Layer) -> HostLoss | None:
    """The type of a layer, if it is a HostLoss."""
    layer_type = LAYERS.get(layer.type) if layer.on_host else None
    return layer_type if isinstance(layer_type, HostLoss) else None
