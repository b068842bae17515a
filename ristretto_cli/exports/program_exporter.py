"""What exports of integer programs share: compiling, vectors of images, the manifest, and the check."""

from __future__ import annotations

import json
import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ristretto_cli.caffe_io.files import atomic_write, cannot_write
from ristretto_cli.caffe_io.temporary import new_folder
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.checks import Comparison, NotChecked
from ristretto_cli.exports.exporter import Exporter, ExportRequest, needed
from ristretto_cli.exports.images import Images, all_places, joined, read_images
from ristretto_cli.exports.manifest import manifest, sha256_of
from ristretto_cli.integers.compiler import Compiled, compile_program
from ristretto_cli.integers.program import Program
from ristretto_cli.net.build import NetState
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.net_files import load_net

log = logging.getLogger("ristretto")

MANIFEST = "manifest.json"
DATA_FLAGS = frozenset({"--images", "--resize", "--channel_swap", "--raw_scale", "--mean", "--input_scale", "--input"})
_BATCH = 16  # images that a check runs at a time


@dataclass(frozen=True)
class ToPrint:
    """What a format prints. vectors: the integers of images, by place, (N, *shape); empty if none are asked for.

    manifest: as JSON, without the files.
    """

    compiled: Compiled
    request: ExportRequest
    vectors: Mapping[str, AnyArray]
    manifest: dict[str, Any]

    @property
    def program(self) -> Program:
        return self.compiled.program


class ProgramExporter(Exporter):
    """A format that holds an integer program."""

    takes: ClassVar[frozenset[str]] = frozenset({"--rounding", "--affine_bits", "--vectors", "--check", *DATA_FLAGS})
    name: ClassVar[str]

    @abstractmethod
    def print(self, content: ToPrint, path: Path) -> str:
        """Write the program to a folder (or, unless writes_folder, to a file), and return a line about it.

        RistrettoError(s) if the format cannot hold it.
        """

    @abstractmethod
    def run_written(self, path: Path, program: Program, integers: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        """Run what `print` wrote on integers of the inputs, (N, *shape) by place; the integers of places, by name.

        Places that it does not give are not compared. NotChecked if it cannot be run here.
        """

    def run_images(
        self, path: Path, program: Program, numbers: Mapping[str, AnyArray], integers: Mapping[str, AnyArray]
    ) -> Mapping[str, AnyArray]:
        """The same for formats whose inputs are numbers: float32 (N, *shape) by place."""
        return self.run_written(path, program, integers)

    def hint_for(self, program: Program) -> str:
        """What may help where the check finds differences."""
        return ""

    def write(self, request: ExportRequest) -> str:
        model, weights = needed(request.model, "--model"), needed(request.weights, "--weights")
        state = NetState(request.phase, request.level, request.stages)
        net = load_net(model, weights, state, rng=np.random.default_rng(0), allow_missing=request.allow_missing)
        compiled = compile_program(net, rounding=request.rounding, affine_bits=request.affine_bits)
        count = max(request.vectors, request.check)
        images = read_images(compiled, count, request.data) if count else None
        vectors = {}
        if images is not None and request.vectors:
            vectors = joined(all_places(compiled.program, images), request.vectors)
        made_of = manifest(
            compiled.program,
            export_format=self.name,
            sources={"model": model, "weights": weights},
            affine_bits=request.affine_bits,
        )
        content = ToPrint(compiled, request, vectors, made_of)
        output = Path(request.output)
        with self._output(output) as temporary:
            line = self.print(content, temporary)
            if self.writes_folder:
                files = sorted(file for file in temporary.rglob("*") if file.is_file() and file.name[0] != ".")
                made_of["files"] = {str(file.relative_to(temporary)): sha256_of(file) for file in files}
                (temporary / MANIFEST).write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")
        lines = [f"{request.output}: {line}"]
        lines += [f"{each.name} ({each.type}) is left to the host: {each.reason}." for each in compiled.program.host]
        if request.check and images is not None:
            lines.append(self._check(output, compiled.program, images, request.check))
        return "\n".join(lines)

    def _check(self, output: Path, program: Program, images: Images, count: int) -> str:
        comparison = Comparison(program)
        try:
            left = count
            for expected, numbers in zip(all_places(program, images), images.numbers, strict=True):
                for start in range(0, len(next(iter(expected.values()))), _BATCH):
                    some = slice(start, min(start + _BATCH, left))
                    part = {name: array[some] for name, array in expected.items()}
                    given = {each.place.name: part[each.place.name] for each in program.inputs}
                    floats = {name: array[some] for name, array in numbers.items()}
                    if len(next(iter(part.values()))):
                        comparison.add(part, self.run_images(output, program, floats, given))
                left -= len(next(iter(expected.values())))
        except NotChecked as why:
            return f"not checked: {why}"
        if comparison.differing or not comparison.values:
            what = f"checked, and it is wrong: {comparison.line()}"
            raise RistrettoError(what, where=str(output), hint=self.hint_for(program))
        return f"checked: {comparison.line()}"

    @contextmanager
    def _output(self, output: Path) -> Iterator[Path]:
        """A temporary path that becomes the output at the end of the block."""
        if not self.writes_folder:
            with atomic_write(output) as temporary:
                yield temporary
            return
        check_folder(output)
        try:
            with new_folder(Path(os.path.realpath(output))) as folder:
                yield folder.path
                if output.exists():
                    _remove_export(output)
                folder.finish()
        except OSError as fault:
            raise cannot_write(output, fault) from None


def check_folder(output: Path) -> None:
    """RistrettoError if an export cannot be written to this folder; called before long work."""
    if not output.name:
        raise RistrettoError("is not the name of a new folder", where=str(output), hint="Choose another --output.")
    if output.is_dir():
        if any(output.iterdir()):
            _files_of_export(output)
    elif os.path.lexists(output):
        raise RistrettoError("is a file, not a folder", where=str(output), hint="Choose another --output.")
    if not output.parent.is_dir():
        what = f"the folder {output.parent} does not exist"
        raise RistrettoError(what, where=str(output), hint="Create it first.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise RistrettoError("cannot be written: permission denied", where=str(output))


def _files_of_export(folder: Path) -> list[Path]:
    """The files of an earlier export. RistrettoError if the folder is none, or holds other files as well."""
    other = RistrettoError(
        "this folder holds other files", where=str(folder), hint="Choose a new folder, or that of an earlier export."
    )
    manifest_file = folder / MANIFEST
    if not manifest_file.is_file():
        raise other
    try:
        names = [*json.loads(manifest_file.read_text(encoding="utf-8"))["files"], MANIFEST]
        files = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        raise RistrettoError("is not a manifest of an export", where=str(manifest_file)) from None
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if not {*found} <= {*files}:
        raise other
    return found


def _remove_export(folder: Path) -> None:
    """Remove an earlier export, with the folders that are empty then."""
    if any(folder.iterdir()):
        for file in _files_of_export(folder):
            file.unlink(missing_ok=True)
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        inner.rmdir()
    folder.rmdir()
