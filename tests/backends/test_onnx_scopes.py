"""Nodes are named after the layer whose value they compute, also where another one asks for it first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.graph_passes.graph_pass import all_passes
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.scoring import engine
from ristretto_cli.scoring.execution import Execution

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
    ops, run = engine.record(net, rng=rng)
    target = engine.target_of(Execution(gpu), guarded=True)
    model = lower(ops.graph, {"fc": run.final["fc"]}, all_passes(), target).model(embed_weights=False)
    convolutions = [n.name for n in model.graph.node if n.op_type in {"QLinearConv", "Conv"}]
    assert any(each.startswith("conv/") for each in convolutions)
    assert not any(each.startswith("relu/") for each in convolutions)
    assert {n.name.split("/")[0] for n in model.graph.node if n.op_type == "MaxPool"} == {"pool"}
    assert {n.name.split("/")[0] for n in model.graph.node if n.op_type in {"Gemm", "QGemm"}} == {"fc"}
