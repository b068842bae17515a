"""Charts for reports, by matplotlib: SVG whose colours are the variables of the report's style sheet."""

from __future__ import annotations

import html
import importlib
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from ristretto_cli.reports.report import Svg

SERIES = 6  # colours of lines and points

# Each stands for a variable, and is replaced by it.
_VARIABLES = ("ink", "soft", "line", *(f"c{i + 1}" for i in range(SERIES)))
_COLOURS = {name: f"#00000{i + 1}" for i, name in enumerate(_VARIABLES)}
_COLOUR = re.compile(r"#00000([1-9])\b")
_WIDTH, _HEIGHT = 5.6, 3.4  # inches
_STYLE = {
    "svg.hashsalt": "ristretto",  # makes the files reproducible
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _COLOURS["soft"],
    "axes.labelcolor": _COLOURS["ink"],
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.6,
    "text.color": _COLOURS["ink"],
    "xtick.color": _COLOURS["soft"],
    "ytick.color": _COLOURS["soft"],
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_ROOT = re.compile(r"<svg\b[^>]*>")
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_STYLE_SHEET = re.compile(r"<style\b.*?</style>", re.DOTALL)
_IDS = re.compile(r'(\bid="|href="#|url\(#)')
_SIZE = re.compile(r'viewBox="([^"]*)"')


def colour(series: int) -> str:
    """The colour of a series of points, counted from 0."""
    return _COLOURS[f"c{series % SERIES + 1}"]


def quiet() -> str:
    """The colour of lines that are not a series."""
    return _COLOURS["soft"]


def emphasis() -> str:
    """The colour of marks on top of others."""
    return _COLOURS["ink"]


def chart(name: str, title: str, draw: Callable[[Any], None]) -> Svg:
    """A chart of one pair of axes, which `draw` fills.

    name: unique in the report, of letters and dashes. title: the alternative text.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    figures: Any = importlib.import_module("matplotlib.figure")  # unlike pyplot, needs no display
    cycler: Any = importlib.import_module("cycler").cycler
    style = {**_STYLE, "axes.prop_cycle": cycler(color=[colour(i) for i in range(SERIES)])}
    stream = io.StringIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        figure = figures.Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        draw(figure.subplots())
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return Svg(_inline(stream.getvalue(), name, title))


def plain_label(text: str) -> str:
    """A label without characters that matplotlib or SVG cannot have, not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    shown = shown if len(shown) <= 40 else f"{shown[:39]}…"
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib hides labels that begin with an underscore


def _inline(text: str, name: str, title: str) -> str:
    """An SVG file as an element of a page: without declarations, with ids of its own."""
    root = _ROOT.search(text)
    size = None if root is None else _SIZE.search(root[0])
    if root is None or size is None:
        raise ValueError("matplotlib wrote no svg element")
    body = _STYLE_SHEET.sub("", _METADATA.sub("", text[root.end() :])).replace("xlink:href", "href")
    body = _IDS.sub(rf"\g<1>{name}-", body)
    body = _COLOUR.sub(lambda found: f"var(--{_VARIABLES[int(found[1]) - 1]})", body)
    head = f'<svg viewBox="{size[1]}" role="img" aria-labelledby="{name}-alt" style="stroke-linejoin: round">'
    return f'{head}<title id="{name}-alt">{html.escape(title)}</title>{body.strip()}'
