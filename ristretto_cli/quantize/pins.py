"""Pins: bit widths that the user gives for parts of single layers, and layers that stay float.

They come from --bw and --skip, or from the lines of a settings file (--config).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.errors import Location, RistrettoError, did_you_mean, raise_all
from ristretto_cli.formats.number_format import LOSSLESS_BITS, Role, SearchGroup, TrimmingMode
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.quantize.trimmable import family_of, is_in

PARTS: Mapping[str, tuple[Role, ...]] = {
    "params": (Role.PARAMS,),
    "layer": (Role.LAYER_IN, Role.LAYER_OUT),
    "layer_in": (Role.LAYER_IN,),
    "layer_out": (Role.LAYER_OUT,),
    "bias": (Role.BIAS,),
}
FIRST, LAST = "first", "last"  # in --skip: the first and the last layer that can be quantized
_SKIP = "skip"
_WIDTHS = frozenset(map(str, range(1, LOSSLESS_BITS + 1)))
_MAX_NAMES = 8  # layers listed in an error

Pins = Mapping[str, Mapping[Role, int]]  # layer name to role to bits


@dataclass(frozen=True)
class Pin:
    """A fixed width for a part of a layer, in bits. where: the flag or the line that gives it, for errors."""

    layer: str
    part: str
    bits: int
    where: Location | str


@dataclass(frozen=True)
class Skip:
    """A layer that stays float, by its name or as FIRST or LAST. where: as in Pin."""

    layer: str
    where: Location | str


@dataclass(frozen=True)
class Settings:
    """The widths of groups, the pins and the skipped layers of a settings file. lines: of the groups."""

    groups: Mapping[str, int] = field(default_factory=dict)
    lines: Mapping[str, Location] = field(default_factory=dict)
    pins: tuple[Pin, ...] = ()
    skips: tuple[Skip, ...] = ()


def is_pin(name: str) -> bool:
    """Whether a name in --bw is a part of a layer, conv1.params; otherwise it is a group, conv_params."""
    return "." in name


def pin(name: str, bits: int, where: Location | str) -> Pin:
    """The pin with a name such as conv1.params; names of layers may contain dots themselves."""
    layer, _, part = name.rpartition(".")
    return Pin(layer, part, bits, where)


def read_settings(path: str) -> Settings:
    """Read a settings file: lines `conv_params: 8`, `conv1.params: 4` and `skip: conv1, ip2`.

    Text after # is a comment if the # starts a line or follows a blank. RistrettoErrors with the lines that are wrong.
    """
    groups: dict[str, int] = {}
    lines: dict[str, Location] = {}
    pins: dict[str, Pin] = {}
    skips: list[Skip] = []
    faults = []
    with open_to_read(path) as stream:
        text = stream.read()
    try:
        rows = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as fault:
        line = text.count(b"\n", 0, fault.start) + 1
        raise RistrettoError("not a text file in UTF-8", where=Location(path, line)) from None
    for number, row in enumerate(rows, 1):
        where = Location(path, number)
        try:
            key, value = _entry(row, where)
            if key == _SKIP:
                skips += [Skip(name, where) for name in _names(value, where)]
            elif key:
                if key in groups or key in pins:
                    before = lines[key] if key in lines else pins[key].where
                    raise RistrettoError(f"{key} is given twice", where=where, hint=f"The other line is {before}.")
                bits = _bits(key, value, where)
                if is_pin(key):
                    pins[key] = pin(key, bits, where)
                else:
                    groups[key], lines[key] = bits, where
        except RistrettoError as fault:
            faults.append(fault)
    raise_all(faults)
    return Settings(groups, lines, tuple(pins.values()), tuple(skips))


def _entry(row: str, where: Location) -> tuple[str, str]:
    """The key and the value of a line; empty ones if it has none."""
    content = row.strip()
    if content.startswith("#"):
        return "", ""
    comment = min((at for at in (content.find(" #"), content.find("\t#")) if at >= 0), default=len(content))
    content = content[:comment].strip()
    if not content:
        return "", ""
    head, colon, rest = content.partition(":")
    if head.strip() != _SKIP:
        head, colon, rest = content.rpartition(":")  # names of layers may contain colons
    if not colon or not head.strip():
        hint = "Write conv_params: 8, conv1.params: 8 or skip: conv1."
        raise RistrettoError(f'expected "key: value" instead of "{content}"', where=where, hint=hint)
    return head.strip(), rest.strip()


def _names(value: str, where: Location) -> list[str]:
    quoted = len(value) > 2 and value[0] == value[-1] == '"' and '"' not in value[1:-1]
    names = [value[1:-1]] if quoted else [name.strip() for name in value.split(",")]
    if not all(names):
        raise RistrettoError("skip without the name of a layer", where=where, hint="Write skip: conv1, ip2.")
    return names


def _bits(key: str, value: str, where: Location) -> int:
    if value not in _WIDTHS:
        raise RistrettoError(f'{key}: "{value}" is not a width', where=where, hint="Use 1 to 32 bits.")
    return int(value)


def skipped_layers(skips: Iterable[Skip], net: Net, layers: Sequence[Layer]) -> list[Layer]:
    """The layers that stay float, in the net's order; RistrettoErrors for names of no layer that can be quantized.

    layers: those that can be quantized.
    """
    faults, names = [], set()
    known = {layer.name for layer in layers}
    for skip in skips:
        name = skip.layer
        if layers and name not in known and name in (FIRST, LAST):
            name = layers[0 if name == FIRST else -1].name
        if name not in known:
            faults.append(_no_such_layer(name, skip.where, net, [*(layer.name for layer in layers), FIRST, LAST]))
        names.add(name)
    raise_all(faults)
    return [layer for layer in layers if layer.name in names]


def resolved_pins(
    pins: Iterable[Pin], net: Net, layers: Sequence[Layer], skipped: Collection[Layer], mode: TrimmingMode, name: str
) -> dict[str, dict[Role, int]]:
    """The pinned widths by layer and role; RistrettoErrors for those that are not possible.

    Pins on the command line replace those of a file. layers: those to quantize. skipped: those that stay float.
    name: the mode's.
    """
    found: dict[str, dict[Role, int]] = {}
    origins: dict[tuple[str, Role], Pin] = {}
    faults = []
    for each in sorted(pins, key=lambda pin: isinstance(pin.where, str)):  # those of files first
        fault = _fault(each, net, layers, skipped, mode, name)
        for role in PARTS.get(each.part, ()) if fault is None else ():
            before = origins.get((each.layer, role))
            if before is not None and isinstance(before.where, str) == isinstance(each.where, str):
                what = f"{each.layer}.{role.value} is given twice, by {before.part} and by {each.part}"
                fault = RistrettoError(what, where=each.where)
            found.setdefault(each.layer, {})[role] = each.bits
            origins[each.layer, role] = each
        if fault is not None:
            faults.append(fault)
    raise_all(faults)
    return found


def _fault(
    each: Pin, net: Net, layers: Sequence[Layer], skipped: Collection[Layer], mode: TrimmingMode, name: str
) -> RistrettoError | None:
    """The error in a pin, if any."""
    if not mode.per_layer:
        fixed = bool(mode.widths((), []))
        why = "has fixed widths" if fixed else f"has one width for the whole net, --bw {mode.groups[0].name}="
        hint = f"Omit it; --skip {each.layer} leaves the layer float."
        return RistrettoError(f"{name} {why}, and no widths of single layers", where=each.where, hint=hint)
    if each.layer in {layer.name for layer in skipped}:
        return RistrettoError(f'layer "{each.layer}" is skipped, so it has no widths', where=each.where)
    layer = next((layer for layer in layers if layer.name == each.layer), None)
    parts = [part for part, roles in PARTS.items() if Role.BIAS not in roles or mode.has_bias_format]
    if layer is None:
        whole = f"{each.layer}.{each.part}"
        if any(other.name == whole for other in layers):
            hint = f"Add a part: {whole}.params, for example."
            return RistrettoError(f'the part of layer "{whole}" is missing', where=each.where, hint=hint)
        return _no_such_layer(each.layer, each.where, net, [layer.name for layer in layers])
    if each.part not in parts:
        near = did_you_mean(each.part, parts) or f"Parts: {', '.join(parts)}."
        return RistrettoError(f'a layer has no part "{each.part}"', where=each.where, hint=near)
    if PARTS[each.part] == (Role.BIAS,) and len(layer.params) < 2:
        return RistrettoError(f'layer "{each.layer}" has no biases', where=each.where)
    return None


def _no_such_layer(name: str, where: Location | str, net: Net, known: Sequence[str]) -> RistrettoError:
    near = did_you_mean(name, known)
    present = next((layer for layer in net.layers if layer.name == name), None)
    if present is not None:
        what = f'layer "{name}" ({present.type}) cannot be quantized'
        return RistrettoError(what, where=where, hint="Only layers such as Convolution and InnerProduct can.")
    more = f" and {len(known) - _MAX_NAMES} more" if len(known) > _MAX_NAMES else ""
    hint = near or f"Its layers: {', '.join(known[:_MAX_NAMES])}{more}."
    return RistrettoError(f'the net has no layer "{name}" that can be quantized', where=where, hint=hint)


def is_pinned(group: SearchGroup, layers: Iterable[Layer], pins: Pins) -> bool:
    """Whether every width of a group is pinned, at least one."""
    own = [layer for layer in layers if is_in(group, family_of(layer), layer)]
    return bool(own) and all(role in pins.get(layer.name, {}) for layer in own for role in group.roles)


def pin_lines(layers: Iterable[Layer], pins: Pins) -> Iterator[str]:
    """A line for each layer with pinned widths, in order: `conv1: params 8bit, layer_in 8bit`."""
    for layer in layers:
        if layer.name in pins:
            yield f"{layer.name}: {', '.join(f'{role.value} {bits}bit' for role, bits in pins[layer.name].items())}"
