"""Weights as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ristretto_cli.caffe_io.npz import write_npz
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.exports.exporter import Exporter, ExportRequest, exporter, needed
from ristretto_cli.net.build import NetState
from ristretto_cli.net.param_formats import params_in_use
from ristretto_cli.ops import Array
from ristretto_cli.scoring.net_files import load_net


@exporter("npz")
class NpzExporter(Exporter):
    """Weights, keyed `layer/i`.

    Without a model: all blobs of the file, in their shapes in the file. With a model: the parameters of the layers
    of its TEST phase, in their shapes in the net and as the layers use them, quantized if the layer quantizes
    them.
    """

    def write(self, request: ExportRequest) -> str:
        weights = needed(request.weights, "--weights")
        arrays = _stored(weights) if request.model is None else _in_use(request.model, weights, request)
        write_npz(request.output, arrays)
        layers = {key.rpartition("/")[0] for key in arrays}
        return f"{request.output}: {len(arrays)} blobs of {len(layers)} layers"


def _stored(weights: str) -> Mapping[str, Array]:
    file = read_weights(weights)
    return {f"{layer}/{i}": blob.array for layer, blobs in file.layers.items() for i, blob in enumerate(blobs)}


def _in_use(model: str, weights: str, request: ExportRequest) -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    state = NetState(level=request.level, stages=request.stages)
    net = load_net(model, weights, state, rng=rng, allow_missing=request.allow_missing)
    return {f"{layer.name}/{i}": array for layer, i, array in params_in_use(net, rng=rng)}
