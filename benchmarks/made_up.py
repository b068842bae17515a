"""Nets of well-known shapes that no file has: their prototxt is generated, and they are smaller than the originals.

Each net is a function that returns its prototxt; it reads records of 3 channels from databases. Its fillers give
weights and biases the scale of trained ones; `statistics` gives BatchNorm its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.caffe_io.messages import message_class
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array
from ristretto_cli.scoring.engine import record

_WEIGHTS = 'weight_filler { type: "msra" }'
_BIASES = 'bias_filler { type: "gaussian" std: 0.05 }'
_CLASSES = 100


class _Text:
    """A prototxt that grows layer by layer. Methods that add a layer return the blob it writes."""

    def __init__(self, name: str, crop: int) -> None:
        self._layers = [f'name: "{name}"']
        for phase in ("TRAIN", "TEST"):
            transform = f"crop_size: {crop} mean_value: 104 mean_value: 117 mean_value: 123"
            self._layers.append(
                f'layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}\n'
                f"  transform_param {{ {transform} scale: 0.017 }}\n"
                f'  data_param {{ source: "{phase.lower()}_lmdb" backend: LMDB batch_size: 10 }} }}'
            )

    def layer(self, kind: str, name: str, bottoms: Sequence[str], settings: str = "", *, in_place: bool = False) -> str:
        top = bottoms[0] if in_place else name
        read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self._layers.append(f'layer {{ name: "{name}" type: "{kind}" {read} top: "{top}" {settings} }}')
        return top

    def conv(self, name: str, x: str, maps: int, kernel: int, settings: str = "", *, bias: bool = True) -> str:
        """A convolution that keeps the extents where its stride is 1."""
        has_bias = _BIASES if bias else "bias_term: false"
        size = f"num_output: {maps} kernel_size: {kernel} pad: {kernel // 2}"
        return self.layer("Convolution", name, [x], f"convolution_param {{ {size} {settings} {_WEIGHTS} {has_bias} }}")

    def relu(self, x: str, name: str = "") -> str:
        return self.layer("ReLU", name or f"{x}/relu", [x], in_place=True)

    def normalized(self, x: str, name: str = "", *, in_place: bool = True) -> str:
        """BatchNorm and Scale."""
        x = self.layer("BatchNorm", f"{name or x}/bn", [x], in_place=in_place)
        filler = 'filler { type: "uniform" min: 0.5 max: 1.5 }'
        bias = 'bias_term: true bias_filler { type: "gaussian" std: 0.2 }'
        return self.layer("Scale", f"{name or x}/scale", [x], f"scale_param {{ {filler} {bias} }}", in_place=True)

    def prelu(self, x: str, settings: str = "") -> str:
        slopes = f'prelu_param {{ {settings} filler {{ type: "uniform" min: 0.05 max: 0.4 }} }}'
        return self.layer("PReLU", f"{x}/prelu", [x], slopes, in_place=True)

    def pool(self, name: str, x: str, settings: str) -> str:
        return self.layer("Pooling", name, [x], f"pooling_param {{ {settings} }}")

    def lrn(self, name: str, x: str) -> str:
        return self.layer("LRN", name, [x], "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def linear(self, name: str, x: str, outputs: int) -> str:
        settings = f"inner_product_param {{ num_output: {outputs} {_WEIGHTS} {_BIASES} }}"
        return self.layer("InnerProduct", name, [x], settings)

    def ending(self, scores: str) -> str:
        """The whole text, with what judges these scores."""
        self.layer("Accuracy", "accuracy", [scores, "label"], "include { phase: TEST }")
        self.layer("SoftmaxWithLoss", "loss", [scores, "label"])
        return "\n".join(self._layers) + "\n"


def googlenet() -> str:
    """GoogLeNet's: LRN, poolings that round up, inception modules joined by Concat, Dropout; 112x112."""
    net = _Text("GoogLeNet-shaped", 112)
    x = net.relu(net.conv("conv1", "data", 64, 7, "stride: 2"))
    x = net.lrn("norm1", net.pool("pool1", x, "pool: MAX kernel_size: 3 stride: 2"))
    x = net.relu(net.conv("conv2/reduce", x, 64, 1))
    x = net.relu(net.conv("conv2", x, 192, 3))
    x = net.pool("pool2", net.lrn("norm2", x), "pool: MAX kernel_size: 3 stride: 2")
    widths = {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64),
        "4e": (128, 80, 160, 32, 64, 64),
        "5a": (160, 80, 160, 16, 64, 64),
    }
    for name, width in widths.items():
        if name in ("4a", "5a"):
            x = net.pool(f"pool/{name}", x, "pool: MAX kernel_size: 3 stride: 2")
        x = _inception(net, f"inception_{name}", x, width)
    x = net.pool("pool5", x, "pool: AVE kernel_size: 3 stride: 1")
    x = net.layer("Dropout", "drop", [x], "dropout_param { dropout_ratio: 0.4 }", in_place=True)
    return net.ending(net.linear("classifier", x, _CLASSES))


