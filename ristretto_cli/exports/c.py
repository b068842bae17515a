"""Integer programs as C99."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.exports.c_constants import Constants, texts
from ristretto_cli.exports.c_files import Files, dtype_of
from ristretto_cli.exports.c_helpers import Helpers, TooWide
from ristretto_cli.exports.c_loop import Loop, Scratch, Shared
from ristretto_cli.exports.c_plan import make_plan, size_of, type_of
from ristretto_cli.exports.c_steps import function_of
from ristretto_cli.exports.checks import NotChecked
from ristretto_cli.exports.exporter import exporter
from ristretto_cli.exports.input_table import PixelOffsets, PixelTable, pixel_inputs
from ristretto_cli.exports.names import identifiers
from ristretto_cli.exports.program_exporter import ProgramExporter, ToPrint
from ristretto_cli.integers.program import Product, Program
from ristretto_cli.ops import AnyArray

_MOST_ELEMENTS = 2**31 - 1  # which int32_t counts
_MAX_SECONDS = 600


@exporter("c")
class CExporter(ProgramExporter):
    """A folder with the integer program as C99: integers only, no libraries, no allocation.

    net.h declares the function that runs the net, net.c defines it, weights.h and weights.c have the constants, test.c
    and vectors.h a test program, Makefile builds it. With --pack, weights of up to 4 bits share bytes: two, four or
    eight in one.
    """

    name = "c"
    writes_folder: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = ProgramExporter.takes | {"--pack"}

    def __init__(self) -> None:
        self._built: _Built | None = None

    def print(self, content: ToPrint, path: Path) -> str:
        self._built = None
        program = content.program
        pixels = pixel_inputs(content.compiled)
        where = content.compiled.net.file
        sizes = write_program(
            program, path, pixels=pixels, vectors=content.vectors, pack=content.request.pack, where=where
        )
        content.manifest["memory"] = {"constant_bytes": sizes.constants, "ram_bytes": sizes.memory}
        widths = [step.accumulator_bits for step in program.steps if isinstance(step, Product)]
        accumulators = f", accumulators of {min(widths)} to {max(widths)} bits" if widths else ""
        return (
            f"{len(program.steps)} steps in {sizes.loops} loops, {sizes.constants / 1000:.1f} kB of constants, "
            f"{sizes.memory / 1000:.1f} kB of RAM{accumulators}"
        )

    def run_written(self, path: Path, program: Program, integers: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        if self._built is None or self._built.path != path.resolve():
            self._built = _Built(path.resolve(), program)
        folder = self._built.folder
        given = [integers[each.place.name].astype(dtype_of(each.place)) for each in program.inputs]
        with (folder / "in").open("wb") as stream:
            for i in range(len(given[0])):
                for array in given:
                    stream.write(array[i].tobytes())
        _run([str(folder / "test"), str(folder / "in"), str(folder / "out")], "the test program")
        kinds = [dtype_of(place) for place in program.places]
        ends = np.cumsum([size_of(p) * kind.itemsize for p, kind in zip(program.places, kinds, strict=True)])
        written = np.fromfile(folder / "out", np.uint8)
        if written.size != ends[-1] * len(given[0]):
            raise RistrettoError("the test program wrote another number of values", where=str(path))
        images = written.reshape(len(given[0]), -1)
        results = {}
        for place, kind, end in zip(program.places, kinds, ends, strict=True):
            part = np.ascontiguousarray(images[:, end - size_of(place) * kind.itemsize : end])
            results[place.name] = part.view(kind).reshape(-1, *place.shape)
        return results


@dataclass(frozen=True)
class Sizes:
    """Of a C program: the number of its loops; its constants, and the static memory that it writes, in bytes."""

    loops: int
    constants: int
    memory: int


def write_program(
    program: Program,
    path: Path,
    *,
    pixels: Mapping[str, PixelTable | PixelOffsets],
    vectors: Mapping[str, AnyArray],
    pack: bool = False,
    where: str | None = None,
) -> Sizes:
    """Write the files of a program to a folder; where: the net, for errors.

    RistrettoErrors if int32_t cannot count its elements, or int64_t cannot hold a sum.
    """
    raise_all(_too_large(program, where))
    plan = make_plan(program)
    prefix = prefix_of(program)
    names = identifiers(place.name for place in program.places)
    helpers, scratch = Helpers(program.rounding), Scratch({})
    functions: list[Loop] = []
    errors: list[RistrettoError] = []
    files = Files(program, plan, prefix, names)
    with (path / "weights.c").open("wb") as source, (path / "weights.h").open("wb") as header:
        files.begin_weights(source, header)
        constants = Constants(source, header)
        shared = Shared(plan, names, prefix, helpers, constants, scratch, pack)
        for group in plan.groups:
            try:
                functions.append(function_of(group, shared))
            except TooWide:
                what = f"the computation of {', '.join(step.y.name for step in group.all_steps)} needs over 64 bits"
                errors.append(RistrettoError(what, where=where, hint="Use narrower widths."))
        raise_all(errors)
        for place, found in pixels.items():
            what, array = ("table", found.entries) if isinstance(found, PixelTable) else ("offsets", found.offsets)
            constants.add(f"{prefix}_{names[place]}_pixel_{what}", array, f"from pixels to {place}")
        files.end_weights(header)
    files.memory = scratch.bytes + sum(bits // 8 * size for bits, size in plan.arenas.items())
    files.constants = constants.bytes
    files.vectors = bool(vectors)
    files.write(path, functions, helpers, scratch, pixels)
    if vectors:
        _write_vectors(path / "vectors.h", files, vectors)
    return Sizes(len(functions), files.constants, files.memory)


def prefix_of(program: Program) -> str:
    """What all external names of a program begin with."""
    name = program.name.lower()
    return identifiers([name])[name]


def _too_large(program: Program, where: str | None) -> list[RistrettoError]:
    """Places and weights that int32_t cannot index."""
    sizes = [(f"the blob {place.name}", size_of(place)) for place in program.places]
    sizes += [(f'the weights of layer "{s.layer}"', s.weights.size) for s in program.steps if isinstance(s, Product)]
    found = []
    for what, size in sizes:
        if size == 0:
            found.append(RistrettoError(f"{what} has no elements, which C does not allow", where=where))
        elif size > _MOST_ELEMENTS:
            message = f"{what} has {size} elements, more than 2^31 - 1"
            found.append(RistrettoError(message, where=where, hint="Use smaller inputs."))
    return found


def _write_vectors(path: Path, files: Files, vectors: Mapping[str, AnyArray]) -> None:
    count = len(next(iter(vectors.values())))
    with path.open("wb") as stream:
        stream.write(
            b"/* Integers of images: inputs, and the outputs that the test expects. */\n#include <stdint.h>\n\n"
        )
        stream.write(f"#define VECTORS {count}\n".encode())
        for name, place in [*files.inputs, *files.outputs]:
            kind = type_of(place)
            stream.write(f"\nstatic const {kind} vectors_{name}[VECTORS][{size_of(place)}] = {{\n".encode())
            for image in vectors[place.name]:
                stream.write(b"    {\n")
                for part in texts(image, kind):
                    stream.write(part)
                stream.write(b"    },\n")
            stream.write(b"};\n")


class _Built:
    """A test program, built to keep all blobs, in a temporary folder that is removed with it. path: of its sources."""

    def __init__(self, path: Path, program: Program) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise NotChecked("gcc is not installed")
        self.path = path
        self.folder = Path(tempfile.mkdtemp(prefix="ristretto-c-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        sources = [str(path / name) for name in ("net.c", "weights.c", "test.c")]
        macro = f"-D{prefix_of(program).upper()}_TRACE"
        _run([compiler, "-std=c99", "-O2", macro, *sources, "-o", str(self.folder / "test")], compiler)


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotChecked(f"{what} did not finish within {_MAX_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        line = next((each for each in said.splitlines() if "error" in each), said[-200:])
        raise RistrettoError(f"{what} ended with code {done.returncode}: {line or 'no reason given'}")
