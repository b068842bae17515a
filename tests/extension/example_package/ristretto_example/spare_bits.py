"""Dynamic fixed point whose activations keep integer bits in reserve, for data beyond the measured ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.fixed import DynamicFixedPoint
from ristretto_cli.formats.number_format import ModeOption, Ranges, Role, trimming_mode


@trimming_mode("spare_bits")
class SpareBits(DynamicFixedPoint):
    """Dynamic fixed point with spare integer bits for activations."""

    # The precision and `layer_formats` are inherited: the fields are those of dynamic fixed point, which any ristretto
    # reads.
    combined_title = "Dynamic fixed point net, spare bits:"
    options = (
        *DynamicFixedPoint.options,
        ModeOption("spare", "Integer bits in reserve.", choices=("1", "2", "3"), default="1", in_legacy=False),
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
            raise RistrettoError("the original has no mode spare_bits", hint="Leave out --legacy.")
        super().write(quantization, widths, ranges, everywhere=everywhere, legacy=legacy)
        if Role.LAYER_IN in widths:
            quantization.fl_layer_in -= int(self.option("spare"))
        if Role.LAYER_OUT in widths:
            quantization.fl_layer_out -= int(self.option("spare"))
