"""What a layer type is: a class in a file of its own in this package, registered under Caffe's name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Array, Ops, Shape, V
from ristretto_cli.registry import Registry
from ristretto_cli.wire.messages import Message, new

LAYERS: Registry[LayerType] = Registry("layer type", __package__ or "", "ristretto.layers")


class LayerType(ABC):
    """One Caffe layer type; instances hold no state.

    A subclass states how many bottoms and tops it takes, which parameters it has, and, once for all
    backends, what it computes. Shapes come from running `forward` on a backend that knows only shapes, so
    that bad settings and bad shapes are refused, with LayerError, in `params` or `forward` alone.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)  # least and most; None: any number
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    tops_match_bottoms: ClassVar[bool] = False  # as many tops as bottoms
    in_place: ClassVar[bool] = False  # a top may have the bottom's name
    is_loss: ClassVar[bool] = False  # the first top has loss weight 1 unless the net says otherwise
    without_gradient: ClassVar[tuple[int, ...]] = ()  # bottoms that get no gradient: labels, indices
    trims: ClassVar[bool] = False  # the walker trims bottoms, parameters and tops by quantization_param

    family: ClassVar[str] = ""  # what the summary calls such layers, "CONV" or "FC"; empty: they are not trimmed
    trimmed_type: ClassVar[str] = ""  # the type that does the same, trimmed

    def shares_memory(self, layer: Layer) -> bool:
        """Whether the tops are the bottom's memory under another name, as Split's and Reshape's are in Caffe."""
        return False

    def ignores_negative(self, layer: Layer) -> bool:
        """Whether the tops are the same for all values of the bottom up to zero, as ReLU's are."""
        return False

    def make_explicit(self, message: Message, bottoms: Sequence[Shape]) -> None:
        """Write into a copy of a layer's message what only its type implies, before trimmed_type takes its place."""

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        """The parameters, in the order of the files of weights. bottoms: their shapes."""
        return ()

    @abstractmethod
    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        """The tops. layer.tops is not filled in with shapes yet when shapes are found; its length is right."""

    def statistics(self, message: Message) -> Collection[int]:
        """The parameters, by index, that are no weights: gradients do not move them, whatever their lr_mult says."""
        return ()

    def old_share(self, layer: Layer, params: Sequence[Array], passes: int) -> float:
        """How much of its statistics will be what they are now after so many passes in TRAIN, from 0 to 1."""
        return 0.0

    def states(self, layer: Layer) -> tuple[Shape, ...]:
        """The shapes of what the layer keeps from one pass to the next (a hidden state); zeros before the first."""
        return ()

    def forward_from(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V], states: Sequence[V]
    ) -> tuple[Sequence[V], Sequence[V]]:
        """The tops and the new states; `forward` gives the same tops where all states are zeros."""
        return self.forward(ops, layer, bottoms, params), ()

    def forward_and_updates(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]
    ) -> tuple[Sequence[V], Mapping[int, V]]:
        """The tops, and by index the parameters that the pass itself changes (BatchNorm's statistics)."""
        return self.forward(ops, layer, bottoms, params), {}


def layer_type(*names: str) -> Any:
    """Class decorator: register a LayerType under these type names."""

    def register(cls: type[LayerType]) -> type[LayerType]:
        LAYERS.register(*names)(cls())
        return cls

    return register


def constant_filler(value: float = 0.0) -> Message:
    """The FillerParameter that fills with one value."""
    return new("FillerParameter", type="constant", value=value)