def _inception(net: _Text, name: str, x: str, widths: tuple[int, int, int, int, int, int]) -> str:
    ones, reduce_3, threes, reduce_5, fives, pooled = widths
    one = net.relu(net.conv(f"{name}/1x1", x, ones, 1))
    three = net.relu(net.conv(f"{name}/3x3_reduce", x, reduce_3, 1))
    three = net.relu(net.conv(f"{name}/3x3", three, threes, 3))
    five = net.relu(net.conv(f"{name}/5x5_reduce", x, reduce_5, 1))
    five = net.relu(net.conv(f"{name}/5x5", five, fives, 5))
    pool = net.pool(f"{name}/pool", x, "pool: MAX kernel_size: 3 stride: 1 pad: 1")
    pool = net.relu(net.conv(f"{name}/pool_proj", pool, pooled, 1))
    return net.layer("Concat", f"{name}/output", [one, three, five, pool])


def mobilenet() -> str:
    """MobileNet's: depthwise convolutions as groups, BatchNorm, Scale and ReLU in place; half the maps, 112x112."""
    net = _Text("MobileNet-shaped", 112)
    x = net.relu(net.normalized(net.conv("conv1", "data", 16, 3, "stride: 2", bias=False)))
    maps = 16
    for number, (width, stride) in enumerate(
        [(32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1), (512, 2), (512, 1)], start=2
    ):
        settings = f"group: {maps} stride: {stride}"
        x = net.relu(net.normalized(net.conv(f"conv{number}/dw", x, maps, 3, settings, bias=False)))
        x = net.relu(net.normalized(net.conv(f"conv{number}/sep", x, width, 1, bias=False)))
        maps = width
    x = net.pool("pool", x, "pool: AVE global_pooling: true")
    return net.ending(net.layer("Flatten", "flat", [net.conv("fc", x, _CLASSES, 1)]))


def densenet() -> str:
    """DenseNet's: BatchNorm first, and what every layer of a block makes joined by Concat; 32x32."""
    net = _Text("DenseNet-shaped", 32)
    x, maps, growth = net.conv("conv1", "data", 24, 3, bias=False), 24, 12
    for block in range(1, 4):
        for number in range(1, 6):
            name = f"block{block}/{number}"
            made = net.relu(net.normalized(x, name, in_place=False), f"{name}/relu")
            if block > 1:
                made = net.conv(f"{name}/1x1", made, 4 * growth, 1, bias=False)
                made = net.relu(net.normalized(made))
            made = net.conv(f"{name}/3x3", made, growth, 3, bias=False)
            x = net.layer("Concat", f"{name}/concat", [x, made])
            maps += growth
        name = f"transition{block}"
        x = net.relu(net.normalized(x, name, in_place=False), f"{name}/relu")
        if block < 3:
            maps //= 2
            x = net.pool(f"{name}/pool", net.conv(name, x, maps, 1, bias=False), "pool: AVE kernel_size: 2 stride: 2")
    x = net.pool("pool", x, "pool: AVE global_pooling: true")
    return net.ending(net.linear("fc", x, _CLASSES))


def prelu_resnet() -> str:
    """A residual net with PReLU, convolutions in groups, and several kinds of Eltwise, such as nets for faces are;
    56x56."""
    net = _Text("residual, with PReLU", 56)
    x = net.prelu(net.conv("conv1", "data", 32, 3))
    maps = 32
    for stage, (width, group) in enumerate([(32, 4), (64, 8), (128, 2)], start=1):
        for block in range(1, 3):
            name = f"res{stage}_{block}"
            stride = 2 if block == 1 else 1
            made = net.prelu(net.normalized(net.conv(f"{name}/1x1", x, width, 1, bias=False)))
            made = net.conv(f"{name}/3x3", made, width, 3, f"group: {group} stride: {stride}")
            made = net.normalized(net.prelu(made, "channel_shared: true"))
            if stride == 2 or width != maps:
                x = net.normalized(net.conv(f"{name}/shortcut", x, width, 1, f"stride: {stride}", bias=False))
            coefficients = "coeff: 1 coeff: 0.5" if block == 2 else ""
            x = net.layer("Eltwise", name, [x, made], f"eltwise_param {{ operation: SUM {coefficients} }}")
            x = net.prelu(x)
            maps = width
    halves = [net.conv(f"half{number}", x, 96, 1) for number in (1, 2)]
    x = net.layer("Eltwise", "larger", halves, "eltwise_param { operation: MAX }")
    x = net.layer("Eltwise", "gated", [x, net.relu(net.conv("gate", x, 96, 1))], "eltwise_param { operation: PROD }")
    x = net.prelu(net.linear("fc1", x, 128))
    x = net.layer("Dropout", "drop", [x], in_place=True)
    return net.ending(net.linear("fc2", x, _CLASSES))


def statistics(net: Net, batch: Mapping[str, Array]) -> dict[str, Any]:
    """The parameters of a net's BatchNorms, by Param.key, that fit a batch of its inputs: each one's own mean and
    variance, with all in front of it normalized so already. Empty for a net without BatchNorm."""
    layers = []
    for layer in net.layers:
        if layer.type == "BatchNorm":
            message = message_class("LayerParameter")()
            message.CopyFrom(layer.message)
            message.batch_norm_param.use_global_stats = False
            layer = replace(layer, message=message)
        layers.append(layer)
    ops, run = record(replace(net, layers=tuple(layers)), rng=np.random.default_rng(0))
    return dict(Session(ops.graph, run.updates).run(batch)) if run.updates else {}
