"""OpenCV, h5py and lmdb, each imported at its first use: commands that meet no images, HDF5 files or LMDB databases do
not load them, and work without them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ristretto_cli.errors import RistrettoError
from ristretto_cli.threads import default_threads

if TYPE_CHECKING:
    import cv2 as cv2
    import h5py as h5py
    import lmdb as lmdb


class Library(ModuleType):
    """A library that is imported when one of its attributes is read; RistrettoError if it is missing or broken.

    module: its name in Python. package: its name for pip. purpose: the beginning of the error, "images need".
    """

    def __init__(self, module: str, package: str, purpose: str) -> None:
        super().__init__(module)
        self._package, self._purpose = package, purpose

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked for by the import system and by inspection, which must not import it
            raise AttributeError(attribute)
        return getattr(self._imported(), attribute)

    def _imported(self) -> ModuleType:
        try:
            return importlib.import_module(self.__name__)
        except ModuleNotFoundError as fault:
            if fault.name != self.__name__:
                raise self._error(f"which cannot be loaded: {fault}", "Reinstall it") from None
            raise self._error("which is not installed", "Install it") from None
        except ImportError as fault:
            raise self._error(f"which cannot be loaded: {fault}", "Reinstall it") from None

    def _error(self, what: str, remedy: str) -> RistrettoError:
        return RistrettoError(f"{self._purpose} {self._package}, {what}", hint=f"{remedy}: pip install {self._package}")


class _OpenCv(Library):
    """OpenCV, whose own default number of threads does not respect OMP_NUM_THREADS."""

    _prepared = False

    def _imported(self) -> ModuleType:
        module = super()._imported()
        if not self._prepared:
            self._prepared = True
            module.setNumThreads(default_threads())
        return module


if not TYPE_CHECKING:
    cv2 = _OpenCv("cv2", "opencv-python-headless", "images need")
    h5py = Library("h5py", "h5py", "HDF5 files need")
    lmdb = Library("lmdb", "lmdb", "LMDB databases need")
