"""Packages that extend ristretto, made visible as pip would, without pip: a folder with dist-info on the path."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import ristretto_cli

EXAMPLE = Path(__file__).parent / "example_package"


class Site:
    """A folder of installed packages, and the command line that sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def path(self) -> str:
        """What PYTHONPATH must be for the code of this checkout and the folder."""
        return os.pathsep.join([str(Path(ristretto_cli.__file__).parents[1]), str(self.folder)])

    def install(
        self, name: str, points: Mapping[str, Mapping[str, str]], files: Mapping[str, str], version: str = "1.0"
    ) -> None:
        """A distribution: its entry points by group, and its files."""
        for path, text in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text, encoding="utf-8")
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            line
            for group, entries in points.items()
            for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    def install_example(self) -> None:
        """The example package, with the entry points that its pyproject.toml has."""
        # tomllib is not in Python 3.10; of TOML the file has little but tables of quoted strings.
        project = configparser.ConfigParser(delimiters=["="])
        project.optionxform = str  # type: ignore[assignment,method-assign]
        project.read(EXAMPLE / "pyproject.toml", encoding="utf-8")
        points = {
            section.removeprefix("project.entry-points.").strip('"'): {
                key.strip('"'): value.strip('"') for key, value in project[section].items()
            }
            for section in project.sections()
            if section.startswith("project.entry-points.")
        }
        files = EXAMPLE / "ristretto_example"
        shutil.copytree(files, self.folder / files.name, ignore=shutil.ignore_patterns("__pycache__"))
        self.install(project["project"]["name"].strip('"'), points, {})

    def ristretto(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the current folder."""
        return subprocess.run(
            [sys.executable, "-m", "ristretto_cli", *args],
            env={**os.environ, "PYTHONPATH": self.path, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty folder of packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def run(site: Site) -> Callable[..., str]:
    """Runs a command line that must succeed, with the example installed, and gives its stdout."""
    site.install_example()

    def run(*args: str) -> str:
        done = site.ristretto(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
