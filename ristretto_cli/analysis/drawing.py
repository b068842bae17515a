"""Drawing of a net: graphviz source with layers as boxes and blobs as octagons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.net.widths import widths_in

_BLOB = 'shape=octagon, fillcolor="#e8e8e8"'
_IN_PLACE, _PLAIN = "#b7e4b0", "#a9c4ee"
# The settings shown for a layer, and its colour.
_COLOURS = (("convolution_param", "#f2a097"), ("pooling_param", "#f7cd8a"), ("inner_product_param", "#d3b0ec"))


class Direction(Enum):
    """The direction of a drawing, as graphviz's rankdir."""

    LEFT_TO_RIGHT = "LR"
    RIGHT_TO_LEFT = "RL"
    TOP_TO_BOTTOM = "TB"
    BOTTOM_TO_TOP = "BT"


def dot_text(name: str, layers: Iterable[Message], direction: Direction) -> str:
    """The drawing of a net's LayerParameters in the dot language.

    Needs neither shapes nor weights, and accepts unknown layer types. RistrettoError for
    invalid widths of quantized layers.
    """
    nodes: list[str] = []
    edges: list[str] = []
    blobs: dict[str, str] = {}
    for number, layer in enumerate(layers):
        node = f"layer{number}"
        nodes.append(f'{node} [shape=box, fillcolor="{_colour(layer)}", label={_label(layer)}];')
        for blob in (*layer.bottom, *layer.top):
            if blob not in blobs:
                blobs[blob] = f"blob{len(blobs)}"
                nodes.append(f"{blobs[blob]} [{_BLOB}, label={_quoted([blob])}];")
        edges += [f"{blobs[bottom]} -> {node};" for bottom in layer.bottom]
        width = _maps(layer)
        edges += [f"{node} -> {blobs[top]}{width};" for top in layer.top]
    lines = [f"rankdir={direction.value};", 'node [style=filled, fontname="sans-serif"];', *nodes, *edges]
    return "\n".join([f"digraph {_quoted([name or 'Net'])} {{", *(f"  {line}" for line in lines), "}"]) + "\n"


def _label(layer: Message) -> str:
    kind = layer.type
    if layer.HasField("pooling_param"):
        kind = f"{kind} {enum_name(layer.pooling_param, 'pool')}"
    try:
        widths = widths_in(layer)
    except LayerError as error:
        raise RistrettoError(f'layer "{layer.name}" ({layer.type}): {error}') from error
    trimmed = [f"{widths} {widths.legend}"] if widths is not None else []
    return _quoted([layer.name, f"({kind})", *_window(layer), *trimmed])


def _window(layer: Message) -> list[str]:
    """The kernel, stride and padding of a layer in one line, if it has any."""
    if layer.HasField("convolution_param"):
        param, extra = layer.convolution_param, []
        if param.group != 1:
            extra = [f"group {param.group}"]
        if any(value != 1 for value in param.dilation):
            extra.append(f"dilation {_joined(param.dilation)}")
    elif layer.HasField("pooling_param"):
        param, extra = layer.pooling_param, []
        if param.global_pooling:
            return ["the whole map"]
    else:
        return []
    kernel = _setting(param, "kernel_size", "kernel", None)
    given = [f"kernel {kernel}"] if kernel is not None else []
    return [
        ", ".join(
            [
                *given,
                f"stride {_setting(param, 'stride', 'stride', '1')}",
                f"pad {_setting(param, 'pad', 'pad', '0')}",
                *extra,
            ]
        )
    ]


def _setting(param: Message, field: str, stem: str, default: str | None) -> str | None:
    """A setting as given: one number, one per axis, or as stem_h and stem_w."""
    sides = (f"{stem}_h", f"{stem}_w")
    if any(map(param.HasField, sides)):
        return _joined([getattr(param, side) for side in sides])
    value = getattr(param, field)
    if isinstance(value, int):  # pooling has one for both axes
        return str(value) if value or default is not None else None
    return _joined(value) if len(value) else default


def _joined(values: Sequence[int]) -> str:
    return "x".join(map(str, values))


def _maps(layer: Message) -> str:
    """The label of the edges to a layer's tops: its number of outputs, or the batch size of a data layer."""
    for field, value in layer.ListFields():
        if field.name in ("convolution_param", "inner_product_param"):
            return f" [label={_quoted([str(value.num_output)])}]"
        if field.name.endswith("data_param") and "batch_size" in value.DESCRIPTOR.fields_by_name:
            return f" [label={_quoted([f'batch {value.batch_size}'])}]"
    return ""


def _colour(layer: Message) -> str:
    if len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top):
        return _IN_PLACE
    return next((colour for param, colour in _COLOURS if layer.HasField(param)), _PLAIN)


def _quoted(lines: Sequence[str]) -> str:
    """Lines as one graphviz string, without control characters."""
    plain = ("".join(c for c in line if c.isprintable()).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return chr(34) + "\\n".join(plain) + chr(34)
