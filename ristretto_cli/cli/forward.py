"""Run one pass and write every blob."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ristretto_cli.cli.flag_rules import Excludes
from ristretto_cli.cli.flags import (
    check_outputs,
    gpu_option,
    graph_option,
    phase_option,
    state_options,
    threads_option,
    usable_gpu,
)
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.integer_flags import ARITHMETIC_RULES, arithmetic_options, integer_compiler
from ristretto_cli.cli.net_flags import other_input_shape_option

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest


_EXAMPLES = """\b
Examples:
  ristretto forward --model deploy.prototxt --weights x.caffemodel \\
    --input in.npz --output blobs.npz"""


@click.command(
    cls=GflagsCommand,
    epilog=_EXAMPLES,
    rules=[Excludes("--backward", "--arithmetic", "--backward runs in float"), *ARITHMETIC_RULES],
)
@option("--model", "The net's definition, a prototxt.", unit="file", required=True)
@option("--weights", "The weights, files separated by commas. Default: initialized by the net's fillers.", unit="files")
@option(
    "--input",
    "Arrays for Input and MemoryData layers, by blob name; arrays for other data layers replace their data.",
    unit="npz",
)
@other_input_shape_option
@option("--output", "The file to write the blobs to.", unit="npz", required=True)
@phase_option
@state_options
@option("--blobs", "Write only these blobs.", unit="blob,blob...", default="")
@option(
    "--backward",
    "Also run the backward pass, with torch, and write gradients: diff:blob and pdiff:layer/i.",
    is_flag=True,
)
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
@arithmetic_options
@gpu_option
@threads_option
@graph_option
@option("--seed", "Seed of the random number generator.", type=click.IntRange(min=0), default=0)
def command(
    model: str,
    weights: str | None,
    input: str | None,
    input_shape: dict[str, tuple[int, ...]],
    output: str,
    phase: int,
    level: int,
    stage: tuple[str, ...],
    blobs: str,
    backward: bool,
    allow_missing_weights: bool,
    arithmetic: str,
    rounding: str,
    affine_bits: int,
    gpu: GpuRequest,
    threads: int,
    graph: tuple[str, ...] | None,
    seed: int,
) -> None:
    """Run one pass and write every blob."""
    if backward and click.get_current_context().get_parameter_source("graph") is not ParameterSource.DEFAULT:
        raise click.UsageError("--graph applies to onnxruntime; --backward runs on torch")
    import numpy as np

    from ristretto_cli.backends.device_choice import choose_gpu
    from ristretto_cli.caffe_io.npz import read_npz, write_npz
    from ristretto_cli.net.build import NetState
    from ristretto_cli.ops import show
    from ristretto_cli.scoring.all_blobs import OnePass
    from ristretto_cli.scoring.data_loader import DataLoader
    from ristretto_cli.scoring.engine import log_device
    from ristretto_cli.scoring.execution import Execution
    from ristretto_cli.scoring.net_files import load_net

    check_outputs([output], [model, *(weights or "").split(","), input])
    if backward:
        from ristretto_cli.train.torch_import import probe

        device = choose_gpu(gpu, probe)
    else:
        device = usable_gpu(gpu)
    if device is not None:
        log_device(device)
    rng = np.random.default_rng(seed)
    state = NetState(phase, level, stage)
    net = load_net(model, weights, state, rng=rng, allow_missing=allow_missing_weights, input_shapes=input_shape)
    given = read_npz(input) if input is not None else {}
    names = tuple(name for name in blobs.split(",") if name)
    with DataLoader(net, given=given, seed=seed) as feeds:
        if backward:
            from ristretto_cli.train.backward_pass import Gradients

            results = Gradients(net, rng=rng, blobs=names, gpu=device, threads=threads).run(feeds.next())
        else:
            execution = Execution(device, threads, graph)
            compiler = integer_compiler(arithmetic, rounding, affine_bits)
            one_pass = OnePass if compiler is None else compiler.one_pass
            results = one_pass(net, rng=rng, blobs=names, execution=execution).run(feeds.next())
    write_npz(output, results)
    for key, array in results.items():
        click.echo(f"{key}: {show(array.shape)}")
