"""Reports: HTML pages of sections, which need no other file and no network."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ristretto_cli import __version__
from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.errors import RistrettoError

_LIBRARIES = ("jinja2", "matplotlib")
_SHORT_NAME = 16  # characters
_BREAKS = re.compile(r"[/_.-](?=.)")
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\t\n"}


@dataclass(frozen=True)
class Svg:
    """A drawing: trusted markup, in which all text is escaped."""

    markup: str


@dataclass(frozen=True)
class Bar:
    """A table cell with a bar under its text. share: its length, from 0 to 1."""

    text: str
    share: float


Cell = str | Bar | Svg


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: "good" or "bad" for a verdict."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """Terms with their values."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table. head: the column whose cells are the headers of their rows. numeric: the right-aligned columns."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    head: int = 0


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption, and a table of the numbers in it."""

    kind: ClassVar[str] = "figure"
    caption: str
    svg: Svg
    table: Table


@dataclass(frozen=True)
class Figures:
    """Figures side by side, if there is room."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Commands:
    """Commands to type, each with its purpose."""

    kind: ClassVar[str] = "commands"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Lines:
    """Preformatted lines that are shown on request. title: the text to select for it."""

    kind: ClassVar[str] = "lines"
    title: str
    lines: Sequence[str]


Block = Text | Facts | Table | Figures | Commands | Lines


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading. name: unique in the report, of letters and dashes."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A report. lead: a sentence under its title."""

    title: str
    lead: str
    sections: Sequence[Section]


def require_libraries() -> None:
    """RistrettoError if a library that reports need is missing."""
    missing = []
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise RistrettoError(f"--report needs {' and '.join(missing)}: pip install 'ristretto-cli[report]'")


def write_report(path: str, report: Report) -> None:
    """Write a report as HTML, atomically. RistrettoError if the file cannot be written."""
    # Names may have bytes that are not UTF-8, which Python keeps as lone surrogates.
    write_atomically(path, as_html(report).encode("utf-8", "backslashreplace"))


def as_html(report: Report) -> str:
    """A report as HTML, with all text escaped."""
    jinja2: Any = importlib.import_module("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    markupsafe: Any = importlib.import_module("markupsafe")
    environment.filters["trusted"] = lambda svg: markupsafe.Markup(svg.markup)
    environment.filters["breakable"] = lambda text: markupsafe.Markup(
        _breakable(text, str(markupsafe.escape(_printable(text))))
    )
    return str(environment.get_template("report.html").render(report=report, version=__version__)).lstrip()


def _printable(value: Any) -> Any:
    """Text from outside with its control characters escaped; HTML cannot have them."""
    return value.translate(_CONTROLS) if type(value) is str else value


def _breakable(text: str, escaped: str) -> str:
    """A long name, such as that of a layer, with marks where a line may break."""
    return escaped if len(text) <= _SHORT_NAME else _BREAKS.sub(r"\g<0><wbr>", escaped)
