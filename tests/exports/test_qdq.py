"""ONNX models with QuantizeLinear and DequantizeLinear: onnxruntime computes the integers of the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ristretto_cli.errors import RistrettoError, RistrettoErrors
from ristretto_cli.integers.rounding import ShiftRounding
from tests.exports.onnx_nets import DATA, NETS, conv, export, fc, layer, pool


@pytest.mark.parametrize("name", NETS)
def test_onnxruntime_computes_the_integers_of_the_program(workshop: Any, name: str) -> None:
    line = export(workshop, "qdq", NETS[name], check=10)
    assert "10 images" in line
    assert "0 differ" in line
    onnx.checker.check_model("net.onnx", full_check=True)


def test_a_check_finds_a_wrong_weight(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save = onnx.save

    def damaged(model: Any, path: Any) -> None:
        weights = next(tensor for tensor in model.graph.initializer if tensor.name == "a/weights/integers")
        weights.raw_data = bytes([weights.raw_data[0] ^ 8]) + weights.raw_data[1:]
        save(model, path)

    monkeypatch.setattr(onnx, "save", damaged)
    with pytest.raises(RistrettoError, match=r"checked, and it is wrong: 10 images, .* differ, first in a"):
        export(workshop, "qdq", NETS["convolutions"], check=10)


def test_types_are_the_narrowest_and_the_opset_the_lowest_that_has_them(workshop: Any) -> None:
    for name, opset in (("convolutions", 13), ("unsigned", 13), ("four bits", 21), ("neighbours", 21)):
        assert f"of opset {opset}," in export(workshop, "qdq", NETS[name])
        types = {tensor.name: tensor.data_type for tensor in onnx.load("net.onnx").graph.initializer}
        narrow = name == "four bits"
        kind = onnx.TensorProto.INT4 if narrow else onnx.TensorProto.INT8
        assert types["a/weights/integers"] == kind
        assert types["a/biases/integers"] == onnx.TensorProto.INT32
        unsigned = name == "unsigned"
        sums = "a/zero_point" if name in ("four bits", "neighbours") else "a@a/zero_point"
        assert types[sums] == (onnx.TensorProto.UINT8 if unsigned else onnx.TensorProto.INT8)
        if name == "neighbours":
            assert types["c/zero_point"] == onnx.TensorProto.INT16


def test_scales_are_powers_of_two_and_zero_points_are_zero(workshop: Any) -> None:
    export(workshop, "qdq", NETS["neighbours"])
    model = onnx.load("net.onnx")
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = [array for name, array in arrays.items() if name.endswith("/scale")]
    assert len(scales) > 8
    assert all(np.frexp(scale)[0] == 0.5 for scale in scales)
    assert not any(array.any() for name, array in arrays.items() if name.endswith("/zero_point"))
    assert arrays["a/biases/scale"] == arrays["x@end/scale"] * arrays["a/weights/scale"]


def test_names_are_the_nets_and_the_batch_is_any(workshop: Any) -> None:
    text = DATA + conv("conv/1x1", "x") + layer("ReLU", "relu", "conv/1x1", top="conv/1x1") + fc("scores", "conv/1x1")
    text += layer("Softmax", "prob", "scores")
    line = export(workshop, "qdq", text)
    assert "inputs x, outputs scores" in line
    assert "prob (Softmax) is left to the host: Softmax has no integer form." in line
    model = onnx.load("net.onnx")
    assert {"conv/1x1", "scores"} <= {node.name for node in model.graph.node}
    assert {"conv/1x1", "scores", "x@end"} <= {name for node in model.graph.node for name in node.output}
    values = [*model.graph.input, *model.graph.output]
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in values] == ["N", "N"]
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((2, 4, 7, 6), np.float32)})[0].shape == (2, 3)
    export(workshop, "qdq", text, batch=3)
    assert onnx.load("net.onnx").graph.output[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_biases_much_finer_than_products_keep_what_rounding_needs(workshop: Any) -> None:
    settings = {"bw_bias": 24, "fl_bias": 22, "bw_layer_in": 8, "fl_layer_in": 4}
    assert "0 differ" in export(workshop, "qdq", DATA + conv("a", "x", **settings), check=10)
    with pytest.raises(RistrettoError, match="Give biases fewer fraction bits: they have 13 more than the products"):
        export(workshop, "qdq", DATA + conv("a", "x", **settings, bw_layer_out=16, fl_layer_out=10))


def test_the_manifest_is_in_the_metadata(workshop: Any) -> None:
    export(workshop, "qdq", NETS["convolutions"])
    (entry,) = onnx.load("net.onnx").metadata_props
    found = json.loads(entry.value)
    assert entry.key == "ristretto"
    assert found["format"] == "qdq"
    assert found["outputs"]["c"]["frac_bits"] == 1
    assert found["fed"] == {"a_in": "x"}
    assert found["tensors"]["c"]["tensor"] == "c"


def test_vectors_are_the_integers_of_the_tensors(workshop: Any) -> None:
    line = export(workshop, "qdq", NETS["neighbours"], vectors=7)
    assert "net_vectors.npz: the integers of 7 images in" in line
    vectors = np.load("net_vectors.npz")
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    numbers = vectors["x@end"] * np.float32(2.0**-5)
    (scores,) = session.run(["d"], {"x": numbers})
    assert np.array_equal(scores * 8, vectors["d"])


def test_means_round_ties_as_the_program_does(workshop: Any) -> None:
    # 7 x 1 equal numbers have their own mean; quantized to halves of these, all odd ones are ties. Sums are multiplied
    # by a rounded 1/7 in the kernels for bytes of onnxruntime.
    text = DATA.replace("dim: 6", "dim: 1") + conv("a", "x", "num_output: 4 kernel_size: 1", fl_layer_out=3)
    text += pool("g", "a", "pool: AVE global_pooling: true") + conv(
        "b", "g", "num_output: 4 kernel_size: 1", fl_layer_in=2
    )
    assert "0 differ" in export(workshop, "qdq", text, check=10)
    ops = [node.op_type for node in onnx.load("net.onnx").graph.node]
    assert "Div" in ops
    assert "GlobalAveragePool" not in ops
    export(workshop, "qdq", text.replace("dim: 7", "dim: 8"))
    assert "GlobalAveragePool" in [node.op_type for node in onnx.load("net.onnx").graph.node]


def test_batch_norm_follows_the_float_pass_or_is_exact_with_few_fraction_bits(workshop: Any) -> None:
    text = DATA + conv("a", "x") + layer("BatchNorm", "n", "a", top="n")
    text += layer("Scale", "l", "n", settings="scale_param { bias_term: true }")
    text += conv("c", "x") + layer("Eltwise", "s", "l", "c") + conv("b", "s", fl_layer_in=1)
    line = export(workshop, "qdq", text, check=10)
    assert "In float32 until their results are quantized: n, l." in line
    assert "values of 5 blobs: 0 differ" in line
    line = export(workshop, "qdq", text, check=10, affine_bits=12)
    assert "In float32" not in line
    assert "values of 6 blobs: 0 differ" in line


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            DATA + conv("a", "x", bw_layer_in=16, fl_layer_in=13, bw_params=16, fl_params=15),
            r'layer "a": its sums reach 2\^3., and float32 holds',
        ),
        (DATA + conv("a", "x", bw_layer_out=20), 'layer "a": 20 bits are more than the 16 of QuantizeLinear'),
        (DATA + conv("a", "x", bw_layer_in=1, bw_params=20), 'layer "a": weights of 20 bits are more than the 16'),
        (
            DATA + conv("a", "x", "num_output: 4 kernel_size: 1 bias_term: false", fl_layer_in=80, fl_params=60),
            'layer "a": 140 fraction bits are too many for float32',
        ),
        (
            DATA
            + conv("a", "x")
            + pool("p", "a", "pool: AVE kernel_size: 3")
            + layer("Eltwise", "s", "p", "p")
            + fc("b", "s"),
            'layer "s": it adds means that are not quantized',
        ),
    ],
)
def test_what_cannot_be_held_is_refused(workshop: Any, text: str, what: str) -> None:
    with pytest.raises((RistrettoError, RistrettoErrors), match=what):
        export(workshop, "qdq", text)
    assert not Path("net.onnx").exists()


def test_all_layers_that_cannot_be_held_are_named(workshop: Any) -> None:
    text = (
        DATA
        + conv("a", "x", bw_layer_in=16, fl_layer_in=13, bw_params=16, fl_params=15)
        + conv("b", "a", bw_layer_in=16, fl_layer_in=13, bw_params=16, fl_params=15)
    )
    with pytest.raises(RistrettoErrors) as refused:
        export(workshop, "qdq", text)
    assert ['"a"' in str(error) or '"b"' in str(error) for error in refused.value.errors] == [True, True]


def test_other_roundings_are_refused(workshop: Any) -> None:
    with pytest.raises(
        RistrettoError, match=r"--rounding floor: the format cannot round like that\. Use half_even, or another"
    ):
        export(workshop, "qdq", DATA + conv("a", "x"), rounding=ShiftRounding.FLOOR)
