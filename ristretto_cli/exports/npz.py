"""Weights as numpy arrays."""

from __future__ import annotations

from ristretto_cli.exports.exporter import Exporter, ExportRequest, exporter, needed
from ristretto_cli.wire.npz import write_npz
from ristretto_cli.wire.weights import read_weights


@exporter("npz")
class NpzExporter(Exporter):
    """The blobs of a file of weights, keyed `layer/i`, in the shapes that they have there."""

    def write(self, request: ExportRequest) -> str:
        file = read_weights(needed(request.weights, "--weights"))
        arrays = {f"{layer}/{i}": blob.array for layer, blobs in file.layers.items() for i, blob in enumerate(blobs)}
        write_npz(request.output, arrays)
        return f"{request.output}: {len(arrays)} blobs of {len(file.layers)} layers"
