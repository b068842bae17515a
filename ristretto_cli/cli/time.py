"""Time a net, layer by layer and as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ristretto_cli.cli.flags import gpu_option, graph_option, print_result, state_options, threads_option, usable_gpu
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.net_flags import Words, input_shape_option
from ristretto_cli.cli.progress import progress

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest


_EXAMPLES = """\b
Examples:
  ristretto time --model deploy.prototxt --iterations 20"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@option("--model", "The net's definition, a prototxt.", unit="file", required=True)
@option("--weights", "The weights, files separated by commas. Default: initialized by the net's fillers.", unit="files")
@option("--iterations", "Number of forward passes.", type=click.IntRange(min=1), default=50)
@option("--phase", "The net's phase, as in caffe time.", type=Words(["TRAIN", "TEST"]), default="TRAIN")
@state_options
@input_shape_option
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
@gpu_option
@threads_option
@graph_option
def command(
    model: str,
    weights: str | None,
    iterations: int,
    phase: str,
    level: int,
    stage: tuple[str, ...],
    input_shape: dict[str, tuple[int, ...]],
    allow_missing_weights: bool,
    gpu: GpuRequest,
    threads: int,
    graph: tuple[str, ...] | None,
) -> None:
    """Time a net, layer by layer and as a whole.

    Times forward passes, run as by the test command. Inputs without data, or with a shape from --input_shape, are all
    zeros. Layer times are kernel times from additional, slightly slower passes under onnxruntime's profiler.
    """
    import numpy as np

    from ristretto_cli.analysis.nets_without_data import build_without_data
    from ristretto_cli.analysis.timing import time_net, timing_lines
    from ristretto_cli.caffe_io.messages import TEST, TRAIN
    from ristretto_cli.caffe_io.net_file import read_net
    from ristretto_cli.caffe_io.weights import read_weight_files
    from ristretto_cli.net.build import NetState
    from ristretto_cli.net.weights import fill_weights, load_weights
    from ristretto_cli.scoring.engine import log_device
    from ristretto_cli.scoring.execution import Execution

    device = usable_gpu(gpu)
    log_device(device)
    state = NetState({"TRAIN": TRAIN, "TEST": TEST}[phase], level, stage)
    known = build_without_data(read_net(model), state, input_shape)
    rng = np.random.default_rng(0)
    if weights is None:
        net = fill_weights(known.net, rng=rng)
    else:
        net = load_weights(known.net, read_weight_files(weights), rng=rng, allow_missing=allow_missing_weights)
    execution = Execution(device, threads, graph)
    with progress("time") as bar:
        timing = time_net(net, iterations, without_data=known.notes, rng=rng, execution=execution, on_run=bar.on_batch)
    print_result(timing_lines(timing))
