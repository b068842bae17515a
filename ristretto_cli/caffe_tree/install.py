"""Installation of the programs and of the example in a folder, where a built tree of Caffe has them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.errors import RistrettoError

# The programs of Caffe's and Ristretto's tools folder; each also has the name with .bin, as make builds them.
_GROUPS = ("caffe", "ristretto")  # their first argument is the command
_TOOLS = (
    *_GROUPS,
    "compute_image_mean",
    "convert_imageset",
    "extract_features",
    "upgrade_net_proto_binary",
    "upgrade_net_proto_text",
    "upgrade_solver_proto_text",
)
_EXAMPLES = {"mnist": "convert_mnist_data", "cifar10": "convert_cifar_data"}
_BUILD, _RELEASE = "build", ".build_release"  # make's folder and the link to it
_MARK = b"ristretto_cli"  # in the text of every program of ours
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Installed:
    """The paths that were written, and the files that were there already and are kept, relative to the folder."""

    programs: tuple[str, ...]
    files: tuple[str, ...]
    kept: tuple[str, ...]


def install(folder: str) -> Installed:
    """Install programs and files in a folder, which is created if it is missing.

    Programs are links to the `ristretto` command, or short scripts if it is not installed as one. Earlier ones are
    replaced; other files are kept. RistrettoError, before anything is written, if a program's name is taken by another
    program, as by Caffe's own.
    """
    root = Path(folder)
    try:
        return _install(root)
    except OSError as fault:
        where = os.fsdecode(fault.filename) if fault.filename else folder
        raise RistrettoError(f"it cannot be written: {fault.strerror or fault}", where=where) from None


def _install(root: Path) -> Installed:
    programs = dict(_programs(root))
    taken = [str(path) for path in programs if not _is_ours(path)]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise RistrettoError(
            f"another program has this name{more}", where=taken[0], hint="Choose another folder, or remove it."
        )
    command = _command()
    for path, arguments in programs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_program(path, command, arguments)
    release = root / _RELEASE
    if not release.exists() and not release.is_symlink():
        release.symlink_to(_BUILD)
    files, kept = [], []
    for source, target in _files(root):
        if target.exists():
            kept.append(str(target.relative_to(root)))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, source.read_bytes())
        if target.suffix == ".sh":
            target.chmod(target.stat().st_mode | 0o111)
        files.append(str(target.relative_to(root)))
    return Installed(tuple(str(path.relative_to(root)) for path in programs), tuple(files), tuple(kept))


def _programs(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The programs' paths, each with the arguments that it stands for."""
    builds = [root / _BUILD]
    release = root / _RELEASE
    if release.is_dir() and release.resolve() != builds[0].resolve():
        builds.append(release)
    for build in builds:
        for tool in _TOOLS:
            arguments = () if tool in _GROUPS else (tool,)
            yield build / "tools" / tool, arguments
            yield build / "tools" / f"{tool}.bin", arguments
    for example, tool in _EXAMPLES.items():
        for build in builds:
            yield build / "examples" / example / tool, (tool,)
            yield build / "examples" / example / f"{tool}.bin", (tool,)
        yield root / "examples" / example / f"{tool}.bin", (tool,)


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    """The files of the example, and where they go."""
    here = Path(__file__).parent
    for folder in ("examples", "models"):
        for source in sorted((here / folder).rglob("*.*")):
            if source.is_file():
                yield source, root / source.relative_to(here)


def _is_ours(path: Path) -> bool:
    """Whether a path is free, or has a program of ours or a link to nothing."""
    if not path.exists():
        return True
    return path.is_file() and _has_mark(path)


def _has_mark(path: Path) -> bool:
    with path.open("rb") as stream:
        return _MARK in stream.read(_HEAD_BYTES)


def _command() -> Path | None:
    """The `ristretto` command of this installation, None if there is none (`python -m ristretto_cli`).

    Other programs have this name, too, such as an image viewer.
    """
    for path in (Path(sys.argv[0]), Path(sys.executable).parent / "ristretto"):
        found = path.resolve()
        if found.name in _GROUPS and os.access(found, os.X_OK) and found.is_file() and _has_mark(found):
            return found
    return None


def _write_program(path: Path, command: Path | None, arguments: tuple[str, ...]) -> None:
    path.unlink(missing_ok=True)
    if command is not None:
        path.symlink_to(command)
        return
    words = shlex.join([sys.executable, "-m", "ristretto_cli", *arguments])
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
