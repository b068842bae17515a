"""The session in the README prints what the README shows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import copy_writable

ROOT = Path(__file__).resolve().parents[2]


def session() -> list[tuple[list[str], str]]:
    """The command lines of the README's console session, each with its output."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert match
    steps = re.split(r"^\$ ", match[1].replace("\\\n", ""), flags=re.MULTILINE)[1:]
    return [(shlex.split(line), output) for line, _, output in (step.partition("\n") for step in steps)]


def test_the_quick_start_prints_what_the_readme_shows(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    copy_writable(
        ROOT / "models" / "digits", folder, ignore=shutil.ignore_patterns("*_lmdb", "quantized.prototxt", "*_iter_*")
    )
    programs = {"python": [sys.executable], "ristretto": [sys.executable, "-m", "ristretto_cli"]}
    ran = []
    for (program, *arguments), shown in session():
        if program not in programs:  # pip and cd
            continue
        done = subprocess.run(
            [*programs[program], *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert words(done.stdout) == words(shown), done.stdout
        ran.append(program)
    assert ran == ["python", "ristretto", "ristretto"]


def words(text: str) -> list[object]:
    """Words and numbers: the last digits of a loss depend on the processor, and white space on tabs."""
    return [
        pytest.approx(float(word), rel=1e-3) if re.fullmatch(r"\d+\.\d+", word) else word
        for word in text.replace(",", " ").split()
    ]
