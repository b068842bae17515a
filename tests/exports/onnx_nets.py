"""Small trimmed nets for ONNX exports of integer programs: what the formats hold, in all combinations that matter."""

from __future__ import annotations

from typing import Any

import numpy as np

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.scoring.user_data import UserData

DATA = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 5 dim: 4 dim: 7 dim: 6 } } }\n'
FORMATS = {"bw_layer_in": 8, "fl_layer_in": 5, "bw_layer_out": 8, "fl_layer_out": 3, "bw_params": 6, "fl_params": 5}


def trimmed(kind: str, name: str, bottom: str, settings: str, **formats: Any) -> str:
    param = "inner_product_param" if kind == "Fc" else "convolution_param"
    quantization = " ".join(f"{key}: {value}" for key, value in {**FORMATS, **formats}.items())
    return f"""
        layer {{ name: "{name}" type: "{kind}Ristretto" bottom: "{bottom}" top: "{name}"
            {param} {{ {settings} weight_filler {{ type: "uniform" min: -0.9 max: 0.9 }}
                bias_filler {{ type: "uniform" min: -2 max: 2 }} }}
            quantization_param {{ {quantization} }} }}
    """


def conv(name: str, bottom: str, settings: str = "num_output: 4 kernel_size: 3 pad: 1", **formats: Any) -> str:
    return trimmed("Convolution", name, bottom, settings, **formats)


def fc(name: str, bottom: str, **formats: Any) -> str:
    return trimmed("Fc", name, bottom, "num_output: 3", **formats)


def layer(kind: str, name: str, *bottoms: str, top: str = "", settings: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "{kind}" {read} top: "{top or name}" {settings} }}\n'


def pool(name: str, bottom: str, settings: str) -> str:
    return layer("Pooling", name, bottom, settings=f"pooling_param {{ {settings} }}")


NETS = {
    "convolutions": DATA
    + conv("a", "x", "num_output: 6 kernel_size: 3 stride: 2 pad: 2 dilation: 2 group: 2")
    + layer("ReLU", "r", "a", top="a")
    + conv("b", "a", "num_output: 5 kernel_h: 2 kernel_w: 1 bias_term: false", bw_params=8, fl_params=6)
    + fc("c", "b", fl_layer_out=1),
    "four bits": DATA
    + conv("a", "x", bw_params=4, fl_params=3)
    + pool("p", "a", "pool: MAX kernel_size: 3 stride: 2")
    + conv("b", "p", bw_params=2, fl_params=1, fl_layer_in=3)
    + layer("Flatten", "f", "b")
    + fc("c", "f", bw_params=3, fl_params=2, fl_layer_in=3),
    "neighbours": DATA
    + conv("a", "x", fl_layer_out=5)
    + conv("b", "a", bw_layer_in=6, fl_layer_in=2, bw_layer_out=5)
    + conv("c", "b", fl_layer_in=1, bw_layer_out=16, fl_layer_out=9)
    + fc("d", "c", bw_layer_in=4, fl_layer_in=0),
    "unsigned": DATA
    + conv("a", "x", unsigned_layer_out="true", fl_layer_out=4)
    + layer("ReLU", "r", "a", top="a")
    + pool("p", "a", "pool: MAX kernel_size: 2 stride: 2")
    + conv("b", "p", unsigned_layer_in="true", bw_layer_in=7, fl_layer_in=3)
    + layer("ReLU", "s", "b", top="b")
    + conv("c", "b", unsigned_layer_in="true", fl_layer_in=3),
    "means": DATA
    + conv("a", "x", fl_layer_out=5)
    + pool("p", "a", "pool: AVE kernel_size: 3 stride: 2 pad: 1")
    + conv("b", "p", fl_layer_in=1)
    + pool("q", "b", "pool: AVE kernel_size: 2")
    + conv("c", "q", fl_layer_in=2)
    + pool("g", "c", "pool: AVE global_pooling: true")
    + fc("d", "g", fl_layer_in=2),
    "sums": DATA
    + conv("a", "x")
    + conv("b", "x", fl_layer_in=5, fl_layer_out=4)
    + layer("Eltwise", "s", "a", "b", settings="eltwise_param { coeff: -1 coeff: 0.5 }")
    + conv("c", "s", fl_layer_in=2)
    + layer("Eltwise", "m", "a", "c", settings="eltwise_param { operation: MAX }")
    + layer("Eltwise", "t", "m", "c", settings="eltwise_param { operation: PROD }")
    + layer("Concat", "k", "t", "b")
    + layer("ReLU6", "r", "k", top="k")
    + conv("d", "k", fl_layer_in=3),
    "tables": DATA
    + conv("a", "x")
    + layer("BatchNorm", "n", "a", top="a")
    + layer("Scale", "l", "a", top="a", settings="scale_param { bias_term: true }")
    + conv("b", "a", fl_layer_in=4)
    + layer("PReLU", "o", "b", top="b")
    + fc("c", "b", fl_layer_in=4),
    "positions": DATA
    + conv("a", "x")
    + layer("Permute", "p", "a", settings="permute_param { order: 0 order: 2 order: 1 order: 3 }")
    + layer("Reshape", "r", "p", settings="reshape_param { shape { dim: 0 dim: 4 dim: 6 dim: 7 } }")
    + trimmed("Deconvolution", "b", "r", "num_output: 2 kernel_size: 3 stride: 2 pad: 1 group: 2", fl_layer_in=3)
    + pool("q", "b", "pool: MAX kernel_size: 3 stride: 2 pad: 1")
    + fc("c", "q", fl_layer_in=3),
    "in place": DATA + conv("a", "x", fl_layer_in=4) + conv("b", "x", bw_layer_in=6, fl_layer_in=3) + conv("c", "x"),
    "fine biases": DATA
    + conv("a", "x", fl_layer_in=-1, fl_params=6, bw_layer_in=4)
    + fc("b", "a", fl_layer_in=-1, fl_layer_out=0),
}


def export(workshop: Any, name: str, text: str, **settings: Any) -> str:
    """Write a net, with numbers of its own, in a format; the lines about it."""
    net = workshop.load(text)
    rng = np.random.default_rng(3)
    arrays: dict[str, list[Any]] = {}
    for key, array in net.weights.items():
        arrays.setdefault(key.rpartition("/")[0], []).append(array)
    if "n" in arrays:
        arrays["n"] = [rng.uniform(-1, 1, 4), rng.uniform(0.5, 2, 4), np.array([1.0])]
        arrays["l"] = [rng.uniform(0.5, 2, 4), rng.uniform(-1, 1, 4)]
    numbers = {blob.name: rng.uniform(-4, 4, (10, *blob.shape[1:])).astype(np.float32) for blob in net.inputs}
    given = {"data": UserData(None, numbers)} if settings.get("check") or settings.get("vectors") else {}
    request = ExportRequest("net.prototxt", workshop.weights(arrays), "net.onnx", TEST, **{**given, **settings})
    line: str = EXPORTS.get(name).write(request)
    return line
