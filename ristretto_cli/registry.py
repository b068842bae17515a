"""The registry of plug-ins with one file each: layer types, number formats, data sources, exports."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.extensions import Extension, ExtensionError, check_unique, extensions

log = logging.getLogger("ristretto")

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to entries; the modules of a package register theirs when they are imported.

    kind: the name of an entry in errors ("layer type"). package: the package whose modules hold
    the entries; it is imported, module by module, at the first look-up. group: the entry points by which other
    packages add entries. Such an entry point has the name of its entry, and is loaded when that name is looked up.
    """

    def __init__(self, kind: str, package: str, group: str = "") -> None:
        self._kind = kind
        self._package = package
        self._group = group
        self._entries: dict[str, T] = {}
        self._aliases: set[str] = set()
        self._loaded = False
        self._unusable: dict[str, ExtensionError] = {}
        self._warned: set[str] = set()

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator: register an entry under a name and its aliases; a duplicate name is an error."""

        def file_entry(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    owners = f"{_module(self._entries[name])} and by {_module(entry)}"
                    raise ValueError(f"{self._kind} {name} is registered twice: by {owners}")
                self._entries[name] = entry
            self._aliases.update(names[1:])
            return entry

        return file_entry

    def get(self, name: str) -> T:
        """The entry of that name; RistrettoError with the nearest known name if there is none.

        ExtensionError if the name is an extension's that cannot be loaded, or has several owners.
        """
        self._load()
        if name in self._extensions:
            self._load_extension(name)
        if name not in self._entries:
            near = did_you_mean(name, self._names())
            raise RistrettoError(f'unknown {self._kind} "{name}"', hint=near or f"Known: {', '.join(self.names())}.")
        return self._entries[name]

    def names(self, *, aliases: bool = True) -> list[str]:
        """All known names, sorted; without aliases, one per entry."""
        self._load()
        return sorted(self._names() if aliases else self._names() - self._aliases)

    def registered(self, *, load: bool = True) -> Mapping[str, T]:
        """The built-in entries and the extensions in use, by name, sorted, without aliases.

        load: import the built-in ones first; without it, the result is what has been registered so far.
        """
        if load:
            self._load()
        return {name: self._entries[name] for name in sorted(self._entries.keys() - self._aliases)}

    def usable(self) -> Mapping[str, T]:
        """All entries by name, sorted, without aliases. Extensions that cannot be loaded are left out, with a warning
        for the first time."""
        self._load()
        for name in self._extensions:
            try:
                self._load_extension(name)
            except ExtensionError as error:
                if name not in self._warned:
                    log.warning("%s", error)
                self._warned.add(name)
        return self.registered()

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._names()

    @cached_property
    def _extensions(self) -> Mapping[str, tuple[Extension, ...]]:
        return extensions(self._group) if self._group else {}

    def _names(self) -> set[str]:
        return {*self._entries, *self._extensions}

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._loaded = True

    def _load_extension(self, name: str) -> None:
        if name in self._unusable:
            raise self._unusable[name]
        try:
            self._register_extension(name)
        except ExtensionError as error:
            self._unusable[name] = error
            raise

    def _register_extension(self, name: str) -> None:
        built_in = name in self._entries and _module(self._entries[name]).startswith(f"{self._package}.")
        owners = self._extensions[name]
        check_unique(self._kind, name, owners, built_in=built_in)
        if name in self._entries:
            return
        before = dict(self._entries), set(self._aliases)
        try:
            owners[0].load()
        except ExtensionError:
            self._entries, self._aliases = before  # drop what was registered before the failure
            raise
        if name not in self._entries:
            raise owners[0].error(
                f'registers no {self._kind} "{name}"', f"Report this to the authors of {owners[0].distribution}."
            )


def load_registry(location: str) -> Registry[Any]:
    """The registry at a location, "package.module:NAME", whose module is imported."""
    module, name = location.split(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry


def _module(entry: object) -> str:
    """The module of an entry, which is a class or an instance of one."""
    return str(getattr(entry, "__module__", ""))
