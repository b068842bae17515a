"""Extract blobs of a net to databases or .npz files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from ristretto_cli.cli.flags import check_outputs, gpu_required, graph_option, require_gpu_option, usable_gpu
from ristretto_cli.cli.gflags import GflagsCommand, complete_path, option
from ristretto_cli.cli.progress import progress

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest


def _names(context: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


def _gpu(context: click.Context, param: click.Parameter, value: str) -> GpuRequest:
    from ristretto_cli.backends.device_choice import parse_gpu

    # The help of Caffe's tool shows DEVICE_ID=0, so scripts write it like that.
    number = value.removeprefix("DEVICE_ID=")
    try:
        return parse_gpu(number, f'"GPU {number}"', required=gpu_required(context))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_EXAMPLES = """\b
Examples:
  ristretto extract_features x.caffemodel train_val.prototxt fc7 features 10 lmdb"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@click.argument("weights", metavar="WEIGHTS", shell_complete=complete_path)
@click.argument("model", metavar="MODEL", shell_complete=complete_path)
@click.argument("blobs", metavar="BLOB1[,BLOB2...]", callback=_names)
@click.argument("targets", metavar="DB1[,DB2...]", callback=_names)
@click.argument("num_mini_batches", metavar="NUM_MINI_BATCHES", type=click.IntRange(min=1))
@click.argument("db_type", metavar="DB_TYPE", type=click.Choice(["lmdb", "leveldb"]))
@click.argument("device", metavar="[CPU|GPU]", type=click.Choice(["CPU", "GPU"]), required=False)
@click.argument("device_id", metavar="[DEVICE_ID]", default="0", callback=_gpu)
@require_gpu_option("GPU and DEVICE_ID")
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
@graph_option
def command(
    weights: str,
    model: str,
    blobs: tuple[str, ...],
    targets: tuple[str, ...],
    num_mini_batches: int,
    db_type: str,
    device: str | None,
    device_id: GpuRequest,
    allow_missing_weights: bool,
    graph: tuple[str, ...] | None,
) -> None:
    """Extract blobs of a net to databases or .npz files.

    Runs the TEST phase of MODEL, a prototxt with a data layer. A target that ends in .npz receives one array, named
    after the blob; any other becomes a database of type DB_TYPE (lmdb or leveldb) with one record per image.
    """
    if len(blobs) != len(targets):
        what = f"{len(blobs)} and {len(targets)}"
        raise click.UsageError(f"the number of blob names and dataset names must be equal, not {what}")
    if device == "CPU" and device_id.required:
        raise click.UsageError("CPU and --require_gpu exclude each other")
    import numpy as np

    from ristretto_cli.datasets.features import extract_features
    from ristretto_cli.datasets.new_database import Backend
    from ristretto_cli.net.build import NetState
    from ristretto_cli.ops import show
    from ristretto_cli.scoring.execution import Execution
    from ristretto_cli.scoring.net_files import load_net

    log = logging.getLogger("ristretto")
    check_outputs([target for target in targets if target.endswith(".npz")], [model, weights])
    gpu = usable_gpu(device_id) if device == "GPU" or device_id.required else None
    log.info("%s", "Using CPU" if gpu is None else f"Using GPU\nUsing Device_id={gpu}")
    if device == "CPU" and device_id.number != 0:
        log.warning("DEVICE_ID=%s has no effect with CPU.", device_id.number)
    rng = np.random.default_rng(0)
    net = load_net(model, weights, NetState(), rng=rng, allow_missing=allow_missing_weights)
    pairs = list(zip(blobs, targets, strict=True))
    with progress("extract_features") as bar:
        shapes = extract_features(
            net,
            pairs,
            num_mini_batches,
            Backend(db_type),
            rng=rng,
            execution=Execution(gpu, graph_passes=graph),
            on_batch=bar.on_batch,
        )
    for (blob, target), shape in zip(pairs, shapes, strict=True):
        click.echo(f"{target}: {blob} {show(shape)}")
