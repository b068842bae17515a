"""The generated references are those of the present code."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ristretto_cli.exports.exporter import EXPORTS
from ristretto_cli.formats.number_format import MODES
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.sources.source import SOURCES

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generated() -> Mapping[str, str]:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    documents: Mapping[str, str] = module.documents()
    return documents


def test_generated_documents_are_up_to_date(generated: Mapping[str, str]) -> None:
    old = [name for name, text in generated.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert old == [], "run `make docs`, and commit what it changes in docs/"


def test_every_reference_is_generated(generated: Mapping[str, str]) -> None:
    there = {f"reference/{path.name}" for path in (DOCS / "reference").iterdir()}
    assert there == {name for name in generated if name.startswith("reference/")}


@pytest.mark.parametrize(
    ("page", "row", "names"),
    [
        ("layers", r"^\| `(\w+)` \|", LAYERS.names()),
        ("sources", r"^\| `(\w+)` \|", SOURCES.names()),
        ("formats", r"^\| `(\w+)` \|", MODES.names(aliases=False)),
        ("exports", r"^## (\w+)$", EXPORTS.names()),
    ],
)
def test_references_list_what_is_registered(page: str, row: str, names: Sequence[str]) -> None:
    text = (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert re.findall(row, text, flags=re.MULTILINE) == names
