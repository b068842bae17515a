"""The benchmark of training runs; its measurements are not tested."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.plain import cifar10_full, lenet, resnet20
from benchmarks.training import TRAININGS, Training, measure, train_net

sys.path.pop(0)


def test_each_net_is_trained_in_three_ways() -> None:
    rows = measure("lenet", Training("lenet", batch=2, iterations=1), rounds=1)
    assert [row[:3] for row in rows] == [["lenet", what, "2"] for what in ("PyTorch", "float", "trimmed")]
    assert all(float(figure) > 0 for row in rows for figure in row[3:])


@pytest.mark.parametrize("name", TRAININGS)
def test_plain_pytorch_trains_as_many_weights(name: str) -> None:
    plain = {"lenet": lenet, "cifar10_full": cifar10_full, "resnet20": resnet20}[name]()
    net = train_net(name, 1, trimmed=False)
    statistics = {layer.name for layer in net.layers if layer.type == "BatchNorm"}
    ours = sum(array.size for key, array in net.weights.items() if key.split("/")[0] not in statistics)
    assert sum(parameter.numel() for parameter in plain.parameters()) == ours


def test_a_trimmed_net_has_only_trimmed_layers() -> None:
    types = [layer.type for layer in train_net("lenet", 1, trimmed=True).layers]
    assert types.count("ConvolutionRistretto") == 2
    assert types.count("FcRistretto") == 2
    assert not {"Convolution", "InnerProduct"} & set(types)
