"""A net in numbers: the shapes, parameters, multiplications and bits of its layers, and their totals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ristretto_cli.analysis.nets_without_data import NetWithoutData
from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.net.costs import CostModel, Costs
from ristretto_cli.net.ir import Layer
from ristretto_cli.net.widths import Widths, widths_of
from ristretto_cli.ops import DYNAMIC, Shape, show

_FLOAT_BITS = 32
_OF_BITOPS = (5, 6)  # the columns that --bitops adds
_COUNTED_BITS = (
    "Bit operations are MACs times the bits of their weights and inputs. Activations are the blobs that layers write, "
    "in place only once, in the bits of the layer that writes them last, or else of the one that reads them; float has "
    "32 bits."
)
_COUNTED = (
    "MACs are multiplications with parameters: of convolutions (padding included), deconvolutions and inner "
    "products. Biases, pooling, normalization and activations are not counted."
)


@dataclass(frozen=True)
class LayerSummary:
    """A layer in numbers. parameters: its own, not those shared by another layer; macs, costs: for the whole batch."""

    name: str
    type: str
    tops: tuple[tuple[str, Shape], ...]
    parameters: int
    macs: int
    widths: Widths | None
    costs: Costs

    @property
    def trimmed_bits(self) -> int:
        """The bits of all its parameters together."""
        return self.costs.parameter_bits


@dataclass(frozen=True)
class Summary:
    """A net in numbers.

    batch: the first axis of the net's first input. inputs: the number of inputs that MACs are divided by:
    the batch, or 1 if that axis counts something else. notes: origin of
    shapes that do not come from data.
    """

    name: str
    file: str
    phase: str
    batch: int
    inputs: int
    layers: tuple[LayerSummary, ...]
    notes: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """The number of values in a weight file."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per input."""
        return sum(layer.macs for layer in self.layers) // self.inputs

    @property
    def float_bytes(self) -> int:
        """Size of the parameters in float32."""
        return self.parameters * _FLOAT_BITS // 8

    @property
    def trimmed_bytes(self) -> int:
        """Size of the parameters, with those of quantized layers in their bit widths."""
        return math.ceil(sum(layer.trimmed_bits for layer in self.layers) / 8)

    @property
    def bit_operations(self) -> int:
        """Bit operations per input."""
        return sum(layer.costs.bit_operations for layer in self.layers) // self.inputs

    @property
    def activation_bits(self) -> int:
        """Bits of the activations per input."""
        return sum(layer.costs.activation_bits for layer in self.layers) // self.inputs


def summarize(known: NetWithoutData) -> Summary:
    """The summary of a net, which needs no weights."""
    net = known.net
    model, widths = CostModel(net), [widths_of(layer) for layer in net.layers]
    layers = tuple(map(_layer, net.layers, widths, model.parameters, model.macs, model.of_layers(widths)))
    phase = "TRAIN" if net.phase == TRAIN else "TEST"
    return Summary(net.name, net.file, phase, model.batch, model.inputs, layers, known.notes)


