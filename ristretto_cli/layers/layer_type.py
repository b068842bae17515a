"""The interface of a layer type: a class in a file of this package, registered under Caffe's name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ristretto_cli.caffe_io.messages import Message, new
from ristretto_cli.formats.fork_fields import formats_of
from ristretto_cli.formats.number_format import LayerFormats
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import AnyArray, Array, Ops, Shape, V
from ristretto_cli.registry import Registry


@dataclass(frozen=True, eq=False)
class ChannelAffine:
    """x * scale + shift with one scale and one shift for each channel.

    scale, shift: float64 (C,). axis: the axis of the channels, from 0; None if one pair of numbers, (1,), is for all.
    """

    axis: int | None
    scale: AnyArray
    shift: AnyArray


@dataclass(frozen=True)
class LabelledClasses:
    """The number of classes, and a label that does not count, if there is one."""

    count: int
    ignored: int | None = None


def labelled_classes(count: int, param: Message) -> LabelledClasses:
    """The classes of a layer whose param message may have an ignore_label."""
    return LabelledClasses(count, param.ignore_label if param.HasField("ignore_label") else None)


LAYERS: Registry[LayerType] = Registry("layer type", __package__ or "", "ristretto.layers")


class LayerType(ABC):
    """One Caffe layer type; instances hold no state.

    A subclass declares its numbers of bottoms and tops, its parameters, and, once for all
    backends, its computation. Shapes come from running `forward` on a backend that knows only shapes, so
    bad settings and bad shapes are rejected, with LayerError, only in `params` and `forward`.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)  # minimum and maximum; None: any number
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    tops_match_bottoms: ClassVar[bool] = False  # as many tops as bottoms
    in_place: ClassVar[bool] = False  # a top may have the bottom's name
    is_loss: ClassVar[bool] = False  # the first top has loss weight 1 unless the net sets another
    without_gradient: ClassVar[tuple[int, ...]] = ()  # bottoms without a gradient: labels, indices; -1: the last
    needs_one_format: ClassVar[bool] = False  # hardware needs all bottoms in one number format
    quantized: ClassVar[bool] = False  # the interpreter quantizes bottoms, parameters and tops by quantization_param

    trimmed_tops: ClassVar[int | None] = None  # how many of the tops a quantized type quantizes; None: all

    family: ClassVar[str] = ""  # family in the summary, "CONV" or "FC"; empty: never quantized
    quantized_type: ClassVar[str] = ""  # the quantized counterpart of this type

    def formats(self, message: Message) -> LayerFormats:
        """The number formats of a layer of a quantized type. LayerError for settings that no format allows."""
        return formats_of(message.quantization_param)

    def shares_memory(self, layer: Layer) -> bool:
        """Whether the tops are the bottom's memory under another name, as Split's and Reshape's are in Caffe."""
        return False

    def is_constant_below_zero(self, layer: Layer) -> bool:
        """Whether the tops are the same for all values of the bottom up to zero, as with ReLU."""
        return False

    def keeps_elements(self, layer: Layer) -> bool:
        """Whether each element of the top is one of the bottom or 0, and the largest of those that it is chosen from.

        Elements of the bottom may then be quantized before or after the layer.
        """
        return False

    def keeps_factors(self, layer: Layer) -> bool:
        """Whether positive factors of the channels, axis 1 of all bottoms and tops, pass through it unchanged."""
        return False

    def keeps_format(self, layer: Layer) -> bool:
        """Whether hardware computes the tops in the number format of the bottoms, which then need to have one."""
        return self.keeps_elements(layer) or self.shares_memory(layer)

    def labelled_classes(self, layer: Layer) -> LabelledClasses | None:
        """The classes that bottom 1 numbers; None if it has no labels of classes."""
        return None

    def fill_in_defaults(self, message: Message, bottoms: Sequence[Shape]) -> None:
        """Set defaults that the type implies, in a copy of the message, before quantized_type replaces the type."""

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        """The parameters, in the order of weight files. bottoms: their shapes."""
        return ()

    def channel_affine(self, layer: Layer, params: Sequence[Array]) -> ChannelAffine | None:
        """The function of the only bottom that the layer computes in its phase, if its type is of this kind.

        LayerError with the reason if this layer is not of the kind, unlike others of its type.
        """
        return None

    def filter_axis(self, message: Message) -> int | None:
        """The axis of the weights, parameter 0, with one index for each channel of the top; None if there is none."""
        return 0

    @abstractmethod
    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        """The tops. During shape inference layer.tops has no shapes yet, but the right length."""

    def statistics(self, message: Message) -> Collection[int]:
        """The indices of parameters that are not trained by gradients, regardless of their lr_mult."""
        return ()

    def stale_fraction(self, layer: Layer, params: Sequence[Array], passes: int) -> float:
        """The fraction of the current statistics that remains after this many passes in TRAIN, from 0 to 1."""
        return 0.0

    def states(self, layer: Layer) -> tuple[Shape, ...]:
        """The shapes of the state that the layer keeps between passes; it is initially zero."""
        return ()

    def forward_from(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V], states: Sequence[V]
    ) -> tuple[Sequence[V], Sequence[V]]:
        """The tops and the new states; `forward` gives the same tops where all states are zeros."""
        return self.forward(ops, layer, bottoms, params), ()

    def forward_and_updates(
        self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]
    ) -> tuple[Sequence[V], Mapping[int, V]]:
        """The tops, and by index the parameters that the pass itself updates (BatchNorm's statistics)."""
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
