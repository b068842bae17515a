"""Print how many weights of each layer are zero."""

from __future__ import annotations

import click

from ristretto_cli.cli.flags import print_result
from ristretto_cli.cli.gflags import GflagsCommand, option


@click.command(cls=GflagsCommand)
@option("--weights", "The weights, .caffemodel or .h5.", unit="file", required=True)
def command(weights: str) -> None:
    """Print how many weights of each layer are zero."""
    from ristretto_cli.caffe_io.weights import read_weights

    lines = []
    for name, blobs in read_weights(weights).layers.items():
        zeros = sum(int((blob.array == 0).sum()) for blob in blobs)
        lines.append(f"{name}: {zeros} of {sum(blob.array.size for blob in blobs)}")
    print_result(lines)
