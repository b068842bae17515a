"""Integer programs as C99."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.exports.c_constants import Constants, texts
from ristretto_cli.exports.c_files import Files, dtype_of
from ristretto_cli.exports.c_helpers import Helpers, TooWide
from ristretto_cli.exports.c_loop import Scratch, Shared
from ristretto_cli.exports.c_plan import make_plan, size_of, type_of
from ristretto_cli.exports.c_steps import function_of
from ristretto_cli.exports.checks import NotChecked
from ristretto_cli.exports.exporter import exporter
from ristretto_cli.exports.input_table import PixelTable, pixel_inputs
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
        self._built: tuple[Path, tempfile.TemporaryDirectory[str]] | None = None

    def print(self, content: ToPrint, path: Path) -> str:
        self._built = None
        program = content.program
        raise_all([*_too_large(program)])
        plan = make_plan(program)
        prefix = identifiers([program.name.lower()])[program.name.lower()]
        names = identifiers(place.name for place in program.places)
        helpers, scratch, errors = Helpers(program.rounding), Scratch({}), []
        with (path / "weights.c").open("wb") as source, (path / "weights.h").open("wb") as header:
            files = Files(program, plan, prefix, names)
            files.begin_weights(source, header)
            constants = Constants(source, header)
            shared = Shared(plan, names, prefix, helpers, constants, scratch, content.request.pack)
            functions = []
            for group in plan.groups:
                try:
                    functions.append(function_of(group, shared))
                except TooWide:
                    names_of = ", ".join(step.y.name for step in group.all_steps)
                    what = f"the computation of {names_of} needs more than 64 bits"
                    errors.append(RistrettoError(what, where=content.compiled.net.file, hint="Use narrower widths."))
            raise_all(errors)
            pixels = pixel_inputs(content.compiled)
            for place, found in pixels.items():
                what = "table" if isinstance(found, PixelTable) else "offsets"
                array = found.entries if isinstance(found, PixelTable) else found.offsets
                constants.add(f"{prefix}_{names[place]}_pixel_{what}", array, f"from pixels to {place}")
            files.end_weights(header)
        files.memory = scratch.bytes + sum(bits // 8 * size for bits, size in plan.arenas.items())
        files.constants = constants.bytes
        files.vectors = bool(content.vectors)
        files.write(path, functions, helpers, scratch, pixels)
        if content.vectors:
            _write_vectors(path / "vectors.h", files, content.vectors)
        content.manifest["memory"] = {"constant_bytes": files.constants, "ram_bytes": files.memory}
        widths = [step.accumulator_bits for step in program.steps if isinstance(step, Product)]
        accumulators = f", accumulators of {min(widths)} to {max(widths)} bits" if widths else ""
        return (
            f"{len(program.steps)} steps in {len(functions)} loops, {files.constants / 1000:.1f} kB of constants, "
            f"{files.memory / 1000:.1f} kB of RAM{accumulators}"
        )

    def run_written(self, path: Path, program: Program, integers: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        if self._built is None or self._built[0] != path.resolve():
            self._built = path.resolve(), _build(path, program)
        folder = Path(self._built[1].name)
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


def _too_large(program: Program) -> list[RistrettoError]:
    """Places and weights that int32_t cannot index."""
    sizes = [(f"the blob {place.name}", size_of(place)) for place in program.places]
    sizes += [(f'the weights of layer "{s.layer}"', s.weights.size) for s in program.steps if isinstance(s, Product)]
    found = []
    for what, size in sizes:
        if size == 0:
            found.append(RistrettoError(f"{what} has no elements, which C does not allow"))
        elif size > _MOST_ELEMENTS:
            found.append(RistrettoError(f"{what} has {size} elements, more than 2^31 - 1", hint="Use smaller inputs."))
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


def _build(path: Path, program: Program) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with the test program, which keeps all blobs."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotChecked("gcc is not installed")
    folder = tempfile.TemporaryDirectory(prefix="ristretto-c-")
    sources = [str(path / name) for name in ("net.c", "weights.c", "test.c")]
    macro = f"-D{identifiers([program.name.lower()])[program.name.lower()].upper()}_TRACE"
    _run([compiler, "-std=c99", "-O2", macro, *sources, "-o", f"{folder.name}/test"], compiler)
    return folder


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotChecked(f"{what} did not finish within {_MAX_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        line = next((each for each in said.splitlines() if "error" in each), said[-200:])
        raise RistrettoError(f"{what} ended with code {done.returncode}: {line or 'no reason given'}")
