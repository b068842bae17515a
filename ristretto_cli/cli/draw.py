"""Draw a net as a graph."""

from __future__ import annotations

import click

from ristretto_cli.cli.flags import check_outputs
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.net_flags import Words

_EXAMPLES = """\b
Examples:
  ristretto draw --model train_val.prototxt --output net.svg"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@option("--model", "The net's definition, a prototxt.", unit="file", required=True)
@option(
    "--output",
    "The file to write: an image rendered by graphviz if it ends in .svg, .png or .pdf, otherwise dot source. "
    "Default: dot source on stdout.",
    unit="file",
)
@option("--rankdir", "Direction of the graph.", type=Words(["LR", "RL", "TB", "BT"]), default="LR")
@option("--phase", "Which layers to draw.", type=Words(["TRAIN", "TEST", "ALL"]), default="ALL")
def command(model: str, output: str | None, rankdir: str, phase: str) -> None:
    """Draw a net as a graph.

    Needs neither weights nor data.
    """
    from ristretto_cli.analysis.drawing import Direction, dot_text
    from ristretto_cli.analysis.graphviz import write_drawing
    from ristretto_cli.caffe_io.messages import TEST, TRAIN
    from ristretto_cli.caffe_io.net_file import read_net
    from ristretto_cli.net.build import NetState, included

    check_outputs([output], [model])
    net = read_net(model)
    phases = {"TRAIN": TRAIN, "TEST": TEST}
    layers = net.message.layer
    if phase in phases:
        layers = [message for message, _ in included(net, NetState(phases[phase]))]
    text = dot_text(net.message.name, layers, Direction(rankdir))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_drawing(output, text)
