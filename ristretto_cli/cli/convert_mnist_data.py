"""Convert the MNIST files to a database."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand, complete_path, option

_EXAMPLES = """\b
Examples:
  ristretto convert_mnist_data train-images-idx3-ubyte \\
    train-labels-idx1-ubyte mnist_train_lmdb"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("image_file", metavar="IMAGE_FILE", shell_complete=complete_path)
@click.argument("label_file", metavar="LABEL_FILE", shell_complete=complete_path)
@click.argument("db_name", metavar="DB_NAME", shell_complete=complete_path)
@option("--backend", "Format of the database.", type=click.Choice(["lmdb", "leveldb"]), default="lmdb")
def command(image_file: str, label_file: str, db_name: str, backend: str) -> None:
    """Convert the MNIST files to a database.

    The files are in idx format, decompressed: for example train-images-idx3-ubyte and train-labels-idx1-ubyte.
    """
    from ristretto_cli.datasets.mnist import convert_mnist
    from ristretto_cli.datasets.new_database import Backend

    count = convert_mnist(image_file, label_file, db_name, Backend(backend))
    click.echo(f"{db_name}: {count} images")
