"""A table of weights as text."""

from __future__ import annotations

from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import Exporter, ExportRequest, exporter, needed


@exporter("csv")
class CsvExporter(Exporter):
    """A row per blob of a weights file: layer, number, count, minimum and maximum."""

    def write(self, request: ExportRequest) -> str:
        if request.model is not None:
            raise RistrettoError("csv exports a weights file", hint="Leave out --model.")
        weights = read_weights(needed(request.weights, "--weights"))
        rows = [
            f"{layer},{i},{blob.array.size},{blob.array.min():g},{blob.array.max():g}"
            for layer, blobs in weights.layers.items()
            for i, blob in enumerate(blobs)
        ]
        write_atomically(request.output, "\n".join(["layer,number,count,min,max", *rows]) + "\n")
        return f"{request.output}: {len(rows)} blobs"
