"""The README says what is there."""

from __future__ import annotations

import re
from pathlib import Path

from click import Context, Group

from ristretto_cli.cli.main import Shell
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.sources.source import SOURCES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "ristretto_cli"


def test_the_map_has_one_line_for_each_file_of_the_package() -> None:
    listed = re.findall(r"^\| `([a-z0-9_/]+\.py)` \|", README, flags=re.MULTILINE)
    there = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.read_text(encoding="utf-8").strip()
    }
    assert sorted(listed) == sorted(there)


def test_every_layer_type_is_named() -> None:
    assert [name for name in [*LAYERS.names(), *SOURCES.names()] if not re.search(rf"\b{name}\b", README)] == []


def test_every_command_has_a_row() -> None:
    shell: Group = Shell("ristretto_cli.cli")
    assert [name for name in shell.list_commands(Context(shell)) if f"| `{name}` |" not in README] == []


def test_every_difference_that_the_code_tags_is_told() -> None:
    decisions = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    tags = {
        tag
        for path in PACKAGE.rglob("*.py")
        for tag in re.findall(r"DIFFERS\((D\d+)\)", path.read_text(encoding="utf-8"))
    }
    assert tags
    assert [tag for tag in sorted(tags) if f"| {tag} |" not in decisions] == []


def test_every_target_of_make_is_listed() -> None:
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = re.findall(r"^    make ([a-z-]+) +# ", README, flags=re.MULTILINE)
    assert {*listed} == {target for line in targets for target in line.split()}
