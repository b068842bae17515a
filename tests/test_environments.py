"""The scripts that find the Pythons to test on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ensurepip", reason="this Python cannot make virtual environments")

CI = Path(__file__).resolve().parents[1] / ".ci"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def find_python(*versions: str, path: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYENV")}
    environment = {**inherited, "PATH": os.pathsep.join([*map(str, path), "/usr/bin", "/bin"])}
    command = [CI / "find-python", *versions]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_python_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "shims" / f"python{VERSION}", "echo not chosen >&2; exit 127")
    script(tmp_path / "real" / f"python{VERSION}", f"exec '{sys.executable}' \"$@\"")
    done = find_python(VERSION, path=(tmp_path / "shims", tmp_path / "real"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.executable}\n", "")


def test_a_python_of_another_version_than_its_name_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "python3.99", f"exec '{sys.executable}' \"$@\"")
    done = find_python("3.99", path=(tmp_path,))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "none of these Pythons is on PATH and works: 3.99\n"


def test_the_first_version_that_is_there_is_taken(tmp_path: Path) -> None:
    script(tmp_path / f"python{VERSION}", f"exec '{sys.executable}' \"$@\"")
    assert find_python("3.99", VERSION, path=(tmp_path,)).stdout == f"{sys.executable}\n"


def test_the_tests_run_on_each_python_and_all_results_are_shown_at_the_end(tmp_path: Path) -> None:
    script(tmp_path / "make", 'case "$*" in *VENV=there/*) echo "ran $1 $3 $4"; exit "$FAILS";; *) exit 99;; esac')
    script(tmp_path / f"python{VERSION}", f"exec '{sys.executable}' \"$@\"")
    for fails, result in (("0", "passed"), ("1", "FAILED")):
        environment = {**os.environ, "MAKE": str(tmp_path / "make"), "VENVS": "there", "FAILS": fails}
        environment["PATH"] = os.pathsep.join([str(tmp_path), "/usr/bin", "/bin"])
        done = subprocess.run(
            [CI / "test-pythons", "3.99", VERSION], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (int(fails), "")
        assert done.stdout.splitlines() == [
            f"ran test VENV=there/python{VERSION} EXTRAS=plot,report,test",
            "Python 3.99: not on PATH, not tested",
            f"Python {VERSION}: {result}",
        ]
