"""Convert a list of images to a database."""

from __future__ import annotations

import logging

import click

from ristretto_cli.cli.flag_rules import Needs
from ristretto_cli.cli.gflags import GflagsCommand, complete_path, option
from ristretto_cli.cli.progress import progress

_SIDE = click.IntRange(0, 32767)


_EXAMPLES = """\b
Examples:
  ristretto convert_imageset --resize_height=256 --resize_width=256 --shuffle \\
    images/ train.txt train_lmdb"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES, rules=[Needs("--seed", "--shuffle")])
@click.argument("root_folder", metavar="ROOTFOLDER/", shell_complete=complete_path)
@click.argument("list_file", metavar="LISTFILE", shell_complete=complete_path)
@click.argument("db_name", metavar="DB_NAME", shell_complete=complete_path)
@option("--gray", "Read images as grayscale.", is_flag=True)
@option("--shuffle", "Shuffle the images.", is_flag=True)
@option("--seed", "Seed for --shuffle.", type=click.IntRange(min=0), default=0)
@option("--backend", "Format of the database.", type=click.Choice(["lmdb", "leveldb"]), default="lmdb")
@option("--resize_width", "Width to resize images to; 0: no resizing.", type=_SIDE, default=0)
@option("--resize_height", "Height to resize images to; 0: no resizing.", type=_SIDE, default=0)
@option("--check_size", "Fail if an image differs in size from the first one.", is_flag=True)
@option("--encoded", "Store encoded images: the files unchanged, unless they are resized.", is_flag=True)
@option("--encode_type", "Format of encoded images (png, jpg, ...). Default: the format of each file.")
def command(
    root_folder: str,
    list_file: str,
    db_name: str,
    gray: bool,
    shuffle: bool,
    seed: int,
    backend: str,
    resize_width: int,
    resize_height: int,
    check_size: bool,
    encoded: bool,
    encode_type: str | None,
) -> None:
    """Convert a list of images to a database.

    Each line of LISTFILE is a file name and a label, separated by a space. ROOTFOLDER/ is prepended to each name
    unchanged. Images that cannot be read are skipped.
    """
    if (resize_width == 0) != (resize_height == 0):
        raise click.UsageError("--resize_width and --resize_height must be used together")
    import numpy as np

    from ristretto_cli.datasets.imageset import ConversionOptions, convert_imageset
    from ristretto_cli.datasets.new_database import Backend

    log = logging.getLogger("ristretto")
    size = (resize_height, resize_width) if resize_height else None
    if size and check_size:
        log.warning("--check_size has no effect with --resize_width and --resize_height: all images become that size.")
    if gray and encoded and not encode_type and not size:
        log.warning("--gray has no effect with --encoded: files are stored unchanged. Add --encode_type.")
    options = ConversionOptions(
        gray=gray, size=size, encoded=encoded, encode_type=encode_type or "", check_size=check_size
    )
    rng = np.random.default_rng(seed) if shuffle else None
    with progress("convert_imageset") as bar:
        done = convert_imageset(
            root_folder, list_file, db_name, Backend(backend), options, rng=rng, on_image=bar.on_batch
        )
    skipped = f", {done.unreadable} could not be read" if done.unreadable else ""
    click.echo(f"{db_name}: {done.records} images{skipped}")
