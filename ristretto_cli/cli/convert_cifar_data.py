"""Convert the CIFAR-10 files to databases."""

from __future__ import annotations

import click

from ristretto_cli.cli.gflags import GflagsCommand, complete_path

_EXAMPLES = """\b
Examples:
  ristretto convert_cifar_data cifar-10-batches-bin . lmdb"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("input_folder", metavar="INPUT_FOLDER", shell_complete=complete_path)
@click.argument("output_folder", metavar="OUTPUT_FOLDER", shell_complete=complete_path)
@click.argument("db_type", metavar="DB_TYPE", type=click.Choice(["lmdb", "leveldb"]))
def command(input_folder: str, output_folder: str, db_type: str) -> None:
    """Convert the CIFAR-10 files to databases.

    INPUT_FOLDER holds the binary version: data_batch_1.bin to data_batch_5.bin and test_batch.bin. Writes
    cifar10_train_DB_TYPE and cifar10_test_DB_TYPE; DB_TYPE is lmdb or leveldb.
    """
    from ristretto_cli.datasets.cifar import convert_cifar
    from ristretto_cli.datasets.new_database import Backend

    for path, count in convert_cifar(input_folder, output_folder, Backend(db_type)).items():
        click.echo(f"{path}: {count} images")
