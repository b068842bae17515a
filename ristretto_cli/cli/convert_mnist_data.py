"""Convert the MNIST files to a database."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand, option


@click.command(cls=GflagsCommand)
@click.argument("image_file", metavar="IMAGE_FILE")
@click.argument("label_file", metavar="LABEL_FILE")
@click.argument("db_name", metavar="DB_NAME")
@option("--backend", "Format of the database.", type=click.Choice(["lmdb", "leveldb"]), default="lmdb")
def command(image_file: str, label_file: str, db_name: str, backend: str) -> None:
    """Convert the MNIST files to a database.

    The files are in idx format, decompressed: for example train-images-idx3-ubyte and train-labels-idx1-ubyte.
    """
    from ristretto_cli.datasets.mnist import convert_mnist
    from ristretto_cli.datasets.new_database import Backend

    count = convert_mnist(image_file, label_file, db_name, Backend(backend))
    click.echo(f"{db_name}: {count} images")
