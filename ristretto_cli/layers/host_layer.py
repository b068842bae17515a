"""Layers behind the graph: computed in numpy, since the shapes of their tops depend on the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ristretto_cli.layers.average_precision import ApVersion
from ristretto_cli.layers.layer_type import LAYERS, LayerType
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array, Ops, Shape, V

Compute: TypeAlias = Callable[[Sequence[Array]], Sequence[Array]]  # the bottoms of a batch to the tops, float32


class HostLayer(LayerType):
    """A layer type whose layers run when the graph is done, on what the graph made and on what was fed.

    Only such layers can read their tops, and what data layers bring with an extent that VARIES: graphs are static.
    """

    @abstractmethod
    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """The shapes of the tops as far as they are known, with VARIES for the rest; LayerError for bad settings."""

    @abstractmethod
    def start(self, layer: Layer) -> Compute:
        """What computes one batch after the other, from the first one on; LayerError where data do not fit."""

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        raise TypeError(f"{layer.type} layers are never recorded")


@dataclass(frozen=True)
class Judging:
    """How nets are judged where there is a choice. asked_for: the user chose it, so a net must be judged by it."""

    ap_version: ApVersion = ApVersion.INTEGRAL
    asked_for: bool = False


@dataclass(frozen=True)
class Verdict:
    """How good a net is: one number, the higher the better, and by name the parts that it is made of."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


class JudgingLayer(HostLayer):
    """A layer whose first top tells how good a net is, but only when that of all batches is put together."""

    @abstractmethod
    def judge(self, layer: Layer, tops: Sequence[Array], how: Judging) -> Verdict:
        """The verdict on a net that gave these, batch after batch, as the layer's first top."""


def readers() -> str:
    """The types of all layers behind the graph, for messages."""
    *names, last = (name for name, kind in LAYERS.registered().items() if isinstance(kind, HostLayer))
    return f"{', '.join(names)} and {last}" if names else last
