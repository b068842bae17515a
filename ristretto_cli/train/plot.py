"""Plots of training curves, by matplotlib."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ristretto_cli.caffe_io.files import atomic_write
from ristretto_cli.errors import RistrettoError
from ristretto_cli.train.curves import Curve, Curves

ENDINGS = (".png", ".svg")

_WIDTH, _PANEL_HEIGHT, _DPI = 9.0, 3.2, 120
_MAX_IN_LEGEND = 24
_MAX_NAME_LENGTH = 60
# Makes the files reproducible.
_STYLE = {"svg.hashsalt": "ristretto", "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3, "font.size": 9}
_METADATA: Mapping[str, Mapping[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def draw(logs: Sequence[Curves], path: str, *, smooth: int = 1) -> None:
    """Plot the curves of one or several logs over their iterations, in panels: losses, other outputs, learning rate.

    smooth: curves of train nets are means over so many displayed values. path ends in one of ENDINGS. RistrettoError if
    matplotlib is missing or the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in _METADATA:
        raise RistrettoError(f"unsupported format: the name must end in {' or '.join(ENDINGS)}", where=path)
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        figures: Any = importlib.import_module("matplotlib.figure")  # unlike pyplot, needs no display
    except ImportError:
        raise RistrettoError("drawing needs matplotlib: pip install 'ristretto-cli[plot]'") from None

    panels = [panel for panel in panels_of(logs, smooth) if panel.lines]
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        figure = figures.Figure(figsize=(_WIDTH, _PANEL_HEIGHT * len(panels)), dpi=_DPI, layout="constrained")
        all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(all_axes, panels, strict=True):
            panel.draw(axes)
        all_axes[-1].set_xlabel("iteration")
        with atomic_write(path) as target, target.open("wb") as stream:
            figure.savefig(stream, format=ending[1:], metadata=dict(_METADATA[ending]))


class Panel:
    """One pair of axes: its name, and its lines as (label, curve, dashed)."""

    def __init__(self, name: str, *, log_scale: bool = False) -> None:
        self.name = name
        self.log_scale = log_scale
        self.lines: list[tuple[str, Curve, bool]] = []

    def add(self, label: str, curve: Curve, *, dashed: bool = False) -> None:
        """Add a line."""
        self.lines.append((label, curve, dashed))

    def draw(self, axes: Any) -> None:
        """Draw the lines on matplotlib's axes."""
        handles = []
        for i, (_, curve, dashed) in enumerate(self.lines):
            # One or two points give no visible line.
            marker = "o" if len(curve.values) < 3 else None
            style = {"color": f"C{i % 10}", "linestyle": "--" if dashed else "-", "linewidth": 1.3}
            handles += axes.plot(curve.iterations, curve.values, marker=marker, markersize=3, **style)
        axes.set_ylabel(self.name)
        if self.log_scale and all((curve.values > 0).all() for _, curve, _ in self.lines):
            axes.set_yscale("log")
        labels = [_plain(label) for label, _, _ in self.lines]
        legend = axes.legend(handles[:_MAX_IN_LEGEND], labels[:_MAX_IN_LEGEND], fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)


def panels_of(logs: Sequence[Curves], smooth: int) -> list[Panel]:
    """The panels of some logs: losses, other outputs, learning rate; some may be empty. smooth: as for draw."""
    losses, others, rates = Panel("loss"), Panel("outputs"), Panel("learning rate", log_scale=True)
    names = _names(logs)
    for log, name in zip(logs, names, strict=True):
        if log.loss is not None:
            losses.add(f"{name}train loss", log.loss.smoothed(smooth))
        for output, curve in log.test.items():
            panel = losses if curve.is_loss else others
            panel.add(f"{name}test {output}", curve, dashed=curve.is_loss)
        for output, curve in log.train.items():
            # If the train net has a single loss, it is the displayed loss without smoothing.
            if not curve.is_loss:
                others.add(f"{name}train {output}", curve.smoothed(smooth))
            elif log.loss is None or sum(other.is_loss for other in log.train.values()) > 1:
                losses.add(f"{name}train {output}", curve.smoothed(smooth))
        if log.rate is not None:
            rates.add(f"{name}lr", log.rate)
    return [losses, others, rates]


def _names(logs: Sequence[Curves]) -> list[str]:
    """The prefixes of the logs' labels: empty for a single log, otherwise the name of the file or its path."""
    if len(logs) == 1:
        return [""]
    short = [Path(log.file).name for log in logs]
    files = short if len(set(short)) == len(short) else [log.file for log in logs]
    return [f"{file}: " for file in files]


def _plain(label: str) -> str:
    """A label of printable characters, not too long; matplotlib hides labels that begin with an underscore."""
    text = "".join(c if c.isprintable() else "?" for c in label)
    text = text if len(text) <= _MAX_NAME_LENGTH else f"{text[: _MAX_NAME_LENGTH - 1]}…"
    return f" {text}" if text.startswith("_") else text
