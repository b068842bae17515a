"""Nets as ONNX models: another program gets the same numbers from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.net_files import load_net

LENET = """
    name: "small LeNet"
    layer { name: "i" type: "Input" top: "data" input_param { shape { dim: 3 dim: 1 dim: 8 dim: 8 } } }
    layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" %s
            convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
            pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
    layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1" %s
            inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
    layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
    layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" %s
            inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" include { phase: TEST } }
"""
FLOAT = LENET % ("", "", "")
FIXED = "quantization_param { bw_layer_in: 8 fl_layer_in: 6 bw_layer_out: 8 fl_layer_out: 5 bw_params: 4 fl_params: 3 }"
TRIMMED = (LENET % (FIXED, FIXED, FIXED)).replace('"Convolution"', '"ConvolutionRistretto"')
TRIMMED = TRIMMED.replace('"InnerProduct"', '"FcRistretto"')
MINIFLOAT = TRIMMED.replace(FIXED, "quantization_param { precision: MINIFLOAT mant_bits: 3 exp_bits: 4 }")
POWER_OF_2 = TRIMMED.replace(
    FIXED, FIXED.replace("{", "{ precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1", 1)
)
IMAGES = np.random.default_rng(1).standard_normal((3, 1, 8, 8)).astype(np.float32)


def export(workshop: Any, text: str, **settings: Any) -> onnx.ModelProto:
    """The model that is written for a net with weights of its own."""
    workshop.net(text)
    workshop.weights(weights())
    request = ExportRequest("net.prototxt", "net.caffemodel", "net.onnx", **{"phase": TEST, **settings})
    export.line = EXPORTS.get("onnx").write(request)  # type: ignore[attr-defined]
    return onnx.load("net.onnx")


def weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"conv1": [(4, 1, 3, 3), (4,)], "ip1": [(10, 36), (10,)], "ip2": [(3, 10), (3,)]}
    return {name: [0.8 * rng.standard_normal(shape) for shape in each] for name, each in shapes.items()}


def run(feeds: Any) -> Any:
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def ours(blob: str) -> Any:
    rng = np.random.default_rng(0)
    net = load_net("net.prototxt", "net.caffemodel", NetState(), rng=rng)
    return OnePass(net, rng=rng).run({"data": IMAGES})[blob]


@pytest.mark.parametrize("text", [FLOAT, TRIMMED, MINIFLOAT, POWER_OF_2], ids=["float", "fixed", "mini", "pow2"])
def test_onnxruntime_by_itself_computes_the_result_of_a_pass(workshop: Any, text: str) -> None:
    onnx.checker.check_model(export(workshop, text), full_check=True)
    (prob,) = run({"data": IMAGES})
    assert prob.shape == (3, 3)
    np.testing.assert_allclose(prob, ours("prob"), rtol=1e-6, atol=1e-7)


def test_a_trimmed_net_is_not_exported_as_the_float_one(workshop: Any) -> None:
    results = []
    for text in (FLOAT, TRIMMED):
        export(workshop, text)
        results.append(run({"data": IMAGES})[0])
    assert np.abs(results[0] - results[1]).max() > 0.01


def test_weights_inside_are_trimmed_already(workshop: Any) -> None:
    model = export(workshop, TRIMMED)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    (conv1,) = (array for array in arrays if array.shape == (4, 1, 3, 3))
    # bw_params 4, fl_params 3: eighths, from -8 to 7 of them
    assert np.array_equal(conv1 * 8, np.clip(np.round(weights()["conv1"][0] * 8), -8, 7))


def test_inputs_and_outputs_are_caffes(workshop: Any) -> None:
    model = export(workshop, FLOAT)
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["prob"]
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [3, 1, 8, 8]


def test_what_was_written_is_reported(workshop: Any) -> None:
    model = export(workshop, FLOAT)
    nodes = len(model.graph.node)
    assert export.line == f"net.onnx: {nodes} nodes, inputs data, outputs prob"  # type: ignore[attr-defined]


def test_the_phase_chooses_the_layers(workshop: Any) -> None:
    assert [value.name for value in export(workshop, FLOAT, phase=TRAIN).graph.output] == ["ip2"]


def train_val(workshop: Any) -> str:
    """The net with a data layer and a loss."""
    workshop.database("db", np.zeros((1, 1, 8, 8), np.uint8))
    data = (
        'layer { name: "d" type: "Data" top: "data" top: "label" '
        'data_param { source: "db" backend: LMDB batch_size: 3 } }'
    )
    lines = FLOAT.split("\n")
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }'
    accuracy = 'layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" }'
    return "\n".join([*lines[:2], data, *lines[3:-2], loss, accuracy])


def test_a_net_with_losses_gives_its_class_scores_and_needs_no_labels(workshop: Any) -> None:
    model = export(workshop, train_val(workshop))
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["ip2"]
    np.testing.assert_allclose(run({"data": IMAGES})[0], ours_logits(workshop), rtol=1e-6)


def test_outputs_are_chosen_by_name(workshop: Any) -> None:
    model = export(workshop, train_val(workshop), outputs=("loss", "pool1"))
    assert [value.name for value in model.graph.input] == ["data", "label"]
    assert [value.name for value in model.graph.output] == ["loss", "pool1"]
    loss_value, _ = run({"data": IMAGES, "label": np.array([0, 1, 2], np.float32)})
    logits = ours_logits(workshop)
    expected = np.log(np.exp(logits).sum(1)) - logits[[0, 1, 2], [0, 1, 2]]
    assert float(loss_value) == pytest.approx(expected.mean(), abs=1e-5)


def test_outputs_that_there_are_not_are_refused(workshop: Any) -> None:
    with pytest.raises(RistrettoError, match='the net has no blob "ip3"'):
        export(workshop, train_val(workshop), outputs=("ip3",))
    with pytest.raises(RistrettoError, match='"label" is an input'):
        export(workshop, train_val(workshop), outputs=("label",))


def test_an_input_that_nothing_reads_is_no_output(workshop: Any) -> None:
    deploy = "\n".join(line for line in train_val(workshop).split("\n") if not re.search("loss|accuracy", line))
    model = export(workshop, deploy)
    assert [value.name for value in model.graph.output] == ["ip2"]


def test_labels_are_what_depends_on_no_parameter(workshop: Any) -> None:
    shifted = 'layer { name: "shift" type: "Power" bottom: "label" top: "shifted" }\n    layer { name: "conv1"'
    text = train_val(workshop).replace('bottom: "label"', 'bottom: "shifted"')
    model = export(workshop, text.replace('layer { name: "conv1"', shifted))
    assert [value.name for value in model.graph.output] == ["ip2"]


def test_the_number_of_images_is_the_users(workshop: Any) -> None:
    for text in (FLOAT, TRIMMED, train_val(workshop)):
        for batch, extent in ((5, 5), (0, "N")):
            model = export(workshop, text, batch=batch)
            values = [*model.graph.input, *model.graph.output]
            dims = [value.type.tensor_type.shape.dim[0] for value in values]
            assert [dim.dim_value or dim.dim_param for dim in dims] == [extent, extent]
    images = np.concatenate([IMAGES, IMAGES])
    whole = run({"data": images})[0]
    assert len(whole) == 6
    np.testing.assert_allclose(whole[:3], run({"data": IMAGES})[0], rtol=1e-6)


def test_a_net_that_depends_on_the_number_of_images_is_refused(workshop: Any) -> None:
    with pytest.raises(RistrettoError, match=r"depends on the number of images\. Use --batch=N for one number"):
        export(workshop, train_val(workshop), outputs=("loss",), batch=0)


def test_shapes_of_inputs_are_the_users(workshop: Any) -> None:
    model = export(workshop, train_val(workshop), input_shapes={"data": (2, 1, 8, 8)})
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [2, 1, 8, 8]
    with pytest.raises(RistrettoError, match='"x" is not an input of the net'):
        export(workshop, train_val(workshop), input_shapes={"x": (2, 1, 8, 8)})


def ours_logits(workshop: Any) -> Any:
    workshop.net(FLOAT)
    return ours("ip2")


def test_an_onnx_model_needs_a_net(workshop: Any) -> None:
    workshop.weights(weights())
    with pytest.raises(RistrettoError, match="--model"):
        EXPORTS.get("onnx").write(ExportRequest(None, "net.caffemodel", "net.onnx", TEST))
    assert not Path("net.onnx").exists()


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(RistrettoError) as refused:
        EXPORTS.get("tflite")
    assert str(refused.value) == f'unknown export format "tflite". Known: {", ".join(EXPORTS.names())}.'
    assert {"npz", "onnx"} <= {*EXPORTS.names()}
