"""A net as a graph that runs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.engine import compile_net, log_device, record
from ristretto_cli.scoring.execution import Execution

NET = """
    layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
"""
WEIGHTS = {"ip": [[[2, 3]], [1]]}
X = {"x": np.array([[10, 100]], np.float32)}


def test_inputs_of_the_graph_have_the_blobs_names(workshop: Any) -> None:
    ops, run = record(workshop.load(NET, WEIGHTS), rng=np.random.default_rng(0))
    assert {name: node.shape for name, node in ops.graph.inputs.items()} == {"x": (1, 2)}
    assert {name: node.shape for name, node in run.final.items()} == {"x": (1, 2), "y": (1, 1)}


def test_a_caller_picks_values_under_names_of_its_own_and_adds_to_the_graph(workshop: Any) -> None:
    session = compile_net(
        workshop.load(NET, WEIGHTS),
        lambda run, ops: {"sum": run.final["y"], "negative": ops.mul(run.final["y"], ops.constant(-1.0))},
        rng=np.random.default_rng(0),
    )
    results = session.run(X)
    assert {key: value.tolist() for key, value in results.items()} == {"sum": [[321]], "negative": [[-321]]}


@pytest.mark.parametrize(("gpu", "line"), [(None, "Use CPU."), (0, "Use GPU with device ID 0")])
def test_the_device_is_reported_in_caffes_words(caplog: pytest.LogCaptureFixture, gpu: int | None, line: str) -> None:
    caplog.set_level(logging.INFO, "ristretto")
    log_device(gpu)
    assert caplog.messages == [line]


def test_without_a_gpu_the_remedy_is_named(workshop: Any) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use a GPU")
    net = workshop.load(NET, WEIGHTS)
    with pytest.raises(RistrettoError, match="pip install onnxruntime-gpu"):
        compile_net(net, lambda run, ops: run.final, rng=np.random.default_rng(0), execution=Execution(gpu=0))
