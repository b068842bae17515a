"""Kernels to layers: by the names that onnxruntime 1.20 and 1.32 give them."""

from __future__ import annotations

import pytest
from onnx import helper

from ristretto_cli.analysis.kernel_layers import Shares
from ristretto_cli.backends.onnx_profile import Kernel

LAYERS = {"conv1", "relu1", "b/pool", "fc", "relu2", "b", "Reorder"}
NODES = [
    helper.make_node("Conv", ["x", "w"], ["c"], name="conv1/Conv"),
    helper.make_node("Clip", ["c"], ["k"], name="conv1/Clip_2"),
    helper.make_node("Relu", ["k"], ["r"], name="relu1/Relu"),
    helper.make_node("MaxPool", ["r"], ["p"], name="b/pool/MaxPool"),
    helper.make_node("Add", ["p", "p"], ["s"], name="b/step 1/Add"),
    helper.make_node("Gemm", ["s", "v"], ["g"], name="fc/Gemm"),
    helper.make_node("Relu", ["g"], ["y"], name="relu2/Relu"),
    helper.make_node("Max", ["y"], ["peak"], name="Max"),
]


def shares(*kernels: tuple[str, str]) -> Shares:
    """Of kernels that take 1, 2, 4, 8, ... microseconds."""
    found = Shares()
    found.add(LAYERS, NODES, [Kernel(name, op, 2.0**i) for i, (name, op) in enumerate(kernels)])
    return found


def test_a_kernel_with_a_nodes_name_is_its_layers() -> None:
    found = shares(("conv1/Conv", "Conv"), ("relu1/Relu", "Relu"), ("b/pool/MaxPool_nchwc", "MaxPool"))
    assert found == Shares({"conv1": 1, "relu1": 2, "b/pool": 4})


def test_names_of_layers_and_of_steps_may_have_slashes() -> None:
    assert shares(("b/pool/MaxPool", "MaxPool"), ("b/step 1/Add", "Add")).layers == {"b/pool": 1, "b": 2}


@pytest.mark.parametrize("name", ["ReorderInput", "ReorderOutput_token_4", "", "Max", "relu1", "Memcpy_token_3"])
def test_other_kernels_belong_to_no_layer(name: str) -> None:
    assert shares((name, "ReorderOutput")) == Shares(others=1)


def test_a_convolution_that_has_the_relus_name_is_the_convolutions() -> None:
    assert shares(("relu1/Relu_nchwc", "Conv")) == Shares({"conv1": 1}, within={"relu1": "conv1"})


def test_a_convolution_with_a_kernel_of_its_own_is_not_looked_for_elsewhere() -> None:
    found = shares(("conv1/Conv_nchwc", "Conv"), ("relu1/Relu_nchwc", "Conv"))
    assert found == Shares({"conv1": 1, "relu1": 2})


def test_an_activation_of_a_fused_product_is_the_products() -> None:
    assert shares(("fused fc/Gemm", "FusedGemm")) == Shares({"fc": 1}, within={"relu2": "fc"})


def test_what_has_a_kernel_is_not_within_another() -> None:
    assert shares(("fused fc/Gemm", "FusedGemm"), ("relu2/Relu", "Relu")) == Shares({"fc": 1, "relu2": 2})


def test_times_of_several_sessions_are_added() -> None:
    found = shares(("fc/Gemm", "Gemm"))
    found.add(LAYERS, NODES, [Kernel("fc/Gemm", "Gemm", 5)])
    assert found == Shares({"fc": 6})
