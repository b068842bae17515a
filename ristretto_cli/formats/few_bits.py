"""The common parts of schemes that train nets with few bits: scales, and what their modes have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

from ristretto_cli.caffe_io.messages import Message, enum_name, enum_value
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.formats.number_format import (
    LOSSLESS_BITS,
    ModeOption,
    NumberFormat,
    Ranges,
    Role,
    Rounding,
    SearchGroup,
    TrimmingMode,
    rounding_of,
)
from ristretto_cli.ops import Ops, Shape, V

_FAMILIES = frozenset({"CONV", "FC"})
_AUTO = "auto"

PARAMS_GROUP = SearchGroup("params", ("Few-bit weights:",), "weights", _FAMILIES, frozenset({Role.PARAMS}))
LAYER_GROUP = SearchGroup(
    "layer", ("Few-bit layer", "activations:"), "layer activations", _FAMILIES, frozenset({Role.LAYER_IN})
)
SCALE_PER = ModeOption(
    "scale_per",
    "What has a scale of its own: each filter, or the weights of each layer. auto: filter with xnor, else layer.",
    choices=(_AUTO, "layer", "filter"),
    default=_AUTO,
)


class ScalePer(Enum):
    """The part of a layer's weights that has a scale of its own; the names are those of the prototxt."""

    LAYER = "layer"
    FILTER = "filter"


@dataclass(frozen=True)
class ScaledWeights(NumberFormat):
    """Weights with a scale that is computed from the weights themselves.

    filters_on: the axis with one index for each filter.
    """

    elementwise = False
    scale_per: ScalePer
    filters_on: int = 0

    @property
    def largest(self) -> float:
        return math.inf  # the scale follows the weights

    @property
    def needs_filters(self) -> bool:
        """Whether the numbers depend on the axis of the filters."""
        return self.scale_per is ScalePer.FILTER

    def with_filters_on(self, axis: int | None) -> NumberFormat:
        if axis is not None:
            return replace(self, filters_on=axis)
        if self.needs_filters:
            raise LayerError(
                "with groups, no axis of these weights is that of the filters", hint="Use scale_per: LAYER."
            )
        return self

    def scales(self, shape: Shape) -> int:
        return 1 if self.scale_per is ScalePer.LAYER else shape[self.filters_on]

    def scaled_axes(self, shape: Shape) -> list[int]:
        """The axes of the elements that have a scale in common."""
        per_filter = self.scale_per is ScalePer.FILTER
        return [axis for axis in range(len(shape)) if not (per_filter and axis == self.filters_on)]


def signed(ops: Ops[V], x: V, magnitude: V) -> V:
    """The magnitude with the sign of x; zero counts as positive."""
    return ops.where(ops.greater_equal(x, ops.constant(0.0)), magnitude, ops.sub(ops.constant(0.0), magnitude))


class FewBitMode(TrimmingMode):
    """A scheme for training with weights of few bits. The net is trained after `quantize`: no width is searched.

    weight_bits, input_bits: the possible widths, besides LOSSLESS_BITS.
    """

    per_layer = True
    groups: ClassVar[tuple[SearchGroup, ...]] = (PARAMS_GROUP, LAYER_GROUP)
    weight_bits: ClassVar[Sequence[int]]
    input_bits: ClassVar[Sequence[int]] = ()
    default_scale: ClassVar[ScalePer]

    def widths(self, offered: Sequence[int], ranges: Sequence[Ranges]) -> list[int]:
        possible = {*self.weight_bits, *self.input_bits, LOSSLESS_BITS}
        return sorted(possible.intersection(offered), reverse=True)

    def write(
        self,
        quantization: Message,
        widths: Mapping[Role, int],
        ranges: Ranges,
        *,
        everywhere: Sequence[Ranges],
        legacy: bool,
    ) -> None:
        if legacy:
            raise RistrettoError(f"the original has no precision {self.precision}", hint="Omit --legacy.")
        for role in (Role.PARAMS, Role.LAYER_IN):
            if role in widths:
                setattr(quantization, f"bw_{role.value}", widths[role])
        scale_per = self.option("scale_per")
        if scale_per != _AUTO:
            quantization.scale_per = enum_value("QuantizationParameter.ScalePer", ScalePer(scale_per).name)
        self.layer_formats(quantization)  # rejects widths that only the other role can have

    def check(self, quantization: Message) -> None:
        """LayerError for settings that the scheme does not have."""
        known = {"precision", "rounding_scheme", "bw_params", *self.own_fields}
        known.update({"bw_layer_in"} if self.input_bits else ())
        for field, _ in quantization.ListFields():
            if field.name not in known and not field.name.startswith("trim_"):
                raise LayerError(
                    f"{field.name} has no meaning with precision {self.precision}", hint=f"Remove {field.name}."
                )
        if rounding_of(quantization) is not Rounding.NEAREST:
            raise LayerError(
                f"precision {self.precision} does not round weights stochastically", hint="Remove rounding_scheme."
            )
        if quantization.trim_params and not quantization.HasField("bw_params"):
            raise LayerError("bw_params is missing", hint=f"Use {_listed(self.weight_bits)}.")
        for name, possible in (("bw_params", self.weight_bits), ("bw_layer_in", self.input_bits)):
            bits = getattr(quantization, name)
            if bits != LOSSLESS_BITS and bits not in possible:
                raise LayerError(
                    f"{name} {bits} is not possible with precision {self.precision}", hint=f"Use {_listed(possible)}."
                )

    def scale_of(self, quantization: Message) -> ScalePer:
        """What has a scale of its own."""
        if not quantization.HasField("scale_per"):
            return self.default_scale
        return ScalePer[enum_name(quantization, "scale_per")]


def _listed(possible: Sequence[int]) -> str:
    bits = [*possible, LOSSLESS_BITS] if len(possible) < 3 else [f"{possible[0]} to {possible[-1]}", LOSSLESS_BITS]
    return f"{' or '.join(map(str, bits))}, which leaves the values as they are" if len(bits) > 1 else f"{bits[0]}"
