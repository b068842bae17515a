"""The same nets in OpenCV's own Caffe importer, which shares no code with this project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.sources.open import DataLayers

from .conftest import Recorded

# net: its logits, and how many there are
LOGITS = {"lenet": ("ip2", 10), "resnet20": ("InnerProduct1", 10), "squeezenet_v1.0": ("pool_final", 1000)}


@pytest.mark.parametrize("name", LOGITS)
def test_opencv_computes_the_same_logits(name: str, recorded: Callable[[str], Recorded], tmp_path: Path) -> None:
    if not hasattr(getattr(cv2, "dnn", None), "readNetFromCaffe"):
        pytest.skip("needs the Caffe importer of OpenCV 4: pip install 'opencv-python-headless<5'")
    case = recorded(name)
    blob, classes = LOGITS[name]
    net = build(read_net(case.model), NetState(), DataLayers())
    with DataLoader(net) as feeds:
        images = feeds.next()[net.inputs[0].name]
    deploy = write_deploy(net, tmp_path / "deploy.prototxt")

    rng = np.random.default_rng(0)
    ours_net = load_net(deploy, case.weights, NetState(), rng=rng)
    ours = OnePass(ours_net, rng=rng, blobs=(blob,)).run({net.inputs[0].name: images})[blob]

    imported = cv2.dnn.readNetFromCaffe(deploy, case.weights)
    imported.setInput(images)
    theirs = imported.forward()
    difference = float(np.abs(ours.reshape(theirs.shape) - theirs).max())
    assert ours.reshape(len(images), -1).shape == (len(images), classes)
    assert float(np.ptp(ours)) > 10  # so that 0.001 is little
    assert difference < 1e-3


def write_deploy(net: Net, path: Path) -> str:
    """The net up to its logits, with an Input layer for its images, as a prototxt."""
    images, *labels = net.inputs
    kept = [
        layer
        for layer in net.layers
        if not layer.is_source and not {b.name for b in layer.bottoms} & {b.name for b in labels}
    ]
    message = new("NetParameter", name="deploy")
    given = message.layer.add(name="input", type="Input", top=[images.name])
    given.input_param.shape.add(dim=images.shape)
    for layer in kept:
        message.layer.add().CopyFrom(layer.message)
    path.write_text(to_text(message))
    return str(path)
