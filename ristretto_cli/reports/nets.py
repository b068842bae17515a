"""The sections of a report about a net: a drawing with its layers, and bars of their widths and sizes."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.net.costs import CostModel, Costs
from ristretto_cli.net.ir import Net
from ristretto_cli.net.widths import Widths
from ristretto_cli.ops import show
from ristretto_cli.reports.report import Bar, Block, Section, Table, Text
from ristretto_cli.reports.wires import read_layers, wires

_MOST_NAMES = 3  # of layers that a layer reads


class NetCosts:
    """The costs of a net with and without its widths.

    widths: for each layer, None for a float one. floats, trimmed: the costs of each layer for the whole batch.
    """

    def __init__(self, net: Net, widths: Sequence[Widths | None]) -> None:
        self.net, self.widths = net, widths
        self.model = CostModel(net)
        floats: Sequence[Widths | None] = [None] * len(net.layers)
        self.floats, self.trimmed = self.model.of_layers(floats), self.model.of_layers(widths)
        self.float_net, self.trimmed_net = self.model.of_net(floats), self.model.of_net(widths)

    @property
    def counted_for(self) -> str:
        """The inputs that bit operations and activations are counted for, as a phrase."""
        return "for one input" if self.model.inputs == self.model.batch else "for the whole batch"


def costs_block(costs: NetCosts) -> Table:
    """The costs of the whole net before and after."""
    before, after = costs.float_net, costs.trimmed_net
    rows = [
        (
            "weights",
            size(before.parameter_bits),
            size(after.parameter_bits),
            _ratio(before.parameter_bits, after.parameter_bits),
        ),
        (
            f"bit operations, {costs.counted_for}",
            amount(before.bit_operations),
            amount(after.bit_operations),
            _ratio(before.bit_operations, after.bit_operations),
        ),
        (
            f"activations, {costs.counted_for}",
            size(before.activation_bits),
            size(after.activation_bits),
            _ratio(before.activation_bits, after.activation_bits),
        ),
    ]
    columns = ("cost", "float net", "quantized net", "ratio")
    return Table("Costs of the net, in 32 bits and quantized", columns, rows, frozenset({1, 2, 3}))


def net_sections(costs: NetCosts) -> list[Section]:
    """The net as a drawing, and its widths and costs by layer."""
    return [
        Section("net", "The net", _drawing(costs)),
        Section("layers", "Widths and costs by layer", _bars(costs)),
    ]


def size(bits: int) -> str:
    """A number of bits as a size in bytes, in powers of 1,000."""
    count = -(-bits // 8)
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


def amount(number: int) -> str:
    """A number with four digits: 13.24 G."""
    for unit, name in ((10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.4g} {name}"
    return str(number)


def _drawing(costs: NetCosts) -> list[Block]:
    net = costs.net
    read = read_layers(net)
    drawn = wires(read, [each is not None for each in costs.widths])
    rows = [
        (
            svg,
            layer.name,
            layer.type,
            _names([net.layers[source].name for source in sources]),
            ", ".join(show(top.shape) for top in layer.tops),
            "" if widths is None else str(widths),
            size(cost.parameter_bits) if cost.parameter_bits else "",
            amount(cost.bit_operations // costs.model.inputs) if cost.bit_operations else "",
        )
        for svg, layer, sources, widths, cost in zip(drawn, net.layers, read, costs.widths, costs.trimmed, strict=True)
    ]
    legend = max((each.legend for each in costs.widths if each is not None), key=len, default="bits in/weights/out")
    columns = ("wires", "layer", "type", "reads", "output", legend, "weights", "bit operations")
    caption = f"Layers in the order of execution, with bit operations {costs.counted_for}"
    return [
        Text("Each circle is a layer, filled if it is quantized. Lines lead down to the layers that read its output."),
        Table(caption, columns, rows, frozenset({6, 7}), head=1),
    ]


def _bars(costs: NetCosts) -> list[Block]:
    inputs = costs.model.inputs
    shown = [
        (layer, widths, before, after)
        for layer, widths, before, after in zip(
            costs.net.layers, costs.widths, costs.floats, costs.trimmed, strict=True
        )
        if not layer.is_source and (widths is not None or _matters(before, inputs))
    ]
    if not shown:
        return [Text("No layer has parameters or activations of its own.")]
    most = Costs(
        max(after.parameter_bits for *_, after in shown),
        max(after.bit_operations for *_, after in shown),
        max(after.activation_bits for *_, after in shown),
    )
    rows = [
        (
            layer.name,
            _bits(None if widths is None else widths.weights, before.parameter_bits > 0),
            _bits(None if widths is None else widths.layer_in, widths is not None),
            _bits(None if widths is None else widths.layer_out, widths is not None),
            size(before.parameter_bits) if before.parameter_bits else "",
            _bar(size(after.parameter_bits), after.parameter_bits, most.parameter_bits),
            _bar(size(after.activation_bits // inputs), after.activation_bits, most.activation_bits),
            _bar(amount(after.bit_operations // inputs), after.bit_operations, most.bit_operations),
        )
        for layer, widths, before, after in shown
    ]
    columns = (
        "layer",
        "bits of weights",
        "bits of input",
        "bits of output",
        "weights in 32 bits",
        "weights",
        "activations",
        "bit operations",
    )
    return [
        Text(
            "Bars of bits are relative to 32, other bars to the largest of the column. Activations are the blobs that "
            "a layer is the first to write."
        ),
        Table(f"Widths and costs, {costs.counted_for}", columns, rows, frozenset(range(1, len(columns)))),
    ]


def _matters(costs: Costs, inputs: int) -> bool:
    """Whether a layer has costs of a byte or an operation per input."""
    return costs.parameter_bits > 0 or costs.bit_operations >= inputs or costs.activation_bits >= 32 * inputs


def _bits(bits: int | None, has: bool) -> Bar | str:
    if not has:
        return ""
    return Bar("32" if bits is None else str(bits), (32 if bits is None else bits) / 32)


def _bar(text: str, value: int, most: int) -> Bar | str:
    return Bar(text, value / most) if value and most else ""


def _ratio(before: int, after: int) -> str:
    return f"{before / after:.1f} times less" if after and before > after else ""


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