def summary_lines(summary: Summary, *, bitops: bool = False) -> list[str]:
    """The table of the layers, followed by the totals. bitops: with bit operations and bits of activations."""
    widths = [layer.widths for layer in summary.layers if layer.widths is not None]
    legend = max((each.legend for each in widths), key=len, default="")  # with biases, if some layer has them
    header = ("layer", "type", "output", "parameters", "MACs", "bit operations", "activation bits", legend)
    rows = [
        (
            layer.name,
            layer.type,
            ", ".join(_top(layer, name, shape) for name, shape in layer.tops),
            f"{layer.parameters:,}" if layer.parameters else "",
            *(
                f"{count // summary.inputs:,}" if count >= summary.inputs else ""
                for count in (layer.macs, layer.costs.bit_operations, layer.costs.activation_bits)
            ),
            str(layer.widths) if layer.widths is not None else "",
        )
        for layer in summary.layers
    ]
    columns = [i for i in range(len(header)) if (i not in _OF_BITOPS or bitops) and (i < len(header) - 1 or widths)]
    lines = [f"{summary.name or 'Net'} ({summary.file}), phase {summary.phase}", ""]
    lines += _table(
        [[row[i] for i in columns] for row in (header, *rows)], right={3, 4, *(_OF_BITOPS if bitops else ())}
    )
    lines += ["", f"Parameters: {_amount(summary.parameters)}, {_size(summary.float_bytes)} in 32 bits"]
    if widths:
        lines.append(f"Trimmed: {_size(summary.trimmed_bytes)}{_times(summary)}")
    lines.append(f"MACs: {_amount(summary.macs)} for {_inputs(summary)}")
    if bitops:
        size = math.ceil(summary.activation_bits / 8)
        lines.append(f"Bit operations: {_amount(summary.bit_operations)} for {_inputs(summary)}")
        lines.append(f"Activations: {_size(size)} for {_inputs(summary)}")
    lines.append(_COUNTED)
    lines += [_COUNTED_BITS] if bitops else []
    lines += [f'Shapes of layer "{name}": {note}' for name, note in summary.notes.items()]
    return lines


def summary_as_json(summary: Summary, *, bitops: bool = False) -> dict[str, Any]:
    """The summary for JSON. bitops: with bit operations and bits of activations, for as many inputs as macs.
    macs_are_for_inputs: the inputs that macs is for, 1 or the batch. An extent that depends on the data is null.
    """
    return {
        "name": summary.name,
        "model": summary.file,
        "phase": summary.phase,
        "batch": summary.batch,
        "parameters": summary.parameters,
        "macs": summary.macs,
        "macs_are_for_inputs": summary.batch // summary.inputs,
        **({"bit_operations": summary.bit_operations, "activation_bits": summary.activation_bits} if bitops else {}),
        "parameter_bytes_32bit": summary.float_bytes,
        "parameter_bytes_trimmed": summary.trimmed_bytes,
        "shapes_not_from_data": dict(summary.notes),
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "tops": [
                    {"name": name, "shape": [None if n == DYNAMIC else n for n in shape]} for name, shape in layer.tops
                ],
                "parameters": layer.parameters,
                "macs": layer.macs // summary.inputs,
                **(
                    {
                        "bit_operations": layer.costs.bit_operations // summary.inputs,
                        "activation_bits": layer.costs.activation_bits // summary.inputs,
                    }
                    if bitops
                    else {}
                ),
                "bits": None if layer.widths is None else layer.widths.as_json(),
            }
            for layer in summary.layers
        ],
    }


def _layer(layer: Layer, widths: Widths | None, counts: Sequence[int], macs: int, costs: Costs) -> LayerSummary:
    return LayerSummary(
        name=layer.name,
        type=layer.type,
        tops=tuple((top.name, top.shape) for top in layer.tops),
        parameters=sum(counts),
        macs=macs,
        widths=widths,
        costs=costs,
    )


def _top(layer: LayerSummary, name: str, shape: Shape) -> str:
    return show(shape) if name == layer.name and len(layer.tops) == 1 else f"{name} {show(shape)}"


def _table(rows: Sequence[Sequence[str]], *, right: set[int]) -> list[str]:
    """Rows with aligned columns; those in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _amount(number: int) -> str:
    """A number as in papers: 1,248,424 (1.25 M)."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number:,} ({number / size:.2f} {unit})"
    return str(number)


def _size(size: int) -> str:
    if size >= 1_000_000:
        return f"{size / 1e6:.2f} MB"
    return f"{size / 1e3:.1f} kB" if size >= 10_000 else f"{size:,} bytes"


def _times(summary: Summary) -> str:
    if summary.trimmed_bytes == 0:
        return ""
    return f", {summary.float_bytes / summary.trimmed_bytes:.1f} times smaller"


def _inputs(summary: Summary) -> str:
    if summary.batch == 1:
        return "one input"
    if summary.inputs == 1:
        return "the whole batch"
    return f"one of the {summary.batch} inputs of a batch"
