"""Folding of public nets: each computes what it did before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.analysis.nets_without_data import build_without_data
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.net.build import NetState
from ristretto_cli.net.forward import forward
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.ops import Array
from ristretto_cli.quantize.fold import fold_net

from .conftest import SHARED

MODELS = SHARED / "data" / "models"
STATE = NetState(TEST)


@pytest.mark.skipif(
    not MODELS.is_dir(), reason="needs the recorded networks of the shared folder: set RISTRETTO_SHARED"
)
@pytest.mark.parametrize(
    ("model", "weights", "given", "blobs", "normalizations"),
    [
        (
            "resnet20_cifar10/res20_cifar_train_test.prototxt",
            "resnet20_cifar10/cifar10_res20_iter_64000.caffemodel",
            {"Data1": (2, 3, 32, 32), "Data2": (2,)},
            ["InnerProduct1"],
            42,
        ),
        (
            "retinaface/mnet-deconv-0517.prototxt",
            "retinaface/mnet-deconv-0517.caffemodel",
            {"data": (1, 3, 96, 128)},
            [],
            94,
        ),
    ],
)
def test_public_nets_are_folded_completely_and_compute_the_same(
    model: str, weights: str, given: dict[str, tuple[int, ...]], blobs: list[str], normalizations: int, tmp_path: Path
) -> None:
    net_file, stored = read_net(MODELS / model), read_weights(MODELS / weights)
    before = loaded(build_without_data(net_file, STATE, given).net, weights=str(MODELS / weights))
    folded = fold_net(net_file, before, stored, STATE)
    assert (len(folded.folded), folded.left) == (normalizations, ())
    folded.write_weights(str(tmp_path / "folded.caffemodel"))
    after = loaded(build_without_data(folded.net_file, STATE, given).net, weights=str(tmp_path / "folded.caffemodel"))
    names = blobs or [blob.name for blob in before.outputs]
    for expected, found in zip(outputs(before, names), outputs(after, names), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


def loaded(net: Net, *, weights: str) -> Net:
    return load_weights(net, read_weights(weights), rng=np.random.default_rng(0))


def outputs(net: Net, blobs: list[str]) -> list[Array]:
    """The blobs for an image of noise."""
    rng, ops = np.random.default_rng(1), OnnxOps()
    feeds = {blob.name: (rng.normal(size=blob.shape) * 50).astype(np.float32) for blob in net.inputs}
    if "Data2" in feeds:
        feeds["Data2"] = np.zeros(feeds["Data2"].shape, np.float32)
    run = forward(net, ops, {blob.name: ops.input(blob.name, blob.shape) for blob in net.inputs}, rng=rng)
    found = lower(ops.graph, {name: run.final[name] for name in blobs}).session(threads=1).run(feeds)
    return [found[name] for name in blobs]
