"""QONNX models: what their Quant nodes say is what the program computes."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from ristretto_cli.errors import RistrettoError
from ristretto_cli.integers.rounding import ShiftRounding
from tests.exports.onnx_nets import DATA, NETS, conv, export, fc, layer

DOMAIN = "qonnx.custom_op.general"
HAS_QONNX = importlib.util.find_spec("qonnx") is not None


def with_plain_nodes(model: Any) -> Any:
    """The model with QONNX's definition of Quant instead of it: scaled, clamped, rounded, scaled back."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for i, node in enumerate(model.graph.node):
        if node.domain != DOMAIN:
            nodes.append(node)
            continue
        x, scale, zero, bits = node.input
        signed, narrow, mode = (
            helper.get_attribute_value(attribute)
            for attribute in sorted(
                node.attribute, key=lambda each: ["signed", "narrow", "rounding_mode"].index(each.name)
            )
        )
        assert arrays[zero] == 0
        assert narrow == 0
        size = 2 ** int(arrays[bits])
        ends = (-size // 2, size // 2 - 1) if signed else (0, size - 1)
        names = [f"{i} {what}" for what in ("low", "high", "scaled", "clamped", "rounded")]
        for name, end in zip(names, ends, strict=False):
            model.graph.initializer.append(numpy_helper.from_array(np.float32(end), name))
        nodes += [
            helper.make_node("Div", [x, scale], names[2:3]),
            helper.make_node("Clip", [names[2], *names[:2]], names[3:4]),
            helper.make_node({b"ROUND": "Round", b"FLOOR": "Floor"}[mode], names[3:4], names[4:5]),
            helper.make_node("Mul", [names[4], scale], node.output),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def quants(model: Any) -> dict[str, Any]:
    """The attributes and the width of each Quant node, by its output."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            scale, _, bits = (float(arrays[name]) for name in node.input[1:])
            found[node.output[0]] = {**settings, "scale": scale, "bits": int(bits)}
    return found


@pytest.mark.parametrize("rounding", [ShiftRounding.HALF_EVEN, ShiftRounding.FLOOR])
@pytest.mark.parametrize("name", NETS)
def test_quant_nodes_compute_the_integers_of_the_program(workshop: Any, name: str, rounding: ShiftRounding) -> None:
    export(workshop, "qonnx", NETS[name], vectors=10, batch=0, rounding=rounding)
    model = onnx.load("net.onnx")
    manifest = json.loads(model.metadata_props[0].value)
    vectors = np.load("net_vectors.npz")
    compared = [
        each for each in manifest["tensors"].values() if each["tensor"] in vectors.files and each["divisor"] == 1
    ]
    given = manifest["inputs"][0]
    plain = with_plain_nodes(model)
    infos = {value.name: value for value in plain.graph.value_info}
    plain.graph.output.extend(infos[each["tensor"]] for each in compared if each["tensor"] in infos)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tensor = manifest["tensors"][given["place"]]["tensor"]
    numbers = np.ldexp(vectors[tensor].astype(np.float32), -given["frac_bits"])
    results = session.run([each["tensor"] for each in compared], {"x": numbers})
    assert len(compared) >= 3
    for each, result in zip(compared, results, strict=True):
        assert np.array_equal(np.ldexp(result, each["frac_bits"]), vectors[each["tensor"]]), each["tensor"]


@pytest.mark.skipif(not HAS_QONNX, reason="qonnx is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rounding", [ShiftRounding.HALF_EVEN, ShiftRounding.AWAY, ShiftRounding.FLOOR])
@pytest.mark.parametrize("name", NETS)
def test_qonnx_computes_the_integers_of_the_program(workshop: Any, name: str, rounding: ShiftRounding) -> None:
    assert "0 differ" in export(workshop, "qonnx", NETS[name], check=10, rounding=rounding)


@pytest.mark.skipif(HAS_QONNX, reason="qonnx is installed")
def test_without_qonnx_nothing_is_checked(workshop: Any) -> None:
    assert "not checked: qonnx is not installed" in export(workshop, "qonnx", NETS["convolutions"], check=2)


def test_quant_nodes_have_the_formats_of_the_net(workshop: Any) -> None:
    export(workshop, "qonnx", NETS["neighbours"])
    found = quants(onnx.load("net.onnx"))
    assert found["x@end"] == {"signed": 1, "narrow": 0, "rounding_mode": b"ROUND", "scale": 2**-5, "bits": 8}
    assert found["a/weights"]["bits"] == 6
    assert found["a/weights"]["scale"] == 2**-5
    assert {each["bits"] for each in found.values()} >= {4, 5, 6, 8, 16}
    assert {each["signed"] for each in found.values()} == {1}
    export(workshop, "qonnx", NETS["unsigned"], rounding=ShiftRounding.AWAY)
    found = quants(onnx.load("net.onnx"))
    assert 0 in {each["signed"] for each in found.values()}
    # Ties away from zero are HALF_UP there; inputs and weights are rounded to even in any mode.
    assert found["x@end"]["rounding_mode"] == found["a/weights"]["rounding_mode"] == b"ROUND"
    assert b"HALF_UP" in {each["rounding_mode"] for each in found.values()}


def test_what_follows_a_relu_is_quantized_again(workshop: Any) -> None:
    text = DATA + conv("a", "x") + layer("ReLU", "r", "a", top="r") + fc("b", "r", fl_layer_in=3)
    export(workshop, "qonnx", text)
    assert quants(onnx.load("net.onnx"))["r"]["scale"] == 2**-3


def test_models_are_for_one_image_unless_told_otherwise(workshop: Any) -> None:
    for batch, extent in ((None, 1), (4, 4), (0, 0)):
        export(workshop, "qonnx", NETS["convolutions"], batch=batch)
        model = onnx.load("net.onnx")
        values = [*model.graph.input, *model.graph.output]
        assert [each.type.tensor_type.shape.dim[0].dim_value for each in values] == [extent, extent]
    assert [value.name for value in values] == ["x", "c"]
    nodes = {node.name: node for node in model.graph.node}
    assert nodes["a"].op_type == "Conv"
    assert nodes["c"].op_type == "MatMul"
    assert {each.name for each in nodes["a"].attribute} == {"kernel_shape", "strides", "pads", "dilations", "group"}


def test_what_qonnx_has_not_is_refused(workshop: Any) -> None:
    with pytest.raises(RistrettoError, match='layer "a": one bit is -1 or 0 here, and -1 or 1 in QONNX'):
        export(workshop, "qonnx", DATA + conv("a", "x", bw_params=1, fl_params=0))
    with pytest.raises(
        RistrettoError, match=r"--rounding half_up: the format .* Use half_even or away or floor, or another"
    ):
        export(workshop, "qonnx", DATA + conv("a", "x"), rounding=ShiftRounding.HALF_UP)
    with pytest.raises(RistrettoError, match=r"its sums reach 2\^"):
        export(workshop, "qonnx", DATA + conv("a", "x", bw_layer_in=16, fl_layer_in=13, bw_params=16, fl_params=15))
