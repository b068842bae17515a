"""Deploy nets: prototxts of what a net computes, without data, labels and losses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.net_files import load_net

FIXED = (
    "quantization_param { bw_layer_in: 8 fl_layer_in: 6 bw_layer_out: 8 fl_layer_out: 5 bw_params: 4 fl_params: 3 %s }"
)
NET = """
    name: "small"
    layer { name: "train" type: "Data" top: "data" top: "label" include { phase: TRAIN }
            data_param { source: "db" backend: LMDB batch_size: 2 } }
    layer { name: "test" type: "Data" top: "data" top: "label" include { phase: TEST }
            transform_param { scale: 0.0078125 mean_value: 100 mean_value: 20 }
            data_param { source: "db" backend: LMDB batch_size: 4 } }
    layer { name: "split" type: "Split" bottom: "data" top: "first" top: "second" }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "first" top: "conv" loss_weight: 0
            convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } %s }
    layer { name: "other" type: "ConvolutionRistretto" bottom: "second" top: "other" exclude { stage: "none" }
            convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } %s }
    layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "other" top: "sum" }
    layer { name: "relu" type: "ReLU" bottom: "sum" top: "sum" }
    layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" include { phase: TRAIN } }
    layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "aux" type: "InnerProduct" bottom: "conv" top: "aux"
            inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
    layer { name: "quiet" type: "Silence" bottom: "aux" }
    layer { name: "labels" type: "Reshape" bottom: "label" top: "flat" reshape_param { shape { dim: -1 } } }
    layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "flat" top: "accuracy" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
TRIMMED = NET % (FIXED % "", FIXED % "bw_bias: 12 fl_bias: 9")
FLOAT = (NET % ("", "")).replace("ConvolutionRistretto", "Convolution")


def write(workshop: Any, text: str, **settings: Any) -> str:
    workshop.database("db", np.random.default_rng(0).integers(0, 256, (9, 2, 6, 5), np.uint8))
    net = workshop.load(text)
    arrays: dict[str, list[Any]] = {}
    for key, array in net.weights.items():
        arrays.setdefault(key.rpartition("/")[0], []).append(array)
    weights = settings.pop("weights", None) or workshop.weights(arrays)
    request = ExportRequest("net.prototxt", weights, "deploy.prototxt", TEST, **settings)
    line: str = EXPORTS.get("deploy").write(request)
    return line


def written() -> list[tuple[str, str]]:
    return [(layer.name, layer.type) for layer in read_net("deploy.prototxt").message.layer]


@pytest.mark.parametrize("text", [TRIMMED, FLOAT], ids=["trimmed", "float"])
def test_the_written_net_computes_the_class_scores(workshop: Any, text: str) -> None:
    line = write(workshop, text, check=7)
    assert line.endswith("checked: 7 images, 35 values of ip: 0 differ")
    (shape,) = read_net("deploy.prototxt").message.layer[0].input_param.shape
    feeds = {"data": np.random.default_rng(0).uniform(-1, 1, tuple(shape.dim)).astype(np.float32)}
    rng = np.random.default_rng(0)
    net = load_net("deploy.prototxt", "net.caffemodel", NetState(), rng=rng)
    found = OnePass(net, rng=rng).run(feeds)
    exponentials = np.exp(found["ip"].astype(np.float64))
    np.testing.assert_allclose(found["prob"], exponentials / exponentials.sum(1, keepdims=True), rtol=1e-5)


def test_only_what_the_scores_need_is_left(workshop: Any) -> None:
    assert write(workshop, TRIMMED).startswith("deploy.prototxt: 7 layers, inputs data 4x2x")
    assert written() == [
        ("test", "Input"),
        ("conv", "ConvolutionRistretto"),
        ("other", "ConvolutionRistretto"),
        ("sum", "Eltwise"),
        ("relu", "ReLU"),
        ("ip", "InnerProduct"),
        ("prob", "Softmax"),
    ]
    layers = read_net("deploy.prototxt").message.layer
    assert [list(layer.bottom) for layer in layers[:3]] == [[], ["data"], ["data"]]
    assert list(layers[0].top) == ["data"]
    assert not any(layer.include or layer.exclude or layer.loss_weight for layer in layers)


def test_the_header_names_what_the_net_was_made_of(workshop: Any) -> None:
    write(workshop, TRIMMED)
    header = [line for line in Path("deploy.prototxt").read_text(encoding="utf-8").splitlines() if line[0] == "#"]
    assert header[0].endswith(", of net.prototxt.")
    assert header[1] == "# Weights: net.caffemodel"
    assert "fl_bias" in header[2]
    assert "transform_param { scale: 0.0078125 mean_value: 100 mean_value: 20 }" in header[3]


def test_shapes_are_the_users(workshop: Any) -> None:
    assert "inputs data 1x2x" in write(workshop, FLOAT, batch=1)
    given = write(workshop, FLOAT, input_shapes={"data": (3, 2, 6, 5)})
    assert "inputs data 3x2x6x5" in given
    with pytest.raises(RistrettoError, match="--batch=0: an Input layer has a fixed shape"):
        write(workshop, FLOAT, batch=0)
    with pytest.raises(RistrettoError, match=r'"dat" is not an input of the net\. Did you mean data\?'):
        write(workshop, FLOAT, input_shapes={"dat": (3, 2, 6, 5)})


def test_quantized_layers_of_other_branches_stay_if_they_change_what_is_read(workshop: Any) -> None:
    # "aux" quantizes "conv" in place before "sum" reads it.
    aux = (
        'layer { name: "aux" type: "FcRistretto" bottom: "conv" top: "aux" inner_product_param { num_output: 2 } %s }\n'
    )
    lines = TRIMMED.replace('name: "sum" type', 'name: "later" type').splitlines()
    at = next(i for i, line in enumerate(lines) if '"later"' in line)
    text = "\n".join([*lines[:at], aux % (FIXED % "").replace("fl_layer_in: 6", "fl_layer_in: 1"), *lines[at:]])
    start = text.index('    layer { name: "aux" type: "InnerProduct"')
    text = text[:start] + text[text.index('    layer { name: "quiet"') :]
    assert "0 differ" in write(workshop, text, check=8)
    assert ("aux", "FcRistretto") in written()


def test_a_softmax_of_the_net_is_used_and_names_are_not_taken_twice(workshop: Any) -> None:
    softmax = 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "scores" }'
    assert write(workshop, FLOAT + softmax).endswith("outputs scores")
    renamed = FLOAT.replace('"relu"', '"prob"')
    assert write(workshop, renamed).endswith("outputs prob_2")


def test_a_net_without_losses_keeps_its_outputs(workshop: Any) -> None:
    deploy = "\n".join(line for line in FLOAT.splitlines() if not re.search('"(loss|accuracy|labels)"', line))
    assert write(workshop, deploy).endswith("outputs ip")
    with pytest.raises(RistrettoError, match="the net has no outputs besides its data"):
        write(workshop, "\n".join(FLOAT.splitlines()[:7]), weights=workshop.weights({"other": [[1]]}))
