"""Exports of integer programs as one ONNX file: options, vectors, metadata, the check."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from ristretto_cli.caffe_io.npz import write_npz
from ristretto_cli.exports.exporter import ExportRequest
from ristretto_cli.exports.manifest import place_as_json
from ristretto_cli.exports.onnx_program import EXACT_BITS, ModelProto, ProgramPrinter
from ristretto_cli.exports.program_exporter import ProgramExporter, ToPrint
from ristretto_cli.integers.interpreter import numbers_of
from ristretto_cli.integers.program import Affine, Place, Program, Step, Table
from ristretto_cli.ops import AnyArray

METADATA = "ristretto"  # the key of the manifest in the metadata of the model


class OnnxProgramExporter(ProgramExporter):
    """A format that prints a program as an ONNX model. default_batch: without --batch; 0 for any number of images."""

    takes: ClassVar[frozenset[str]] = ProgramExporter.takes | {"--batch"}
    default_batch: ClassVar[int] = 0

    @abstractmethod
    def printer(self, content: ToPrint, batch: int, fed: frozenset[str], file: str) -> ProgramPrinter:
        """What prints the program; the arguments are those of ProgramPrinter."""

    @abstractmethod
    def run_model(self, model: ModelProto, feeds: Mapping[str, AnyArray], tensors: list[str]) -> Mapping[str, AnyArray]:
        """These tensors of a model, by name. NotChecked if there is nothing to run it with."""

    def print(self, content: ToPrint, path: Path) -> str:
        net, request = content.compiled.net, content.request
        written = {top.name for layer in net.layers if not layer.is_source for top in layer.tops}
        fed = frozenset(blob.name for blob in net.inputs) - written
        batch = self.default_batch if request.batch is None else request.batch
        printer = self.printer(content, batch, fed, net.file)
        model = printer.model()
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA, json.dumps(content.manifest | _tensors(printer))
        onnx.checker.check_model(model)
        onnx.save(model, path)
        lines = [_summary(model)]
        layers = [*dict.fromkeys(layer for each in printer.rounded.values() for layer in each)]
        if layers:
            others = f" and {len(layers) - 3} other layers" if len(layers) > 3 else ""
            lines.append(f"In float32 until their results are quantized: {', '.join(layers[:3])}{others}.")
        if content.vectors:
            lines.append(_write_vectors(printer, request, content.vectors))
        return "\n".join(lines)

    def hint_for(self, program: Program) -> str:
        if not any(_is_rounded(step) for step in program.steps):
            return ""
        return (
            "BatchNorm and the like are in float32 here, and in integers in the program, which may round ties to "
            "different sides. Fold them (`ristretto fold`), or use --affine_bits=10."
        )

    def run_written(self, path: Path, program: Program, integers: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        places = {each.place.name: each.place for each in program.inputs}
        return self.run_images(
            path, program, {name: numbers_of(places[name], array) for name, array in integers.items()}, integers
        )

    def run_images(
        self, path: Path, program: Program, numbers: Mapping[str, AnyArray], integers: Mapping[str, AnyArray]
    ) -> Mapping[str, AnyArray]:
        model = onnx.load(path)
        written = json.loads(next(each.value for each in model.metadata_props if each.key == METADATA))
        feeds = {tensor: numbers[place] for place, tensor in written["fed"].items()}
        _set_batch(model, len(next(iter(feeds.values()))))
        places = {place.name: place for place in program.places}
        wanted = {name: written["tensors"][name]["tensor"] for name in places if name in written["tensors"]}
        found = self.run_model(model, feeds, list(wanted.values()))
        return {name: _integers(places[name], found[tensor]) for name, tensor in wanted.items()}


def _is_rounded(step: Step) -> bool:
    """Whether float32 cannot hold the result of a BatchNorm or the like, which no layer quantizes at once."""
    return (isinstance(step, Affine) or (isinstance(step, Table) and step.requantization is None)) and (
        step.y.bits > EXACT_BITS
    )


def _tensors(printer: ProgramPrinter) -> dict[str, Any]:
    """For the manifest: the tensors with the places that they hold exactly, and the inputs."""
    places = [place for place in printer.program.places if place.name not in printer.rounded]
    return {
        "fed": printer.inputs,
        "tensors": {place.name: {"tensor": printer.tensors[place.name], **place_as_json(place)} for place in places},
    }


def _summary(model: ModelProto) -> str:
    inputs, outputs = (", ".join(value.name for value in values) for values in (model.graph.input, model.graph.output))
    opset = next(each.version for each in model.opset_import if not each.domain)
    return f"{len(model.graph.node)} nodes of opset {opset}, inputs {inputs}, outputs {outputs}"


def _write_vectors(printer: ProgramPrinter, request: ExportRequest, vectors: Mapping[str, AnyArray]) -> str:
    """Write the integers of images next to the model, under the names of its tensors; a line about them."""
    output = Path(request.output)
    path = output.with_name(f"{output.stem}_vectors.npz")
    arrays = {printer.tensors[name]: array for name, array in vectors.items()}
    write_npz(path, arrays)
    return f"{path}: the integers of {len(next(iter(arrays.values())))} images in {len(arrays)} tensors"


def _set_batch(model: ModelProto, count: int) -> None:
    """Declare the tensors of images for this number of images."""
    names = {each.name for each in (*model.graph.input, *model.graph.output)}
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    before = (batch.dim_value, batch.dim_param)
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if dims and (value.name in names or (dims[0].dim_value, dims[0].dim_param) == before):
            dims[0].dim_value = count


def _integers(place: Place, numbers: AnyArray) -> AnyArray:
    """The integers that numbers of a place stand for, as float64: fractions if the numbers are not on its grid."""
    scaled = np.ldexp(np.asarray(numbers, np.float64), place.frac_bits) * place.divisor
    # A mean is rounded to float32.
    return np.rint(scaled) if place.divisor != 1 else scaled
