"""Static fixed point: one Q format for all numbers of a net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.fixed import DynamicFixedPoint, integer_length, unsaturated_integer_length
from ristretto_cli.formats.number_format import (
    UNSATURATED_BITS,
    Ranges,
    Role,
    SearchGroup,
    trimming_mode,
)

_ROLES = frozenset({Role.LAYER_IN, Role.LAYER_OUT, Role.PARAMS})  # biases share the format of weights


@trimming_mode("static_fixed_point")
class StaticFixedPoint(DynamicFixedPoint):
    """One fixed point format for the whole net: weights, biases and activations have the same fractional length."""

    # The precision and `layer_formats` are inherited: the prototxt has the fields of dynamic fixed point.
    per_layer = False
    combined_title = ""
    options = ()
    groups = (
        SearchGroup("net", ("Static fixed point net:",), "static fixed point net", frozenset({"CONV", "FC"}), _ROLES),
    )

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
            raise RistrettoError("the original has no mode static_fixed_point", hint="Omit --legacy.")
        bits = widths[Role.PARAMS]
        frac_bits = bits - integer_bits(bits, everywhere)
        for role in _ROLES:
            setattr(quantization, f"bw_{role.value}", bits)
            setattr(quantization, f"fl_{role.value}", frac_bits)

    def integer_lengths(self, ranges: Ranges) -> Mapping[Role, int]:
        return {}


def integer_bits(bits: int, ranges: Sequence[Ranges]) -> int:
    """The integer bits, including the sign, at which nothing that was measured saturates.

    From UNSATURATED_BITS on, activations have the headroom that they have in dynamic fixed point.

    >>> integer_bits(8, [Ranges(layer_in=1.0, layer_out=5.0, params=0.5, biases=(-2.0,))])
    4
    """
    activations = max((max(layer.layer_in, layer.layer_out) for layer in ranges), default=0.0)
    params = max((max([layer.params, *map(abs, layer.biases)]) for layer in ranges), default=0.0)
    largest = max(activations, params) or 1.0
    unsaturated = integer_length(largest, Role.PARAMS)
    if bits < UNSATURATED_BITS or activations == 0:
        return unsaturated
    return max(unsaturated, unsaturated_integer_length(bits, activations))
