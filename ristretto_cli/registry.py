"""The registry of plug-ins with one file each: layer types, number formats, data sources, exports."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from ristretto_cli.errors import RistrettoError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to entries; the modules of a package register theirs when they are imported.

    kind: the name of an entry in errors ("layer type"). package: the package whose modules hold
    the entries; its modules are imported at the first lookup.
    """

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._aliases: set[str] = set()
        self._loaded = False

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator: register an entry under a name and its aliases; a duplicate name is an error."""

        def file_entry(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise ValueError(f"{self._kind} {name} is registered twice")
                self._entries[name] = entry
            self._aliases.update(names[1:])
            return entry

        return file_entry

    def get(self, name: str) -> T:
        """The entry of that name; RistrettoError with the nearest known name if there is none."""
        self._load()
        if name not in self._entries:
            near = did_you_mean(name, self._entries)
            raise RistrettoError(
                f'{self._kind} "{name}" is not known', remedy=near or f"Known: {', '.join(self.names())}."
            )
        return self._entries[name]

    def names(self, *, aliases: bool = True) -> list[str]:
        """All known names, sorted; without aliases, one per entry."""
        self._load()
        return sorted(self._entries if aliases else self._entries.keys() - self._aliases)

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._loaded = True
