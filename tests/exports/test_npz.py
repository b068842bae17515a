"""Weights as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.wire.messages import TEST, new


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
