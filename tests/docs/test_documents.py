"""The documents name commands, flags, files, headings and differences that exist."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Command, Context, Option, UsageError

from ristretto_cli.cli.main import Shell

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "docs", ROOT / "models")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
# Their command lines are templates: [--flag=value]...
WRITTEN_BY_HAND = [name for name in DOCUMENTS if not name.startswith("docs/reference/")]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands() -> dict[str, Command]:
    shell = Shell("ristretto_cli.cli")
    context = Context(shell)
    return {name: command for name in shell.list_commands(context) if (command := shell.get_command(context, name))}


def flags(command: Command) -> set[str]:
    options = [param for param in command.get_params(Context(command)) if isinstance(param, Option)]
    return {name for option in options for name in (*option.opts, *option.secondary_opts)} | {"--help"}


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of the ristretto command lines in code blocks; lines that end in a backslash are continued."""
    joined = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"^(?: {4}|\$ )ristretto (.*)$", joined, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)


def code_spans(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


@pytest.mark.parametrize("name", WRITTEN_BY_HAND)
def test_command_lines_parse(name: str, commands: dict[str, Command]) -> None:
    for command, *arguments in command_lines(read(name)):
        assert command in commands, f"{name}: ristretto {command}"
        try:
            commands[command].make_context(command, arguments)
        except UsageError as fault:
            pytest.fail(f"{name}: ristretto {command} {shlex.join(arguments)}\n{fault.format_message()}")


def test_examples_in_the_help_parse(commands: dict[str, Command]) -> None:
    examples = {name: command.epilog for name, command in commands.items() if command.epilog}
    assert "quantize" in examples
    for text in examples.values():
        lines = list(command_lines(re.sub("^  ", "    ", text, flags=re.MULTILINE)))
        assert len(lines) == text.count("  ristretto ")
        for command, *arguments in lines:
            commands[command].make_context(command, arguments)


def test_command_lines_are_found_in_both_kinds_of_code_blocks() -> None:
    text = "    ristretto test --a\n```console\n$ ristretto quantize --x 1 \\\n    --y 2\nristretto is output\n```\n"
    assert list(command_lines(text)) == [["test", "--a"], ["quantize", "--x", "1", "--y", "2"]]


@pytest.mark.parametrize("name", WRITTEN_BY_HAND)
def test_flags_in_the_prose_exist(name: str, commands: dict[str, Command]) -> None:
    everywhere = set().union(*map(flags, commands.values()))
    for span in code_spans(read(name)):
        first, *rest = span.removeprefix("ristretto ").split(" ")
        if not first.startswith("--") and first not in commands:
            continue
        known = everywhere if first.startswith("--") else flags(commands[first])
        named = {word.partition("=")[0] for word in [first, *rest] if word.startswith("--")}
        # Caffe and gflags: --flag in general, in templates.
        assert named - known - {"--flag", "--noflag"} == set(), f"{name}: `{span}`"


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them from its headings."""
    blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", blocks, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", read(name), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if "://" in target:
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.is_file(), f"{name}: {target}"
        if anchor:
            assert anchor in headings(path.read_text(encoding="utf-8")), f"{name}: {target}#{anchor}"


def test_the_readme_leads_to_every_document() -> None:
    found = [ROOT / "README.md"]
    for path in found:
        for target in re.findall(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            page = (path.parent / target).resolve()
            if page not in found:
                found.append(page)
    assert sorted(path.relative_to(ROOT).as_posix() for path in found) == DOCUMENTS


@pytest.mark.parametrize(("name", "lines"), [("README.md", 130), ("ARCHITECTURE.md", 150)])
def test_first_pages_stay_short(name: str, lines: int) -> None:
    assert len(read(name).splitlines()) <= lines


def test_the_differences_are_those_that_the_code_tags() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "ristretto_cli").rglob("*.py"))
    tagged = {tag for source in sources for tag in re.findall(r"DIFFERS\((D\d+)\)", source)}
    listed = re.findall(r"^\| (D\d+) \|", read("docs/differences.md"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(tagged)


def test_extras_to_install_exist() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    named = {
        extra
        for name in DOCUMENTS
        for extras in re.findall(r"'[\w.-]+\[([\w,]+)\]'", read(name))
        for extra in extras.split(",")
    }
    assert named
    assert named - set(setup["options.extras_require"]) == set()


def test_every_target_of_make_is_listed() -> None:
    targets = re.findall(r"^\.PHONY: (.*)$", read("Makefile"), flags=re.MULTILINE)
    listed = re.findall(r"^    make ([a-z-]+) +# ", read("CONTRIBUTING.md"), flags=re.MULTILINE)
    assert {*listed} == {target for line in targets for target in line.split()}


def test_decisions_are_numbered_and_have_three_parts() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        parts = re.findall(r"^## (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], path.name
