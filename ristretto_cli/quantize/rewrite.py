"""Rewriting a net: bit widths become quantization_param in a copy of its message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ristretto_cli.caffe_io.messages import message_class
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.formats.number_format import Role, TrimmingMode, set_precision
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.quantize.trimmable import Trimmable

Widths = Mapping[str, Mapping[Role, int]]  # layer name to role to bits


def apply_bit_widths(
    net_file: NetFile, layers: Sequence[Trimmable], widths: Widths, mode: TrimmingMode, *, legacy: bool
) -> NetFile:
    """The net with the layers in `widths` trimmed to these widths, in every phase.

    A role without a width is not trimmed; with legacy it has the schema's defaults. Biases are trimmed with the
    weights, in a format of their own if Role.BIAS has a width.
    """
    by_name = {each.layer.name: each for each in layers if each.layer.name in widths}
    everywhere = [each.ranges for each in layers]
    message = message_class("NetParameter")()
    message.CopyFrom(net_file.message)
    for layer in message.layer:
        chosen = by_name.get(layer.name)
        if chosen is None or layer.type != chosen.layer.type:
            continue
        layer_type = LAYERS.get(layer.type)
        layer_type.fill_in_defaults(layer, [bottom.shape for bottom in chosen.layer.bottoms])
        layer.type = layer_type.quantized_type
        set_precision(layer.quantization_param, mode)
        for role in Role:
            if role not in widths[layer.name] and role is not Role.BIAS and not legacy:
                setattr(layer.quantization_param, f"trim_{role.value}", False)
        mode.write(
            layer.quantization_param,
            widths[layer.name],
            chosen.ranges,
            everywhere=everywhere,
            legacy=legacy,
        )
    message.ClearField("state")
    return replace(net_file, message=message)
