"""Fold BatchNorm, Scale and BN layers into convolutions and inner products."""

from __future__ import annotations

from pathlib import Path

import click

from ristretto_cli.cli.flags import check_outputs, net_options, print_result, state_options
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.net_flags import input_shape_option

_EXAMPLES = """\b
Examples:
  ristretto fold --model train_val.prototxt --weights x.caffemodel \\
    --model_folded folded.prototxt --weights_folded folded.caffemodel"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@net_options
@option("--model_folded", "The net to write. Default: folded.prototxt in the model's folder.", unit="file")
@option(
    "--weights_folded",
    "The weights to write, .caffemodel or .h5. Default: as --model_folded, ending in .caffemodel.",
    unit="file",
)
@state_options
@input_shape_option
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
def command(
    model: str,
    weights: str,
    model_folded: str | None,
    weights_folded: str | None,
    level: int,
    stage: tuple[str, ...],
    input_shape: dict[str, tuple[int, ...]],
    allow_missing_weights: bool,
) -> None:
    """Fold BatchNorm, Scale and BN layers into convolutions and inner products.

    Writes a net that computes the same with fewer layers, and its weights. Each layer that cannot be folded stays, and
    is listed with the reason. Needs no data: without a database, crop_size, mean_file or --input_shape gives the shape.
    """
    import numpy as np

    from ristretto_cli.analysis.nets_without_data import build_without_data
    from ristretto_cli.caffe_io.files import write_atomically
    from ristretto_cli.caffe_io.messages import TEST
    from ristretto_cli.caffe_io.net_file import read_net
    from ristretto_cli.caffe_io.printer import to_text
    from ristretto_cli.caffe_io.weights import read_weights
    from ristretto_cli.net.build import NetState
    from ristretto_cli.net.weights import load_weights
    from ristretto_cli.quantize.fold import fold_net
    from ristretto_cli.quantize.header import folded_header

    target = model_folded or str(Path(model).parent / "folded.prototxt")
    weights_target = weights_folded or str(Path(target).with_suffix(".caffemodel"))
    check_outputs([target, weights_target], [model, weights])
    net_file, stored, state = read_net(model), read_weights(weights), NetState(TEST, level, stage)
    net = build_without_data(net_file, state, input_shape).net
    net = load_weights(net, stored, rng=np.random.default_rng(0), allow_missing=allow_missing_weights)
    folded = fold_net(net_file, net, stored, state)
    # The weights first, so that a written prototxt never names weights that are missing.
    folded.write_weights(weights_target)
    write_atomically(target, folded_header(target, weights_target) + to_text(folded.net_file.message))
    print_result([*folded.lines(), f"Written to {target} and {weights_target}"])
