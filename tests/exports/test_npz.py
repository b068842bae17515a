"""Weights as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest


def test_arrays_are_keyed_by_layer_and_number_in_their_stored_shapes(workshop: Any) -> None:
    file = workshop.weights({"conv1": [[[[[2]]]], [1]], "fire2/squeeze": [[[3, 4]]]})
    line = EXPORTS.get("npz").write(ExportRequest(None, file, "out.npz", TEST))
    assert line == "out.npz: 3 blobs of 2 layers"
    arrays = np.load("out.npz")
    assert {key: arrays[key].tolist() for key in arrays.files} == {
        "conv1/0": [[[[2]]]],
        "conv1/1": [1],
        "fire2/squeeze/0": [[3, 4]],
    }
    assert {arrays[key].dtype for key in arrays.files} == {np.dtype(np.float32)}


def test_blobs_of_old_files_keep_their_four_extents(workshop: Any) -> None:
    net = new("NetParameter")
    layer = net.layers.add(name="ip")
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=range(6))
    (workshop.folder / "v1.caffemodel").write_bytes(net.SerializeToString())
    EXPORTS.get("npz").write(ExportRequest(None, "v1.caffemodel", "out.npz", TEST))
    assert np.load("out.npz")["ip/0"].tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


NET = """
    layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 1 dim: 2 } } }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "x" top: "conv"
            convolution_param { num_output: 1 kernel_size: 1 }
            quantization_param { bw_params: 4 fl_params: 2 } }
    layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
    layer { name: "up" type: "DeconvolutionRistretto" bottom: "bn" top: "up"
            convolution_param { num_output: 1 kernel_size: 1 }
            quantization_param { precision: MINIFLOAT mant_bits: 2 exp_bits: 4 } }
    layer { name: "fc" type: "FcRistretto" bottom: "up" top: "fc" inner_product_param { num_output: 1 }
            quantization_param { precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1 } }
    layer { name: "staged" type: "InnerProduct" bottom: "fc" top: "staged" include { stage: "s" }
            inner_product_param { num_output: 1 bias_term: false } }
    layer { name: "learnt" type: "InnerProduct" bottom: "fc" top: "learnt" include { phase: TRAIN }
            inner_product_param { num_output: 1 bias_term: false } }
"""
WEIGHTS = {
    "conv": [[[[[0.8]]]], [9.7]],
    "bn": [[0.3], [0.7], [1.0]],
    "up": [[[[[1.1]]]], [0.3]],
    "fc": [[[0.3, 0]], [0.3]],
    "staged": [[[0.3]]],
    "other": [[0.3]],
}
TRIMMED = {
    "conv/0": [[[[0.75]]]],
    "conv/1": [1.75],
    "bn/0": [0.3],
    "bn/1": [0.7],
    "bn/2": [1.0],
    "up/0": [[[[1.0]]]],
    "up/1": [0.3125],
    "fc/0": [[0.25, 2**-8]],
    "fc/1": [0.3],
}


def export(workshop: Any, text: str = NET, **settings: Any) -> dict[str, Any]:
    file = workshop.weights(WEIGHTS)
    EXPORTS.get("npz").write(ExportRequest(workshop.net(text), file, "out.npz", TEST, **settings))
    arrays = np.load("out.npz")
    return {key: arrays[key] for key in arrays.files}


def test_with_a_model_the_weights_are_as_its_layers_use_them(workshop: Any) -> None:
    arrays = export(workshop)
    assert list(arrays) == list(TRIMMED)
    for key, values in TRIMMED.items():
        np.testing.assert_array_equal(arrays[key], np.float32(values))


def test_the_layers_are_those_of_the_stage_and_level(workshop: Any) -> None:
    assert export(workshop, stages=("s",))["staged/0"].tolist() == [[np.float32(0.3)]]


def test_a_shared_parameter_stands_under_each_layer_as_that_layer_trims_it(workshop: Any) -> None:
    layer = """
        layer { name: "%s" type: "FcRistretto" bottom: "x" top: "%s" param { name: "w" }
                inner_product_param { num_output: 1 bias_term: false }
                quantization_param { bw_params: 8 fl_params: %d } }
    """
    text = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 } } }'
    text += layer % ("a", "a", 1) + layer % ("b", "b", 2)
    file = workshop.weights({"a": [[[0.8]]]})
    EXPORTS.get("npz").write(ExportRequest(workshop.net(text), file, "out.npz", TEST))
    assert {key: array.item() for key, array in np.load("out.npz").items()} == {"a/0": 1.0, "b/0": 0.75}


def test_weights_that_do_not_fit_the_model_are_refused(workshop: Any) -> None:
    with pytest.raises(RistrettoError, match='parameter 0 of layer "fc" is 1x2 in the file and 1x3 in the net'):
        export(workshop, NET.replace("dim: 1 dim: 2", "dim: 1 dim: 3"))
    with pytest.raises(RistrettoError, match='layer "fd" has no weights'):
        export(workshop, NET.replace('name: "fc"', 'name: "fd"'))
    assert export(workshop, NET.replace('name: "fc"', 'name: "fd"'), allow_missing=True)["fd/1"].tolist() == [0]
