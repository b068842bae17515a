"""PReLURistretto."""

from __future__ import annotations

from dataclasses import replace

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.formats.fork_fields import has_top_fields
from ristretto_cli.formats.number_format import LayerFormats
from ristretto_cli.layers.layer_type import layer_type
from ristretto_cli.layers.prelu import PReLU
from ristretto_cli.layers.trimmed import Trimmed


@layer_type("PReLURistretto")
class PReLURistretto(Trimmed, PReLU):
    """A PReLU whose bottom, slopes and top are quantized according to quantization_param."""

    def formats(self, message: Message) -> LayerFormats:
        formats = super().formats(message)
        return replace(formats, weights=None) if has_top_fields(message.quantization_param) else formats
