"""Integer programs as a JSON file and numpy arrays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import exporter
from ristretto_cli.exports.input_table import PixelOffsets, PixelTable, pixel_inputs
from ristretto_cli.exports.names import file_stems
from ristretto_cli.exports.program_exporter import ProgramExporter, ToPrint
from ristretto_cli.integers import program as steps
from ristretto_cli.integers.interpreter import Interpreter
from ristretto_cli.integers.program import HostLayer, Input, Place, Product, Program, Requantization, Step
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.integers.values import integer_type
from ristretto_cli.ops import AnyArray, ConvGeometry, PoolGeometry

NET = "net.json"
_VERSION = 1
_STEPS: dict[str, type[Any]] = {
    each.__name__: each
    for each in (
        steps.Convolution,
        steps.Deconvolution,
        steps.InnerProduct,
        steps.Requantize,
        steps.Clamp,
        steps.MaxPool,
        steps.SumPool,
        steps.Sum,
        steps.Maximum,
        steps.Multiply,
        steps.Concat,
        steps.Table,
        steps.Affine,
        steps.Move,
        steps.Reshape,
    )
}


@exporter("integers")
class IntegersExporter(ProgramExporter):
    """A folder with net.json, the integer program, and its arrays as .npy files.

    weights/ has the weights as int8, int16 or int32, biases/ the biases in the unit of the sums, other folders what
    other steps need, input/ the tables from pixels to integers, vectors/ the integers of images. docs/hardware.md
    describes net.json.
    """

    name = "integers"
    writes_folder: ClassVar[bool] = True

    def print(self, content: ToPrint, path: Path) -> str:
        program = content.program
        stems = file_stems(place.name for place in program.places)

        def save(folder: str, name: str, array: AnyArray) -> str:
            (path / folder).mkdir(exist_ok=True)
            kind = integer_type(int(array.min(initial=0)), int(array.max(initial=0)))
            np.save(path / folder / f"{stems[name]}.npy", np.ascontiguousarray(array, kind))
            return f"{folder}/{stems[name]}.npy"

        found = program_as_json(program, pixel_inputs(content.compiled), content.vectors, save)
        made = {"format": "ristretto integers", "version": _VERSION, **found}
        (path / NET).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        products = [step for step in program.steps if isinstance(step, Product)]
        widths = [step.accumulator_bits for step in products]
        size = sum(step.weights.size * step.weights_bits for step in products)
        return (
            f"{len(program.steps)} steps, {size / 8000:.1f} kB of weights, accumulators of {min(widths)} to "
            f"{max(widths)} bits"
        )

    def run_written(self, path: Path, program: Program, integers: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        written = read_program(path)
        wanted = {place.name for place in written.blobs.values()} | {each.place.name for each in written.inputs}
        return Interpreter(written, keep=lambda place: place.name in wanted).run_integers(integers)


def read_program(folder: Path) -> Program:
    """The program of a folder of this format. RistrettoError if it has none, or one of another version."""
    try:
        found = json.loads((folder / NET).read_text(encoding="utf-8"))
        if found["format"] != "ristretto integers" or found["version"] != _VERSION:
            raise RistrettoError("is not a program of this version", where=str(folder / NET))
        return program_of_json(found, lambda file: np.load(folder / file))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise RistrettoError(f"cannot be read as a program: {fault}", where=str(folder / NET)) from None


def program_as_json(
    program: Program,
    pixels: Mapping[str, PixelTable | PixelOffsets],
    vectors: Mapping[str, AnyArray],
    save: Callable[[str, str, AnyArray], str],
) -> dict[str, Any]:
    """A program as JSON. pixels: what makes the inputs' integers of pixels. vectors: of images. All of them by place.

    save: writes the array of this kind and this place, and returns the name of its file.
    """

    def from_pixels(name: str) -> dict[str, Any]:
        found = pixels.get(name)
        if found is None:
            return {}
        if isinstance(found, PixelTable):
            return {"pixels": {"table": save("input", name, found.entries)}}
        return {"pixels": {"factor": found.factor, "offsets": save("input", name, found.offsets)}}

    return {
        "name": program.name,
        "rounding": program.rounding.value,
        "places": {place.name: _plain(place, ("name",)) for place in program.places},
        "inputs": [
            {**_plain(each, ("place",)), "place": each.place.name, **from_pixels(each.place.name)}
            for each in program.inputs
        ],
        "steps": [_step_as_json(step, save) for step in program.steps],
        "outputs": {blob: place.name for blob, place in program.outputs.items()},
        "blobs": {key: place.name for key, place in program.blobs.items()},
        "host": [dataclasses.asdict(each) for each in program.host],
        "vectors": {name: save("vectors", name, array) for name, array in vectors.items()},
    }


def program_of_json(found: Mapping[str, Any], load: Callable[[str], AnyArray]) -> Program:
    """The program of program_as_json's result. load: reads a file of an array. KeyError, TypeError or ValueError."""
    places = {
        name: Place(**{**each, "name": name, "shape": tuple(each["shape"])}) for name, each in found["places"].items()
    }
    return Program(
        name=found["name"],
        inputs=tuple(
            Input(places[each["place"]], each["blob"], each["layer"], each["bottom"]) for each in found["inputs"]
        ),
        steps=tuple(_step_of_json(each, places, load) for each in found["steps"]),
        outputs={blob: places[name] for blob, name in found["outputs"].items()},
        blobs={key: places[name] for key, name in found["blobs"].items()},
        host=tuple(HostLayer(**each) for each in found["host"]),
        rounding=ShiftRounding(found["rounding"]),
    )


def _plain(value: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a dataclass of numbers and tuples."""
    return {key: each for key, each in dataclasses.asdict(value).items() if key not in without}


def json_fields(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a step that a file holds."""
    return [each for each in dataclasses.fields(kind) if each.name != "function"]


def _step_as_json(step: Step, save: Callable[[str, str, AnyArray], str]) -> dict[str, Any]:
    found: dict[str, Any] = {"step": type(step).__name__}
    for each in json_fields(type(step)):
        value = getattr(step, each.name)
        if isinstance(value, Place):
            found[each.name] = value.name
        elif isinstance(value, np.ndarray):
            found[each.name] = save(each.name, step.y.name, value)
        elif isinstance(value, (Requantization, ConvGeometry, PoolGeometry)):
            found[each.name] = _plain(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Place):
            found[each.name] = [place.name for place in value]
        else:
            found[each.name] = value
    return found


def _step_of_json(found: Mapping[str, Any], places: Mapping[str, Place], load: Callable[[str], AnyArray]) -> Step:
    kind = _STEPS[found["step"]]
    values: dict[str, Any] = {}
    for each in json_fields(kind):
        value = found[each.name]
        if each.name in ("x", "y"):
            value = places[value]
        elif each.name == "xs":
            value = tuple(places[name] for name in value)
        elif each.name == "requantization":
            value = None if value is None else Requantization(**value)
        elif each.name == "geometry":
            geometry: Any = ConvGeometry if issubclass(kind, Product) else PoolGeometry
            value = geometry(**{key: tuple(n) if isinstance(n, list) else n for key, n in value.items()})
        elif isinstance(value, str) and each.name != "layer":
            value = load(value)
        elif isinstance(value, list):
            value = tuple(value)
        values[each.name] = value
    step: Step = kind(**values)
    return step
