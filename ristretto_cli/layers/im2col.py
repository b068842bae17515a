"""Im2col."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Im2col")
class Im2col(LayerType):
    """The contents of a convolution's windows. x (*batch, C, *S) to (*batch, C * prod(kernel), *S').

    convolution_param gives the channel axis, kernel, stride, pad and dilation.
    """

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        param = new("ConvolutionParameter")
        param.CopyFrom(layer.message.convolution_param)
        for unused in ("num_output", "group"):
            param.ClearField(unused)
        window = FilterSettings.of(param, [x.shape], depthwise=True)
        window.reject_one_sided()
        batch, image = x.shape[: window.axis], x.shape[window.axis :]
        if len(image) < 2:
            raise LayerError(
                f"a bottom of shape {show(x.shape)} has no axes after the channels, axis {window.axis}",
                hint="Set axis to that of the channels.",
            )
        top = ops.unfold(ops.reshape(x, (prod(batch), *image)), window.kernel, window.geometry)
        return [ops.reshape(top, (*batch, *top.shape[1:]))]
