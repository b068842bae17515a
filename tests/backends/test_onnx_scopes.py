"""Nodes are named after the layer whose value they compute, also where another one asks for it first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.onnx_graph import Graph
from ristretto_cli.scoring import engine

NET = """
    layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 16 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "x" top: "conv"
            convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } }
            quantization_param { FORMAT } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "fc" type: "FcRistretto" bottom: "pool" top: "fc"
            inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.1 } }
            quantization_param { FORMAT } }
"""
FORMATS = {
    "bytes": "bw_layer_in: 8 fl_layer_in: 5 bw_layer_out: 8 fl_layer_out: 5 bw_params: 8 fl_params: 7",
    "minifloat": "precision: MINIFLOAT mant_bits: 5 exp_bits: 5",
}


@pytest.mark.parametrize("gpu", [None, 0])  # without integer kernels on a GPU; nothing is run here
@pytest.mark.parametrize("name", FORMATS)
def test_every_product_and_pooling_has_its_layers_name(workshop: Any, name: str, gpu: int | None) -> None:
    net = workshop.load(NET.replace("FORMAT", FORMATS[name]))
    rng = np.random.default_rng(0)
    ops = engine.fast_ops(rng, gpu)
    ops.bound_of_inputs, ops.assumes_in_range = engine.BOUND, True
    run, _ = engine._record(net, ops, {}, rng)
    model = ops.graph.model({"fc": run.final["fc"]}, embed_weights=False)
    convolutions = [n.name for n in model.graph.node if n.op_type in {"QLinearConv", "Conv"}]
    assert any(each.startswith("conv/") for each in convolutions)
    assert not any(each.startswith("relu/") for each in convolutions)
    assert {n.name.split("/")[0] for n in model.graph.node if n.op_type == "MaxPool"} == {"pool"}
    assert {n.name.split("/")[0] for n in model.graph.node if n.op_type in {"Gemm", "QGemm"}} == {"fc"}


def test_names_inside_a_function_are_those_of_where_it_was_made() -> None:
    graph = Graph()
    x = graph.input("x", (1,))
    with graph.scope("a"):
        make = graph.in_this_scope(lambda: graph.record("Relu", [x], [(1,)])[0])
    with graph.scope("b"):
        assert make().name == "a/Relu"
        assert graph.record("Relu", [x], [(1,)])[0].name == "b/Relu"
