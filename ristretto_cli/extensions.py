"""Entry points, by which other packages extend ristretto: listed without importing anything, loaded one at a time."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ristretto_cli.errors import RistrettoError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

log = logging.getLogger("ristretto")

PREFIX = "ristretto."  # of the names of the groups


class ExtensionError(RistrettoError):
    """An extension that cannot be used; the line names its distribution and its entry point."""


@dataclass(frozen=True)
class Extension:
    """One entry point of an installed distribution."""

    distribution: str
    version: str
    point: EntryPoint

    def __str__(self) -> str:
        return f'{self.distribution} {self.version} (entry point "{self.point.name}" in {self.point.group})'

    @property
    def package(self) -> str:
        """The top-level package that the entry point refers to."""
        return self.point.value.partition(":")[0].strip().partition(".")[0]

    def load(self) -> Any:
        """The object that the entry point refers to; ExtensionError if importing it fails in any way."""
        try:
            return self.point.load()
        except (Exception, SystemExit) as fault:
            if os.environ.get("RISTRETTO_TRACEBACK") == "1":
                log.warning("%s", "".join(traceback.format_exception(fault)))
            stack = traceback.extract_tb(fault.__traceback__)
            frames = [frame for frame in stack if frame.filename != __file__ and "importlib" not in frame.filename]
            place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            raise self.error(f"cannot be loaded: {type(fault).__name__}: {fault}{place}") from fault

    def error(self, what: str, hint: str = "") -> ExtensionError:
        """An error about this entry point."""
        return ExtensionError(f"the extension {self} {what}", hint=hint or f"Update or uninstall {self.distribution}.")


def extensions(group: str) -> Mapping[str, tuple[Extension, ...]]:
    """The entry points of one group by name, sorted; several of one name are in the order of their distributions."""
    found: dict[str, list[Extension]] = {}
    for extension in sorted(_installed(), key=lambda each: (each.point.name, each.distribution, each.point.value)):
        if extension.point.group == group:
            found.setdefault(extension.point.name, []).append(extension)
    return {name: tuple(points) for name, points in found.items()}


def check_unique(kind: str, name: str, extensions: Iterable[Extension], *, built_in: bool) -> None:
    """ExtensionError if several extensions, or an extension and ristretto itself, have an entry of one name."""
    owners = [*(["ristretto-cli"] if built_in else []), *map(str, extensions)]
    if len(owners) > 1:
        what = f'{kind} "{name}" is registered twice: by {" and by ".join(owners)}'
        raise ExtensionError(what, hint="Uninstall one of these distributions, or rename the entry point.")


def at_fault(fault: BaseException) -> Extension | None:
    """The extension whose code the traceback of an exception passes through last; None if there is none."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(fault.__traceback__)]
    packages = {extension.package: extension for extension in _installed()}
    return next((packages[top] for name in reversed(modules) if (top := name.partition(".")[0]) in packages), None)


@cache
def _installed() -> tuple[Extension, ...]:
    if _none_is_listed():
        return ()
    from importlib.metadata import distributions

    found: dict[str, list[Extension]] = {}
    for distribution in distributions():
        ours = _points(distribution)
        if ours:
            # The first distribution of a name hides later ones on the path, as the first module does.
            name = distribution.metadata["Name"] or "an unnamed distribution"
            key = name.lower().replace("_", "-").replace(".", "-")
            found.setdefault(key, [Extension(name, distribution.version or "", point) for point in ours])
    return tuple(extension for points in found.values() for extension in points)


def _none_is_listed() -> bool:
    """Whether no distribution has entry points for ristretto, decided without importlib.metadata, which is slow to
    import; False if it is not certain."""
    if any(finder is not PathFinder and hasattr(finder, "find_distributions") for finder in sys.meta_path):
        return False
    try:
        return not any(f"[{PREFIX}".encode() in file.read_bytes() for file in _lists_of_entry_points())
    except OSError:
        return False


def _lists_of_entry_points() -> Iterator[Path]:
    """The entry_points.txt of all distributions on the path; OSError for an entry of the path that is no folder."""
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry)
        if not folder.exists():
            continue
        for name in os.listdir(folder):  # noqa: PTH208 - a thousand names, of which few are wanted
            place = {".dist-info": name, ".egg-info": name, ".egg": f"{name}/EGG-INFO"}.get(Path(name).suffix.lower())
            if place and (file := folder / place / "entry_points.txt").exists():
                yield file


def _points(distribution: Distribution) -> list[EntryPoint]:
    """A distribution's entry points for ristretto; none, with a warning, if its list of them is malformed."""
    try:
        return [point for point in distribution.entry_points if point.group.startswith(PREFIX)]
    except Exception as fault:
        # Every distribution on the path is looked at; those that have nothing to do with ristretto do not matter.
        if f"[{PREFIX}" in (distribution.read_text("entry_points.txt") or ""):
            log.warning(
                "The extensions of %s are ignored: its entry_points.txt cannot be read (%s). Reinstall it.",
                distribution.metadata["Name"],
                fault,
            )
        return []
