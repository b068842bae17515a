"""The report of a training."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ristretto_cli.net.ir import Net
from ristretto_cli.net.widths import widths_of
from ristretto_cli.reports.charts import chart
from ristretto_cli.reports.nets import NetCosts, costs_block, net_sections
from ristretto_cli.reports.report import Block, Commands, Facts, Figure, Figures, Report, Section, Table, Text
from ristretto_cli.scoring.scores import number
from ristretto_cli.train.curves import Curve, Curves
from ristretto_cli.train.plot import Panel, panels_of
from ristretto_cli.train.run import TrainConfig, TrainingResult

_MOST_ROWS = 40  # of the table of a curve


def training_report(config: TrainConfig, result: TrainingResult, curves: Curves | None, *, command: str) -> Report:
    """The report of a training. curves: of its log, None if there are none. command: the command line as typed."""
    net = result.net
    costs = None if net is None else NetCosts(net, [widths_of(layer) for layer in net.layers])
    quantized = costs is not None and any(each is not None for each in costs.widths)
    found = list(_found(result))
    return Report(
        f"Training by {Path(config.solver).name}",
        f"The net {net.name or Path(net.file).stem}{', quantized' if quantized else ''}." if net is not None else "",
        [
            Section("result", "Result", [*found, costs_block(costs)] if costs is not None and quantized else found),
            Section("request", "Request", _asked(config, net, command)),
            Section("curves", "Curves", _curves(curves)),
            *(net_sections(costs) if costs is not None else []),
            Section("next", "Next commands", [_next(config, result)]),
        ],
    )


def _found(result: TrainingResult) -> Iterator[Block]:
    if not result.finished:
        yield Text(f"The training was stopped early, after iteration {result.iteration}.", "bad")
    facts = [("iterations", str(result.iteration))]
    if result.loss is not None:
        facts.append(("loss, as last displayed", number(result.loss)))
    for i, outputs in enumerate(result.tests):
        net = f", test net {i}" if len(result.tests) > 1 else ""
        facts += [(f"{name}, last test{net}", ", ".join(map(number, means))) for name, means in outputs.items()]
    if result.model is not None and result.state is not None:
        facts += [("weights", result.model), ("state", result.state)]
    yield Facts(facts)


def _asked(config: TrainConfig, net: Net | None, command: str) -> list[Block]:
    facts = [
        ("solver", config.solver),
        ("net", net.file if net is not None else ""),
        ("initial weights", config.weights or ""),
        ("resumed from", config.snapshot or ""),
        ("activations", "quantized in training" if config.trim_activations else ""),
        ("rounding of weights", "to nearest" if config.round_to_nearest else ""),
    ]
    return [
        Commands([("The command of this report", command)]),
        Facts([(term, value) for term, value in facts if value]),
    ]


def _curves(curves: Curves | None) -> list[Block]:
    panels = [] if curves is None else [panel for panel in panels_of([curves], 1) if panel.lines]
    if not panels:
        return [Text("The log has no values to draw: the solver displays no losses, and nothing was tested.")]
    return [Figures([_figure(panel, i) for i, panel in enumerate(panels)])]


def _figure(panel: Panel, index: int) -> Figure:
    def draw(axes: Any) -> None:
        panel.draw(axes)
        axes.set_xlabel("iteration")

    names = ", ".join(label for label, _, _ in panel.lines)
    title = f"{panel.name[:1].upper()}{panel.name[1:]} over iterations: {names}"
    table = _table(panel, [(label, curve) for label, curve, _ in panel.lines])
    return Figure(title, chart(f"curve-{index}", title, draw), table)


def _table(panel: Panel, lines: Sequence[tuple[str, Curve]]) -> Table:
    """The values of a panel's curves; some of them, if there are many. The last ones are among them."""
    values = [dict(zip(curve.iterations.tolist(), curve.values.tolist(), strict=True)) for _, curve in lines]
    iterations = sorted(set().union(*values))
    step = -(-len(iterations) // _MOST_ROWS)
    sparse = set().union(*(each for each in values if len(each) <= _MOST_ROWS))  # tests, among many displayed values
    shown = sorted({*iterations[::-1][::step], *sparse})
    rows = [(str(at), *(number(each[at]) if at in each else "" for each in values)) for at in shown]
    columns = ("iteration", *(label for label, _ in lines))
    every = f", {len(shown)} of {len(iterations)} iterations" if step > 1 else ""
    return Table(f"{panel.name}{every}", columns, rows, frozenset(range(len(columns))))


def _next(config: TrainConfig, result: TrainingResult) -> Commands:
    commands = []
    model = _net_file(config, result.net)
    if result.state is not None and not result.finished:
        words = ["ristretto", "train", "--solver", config.solver, "--snapshot", result.state]
        commands.append(("Resume the training", words))
    if model is not None and result.model is not None:
        files = ["--model", model, "--weights", result.model]
        quantized = any(widths_of(layer) is not None for layer in result.net.layers) if result.net else False
        commands.append(("Score the trained weights", ["ristretto", "test", *files]))
        if not quantized:
            words = ["ristretto", "quantize", *files, "--trimming_mode", "dynamic_fixed_point"]
            commands.append(("Quantize the net", [*words, "--report", "quantization.html"]))
        output = f"{Path(model).with_suffix('')}.onnx"
        commands.append(
            ("Export it as an ONNX graph", ["ristretto", "export", "--format", "onnx", *files, "--output", output])
        )
    if not commands:
        commands.append(("Train again, with a snapshot at the end", ["ristretto", "train", "--solver", config.solver]))
    return Commands([(purpose, shlex.join(words)) for purpose, words in commands])


def _net_file(config: TrainConfig, net: Net | None) -> str | None:
    """The file of the trained net; None if it is part of the solver file."""
    return net.file if net is not None and net.file != config.solver else None
