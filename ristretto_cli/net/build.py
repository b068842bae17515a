"""From a NetParameter to the Net of one phase: selects its layers, connects them and infers all shapes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ristretto_cli.backends.shapes import ShapeOps, Sized, sized
from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.errors import LayerError, Location, RistrettoError, did_you_mean, raise_all
from ristretto_cli.extensions import ExtensionError
from ristretto_cli.formats.number_format import layer_formats
from ristretto_cli.layers.host_layer import HostLayer, readers
from ristretto_cli.layers.layer_type import LAYERS, LayerType
from ristretto_cli.net.ir import AUTOMATIC, Blob, Layer, Net, Param, ParamDef
from ristretto_cli.ops import DYNAMIC, Shape, show

log = logging.getLogger("ristretto")


_MAX_SHOWN = 30  # blobs in a message


class DataLayerTypes(Protocol):
    """The data layers available to a net."""

    def names(self) -> list[str]: ...
    def __contains__(self, type_name: str) -> bool: ...
    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        """The shapes of the tops."""


@dataclass(frozen=True)
class NetState:
    """The state that a net is built for. Phase and level override the file's `state`; stages add to its stages."""

    phase: int = TEST
    level: int = 0
    stages: tuple[str, ...] = ()


def included(net_file: NetFile, state: NetState) -> Iterator[tuple[Message, Location]]:
    """The layers whose include and exclude rules match a state, in the file's order.

    RistrettoError(s) for layers that have rules of both kinds.
    """
    layers = list(zip(net_file.message.layer, net_file.layers, strict=True))
    raise_all(
        RistrettoError(
            f'layer "{message.name}" has both include and exclude rules', where=where, hint="Use only one of them."
        )
        for message, where in layers
        if message.include and message.exclude
    )
    stages = {*state.stages, *net_file.message.state.stage}
    for message, where in layers:
        if message.include:
            holds = any(_meets(rule, state, stages) for rule in message.include)
        else:
            holds = not any(_meets(rule, state, stages) for rule in message.exclude)
        if holds:
            yield message, where


def _meets(rule: Message, state: NetState, stages: set[str]) -> bool:
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


def build(net_file: NetFile, state: NetState, data: DataLayerTypes) -> Net:
    """The net for a state, without weights.

    Raises RistrettoError(s) for all its errors: unknown types and bottoms, wrong counts, shapes
    that don't fit, each with file, line and layer.
    """
    layers = list(included(net_file, state))
    if not layers:
        hint = "Check the include and exclude rules of its layers."
        raise RistrettoError(f"the net has no layers for {_state_text(state)}", where=net_file.file, hint=hint)
    _warn_of_unused_state(net_file, state)
    return build_layers(net_file, layers, state.phase, data)


def _warn_of_unused_state(net_file: NetFile, state: NetState) -> None:
    """Log a warning for stages, and for a level, that no layer's rules mention."""
    rules = [rule for message in net_file.message.layer for rule in (*message.include, *message.exclude)]
    known = {stage for rule in rules for stage in (*rule.stage, *rule.not_stage)}
    for stage in dict.fromkeys(state.stages):
        if stage not in known:
            log.warning('Stage "%s" has no effect: no layer of %s has a rule for it.', stage, net_file.file)
    if state.level and not any(rule.HasField("min_level") or rule.HasField("max_level") for rule in rules):
        log.warning("Level %d has no effect: no layer of %s has a rule for levels.", state.level, net_file.file)


def build_layers(
    net_file: NetFile, layers: Sequence[tuple[Message, Location]], phase: int, data: DataLayerTypes
) -> Net:
    """The net of these layers, at least one, regardless of their rules."""
    builder = _Builder(data, phase, layers)
    for message, where in layers:
        builder.add(message, where)
    builder.reject_shared_in_place()
    raise_all(builder.errors)
    return Net(
        name=net_file.message.name,
        phase=phase,
        layers=tuple(builder.layers),
        inputs=tuple(top for layer in builder.layers if layer.is_source for top in layer.tops),
        outputs=tuple(sorted(builder.unread(), key=lambda blob: blob.name)),
        file=net_file.file,
        force_backward=net_file.message.force_backward,
    )


@dataclass
class _Version:
    """One version of a blob: the layer that produced it, and its readers."""

    blob: Blob
    readers: list[Layer]


class _Builder:
    def __init__(self, data: DataLayerTypes, phase: int, layers: Sequence[tuple[Message, Location]]) -> None:
        self.layers: list[Layer] = []
        self.errors: list[RistrettoError] = []
        self._data = data
        self._phase = phase
        self._producers = {top: (message.name, where) for message, where in reversed(layers) for top in message.top}
        self._current: dict[str, _Version] = {}
        self._versions: list[_Version] = []
        self._broken: set[str] = set()  # tops of rejected layers: their readers are not checked
        self._storages = 0
        self._owners: dict[str, Param] = {}
        self._multipliers: dict[tuple[str, str], float] = {}  # of shared parameters, by name and field
        self._names_with_params: dict[str, Location] = {}

    def add(self, message: Message, where: Location) -> None:
        """Add a layer; if it is rejected, record the error and continue without it."""
        try:
            if self._broken.isdisjoint(message.bottom):
                self._add(message, where)
                return
        except LayerError as error:
            kind = f" ({message.type})" if message.type else ""
            self.errors.append(RistrettoError(f'layer "{message.name}"{kind}: {error}', where=where))
        except RistrettoError as error:
            self.errors.append(error)
        self._broken.update(message.top)

    def _add(self, message: Message, where: Location) -> None:
        phase = message.phase if message.HasField("phase") else self._phase
        bottoms = tuple(self._bottom(name) for name in message.bottom)
        layer = Layer(
            name=message.name,
            type=message.type,
            phase=phase,
            message=message,
            bottoms=bottoms,
            tops=tuple(Blob(name, (), -1) for name in message.top),
            where=where,
        )
        self._check_tops(layer)
        if message.type in self._data:
            if bottoms:
                raise LayerError("a data layer has no bottoms")
            layer = replace(layer, is_source=True)
            shapes: Sequence[Shape] = self._data_shapes(message, phase)
            storages: Sequence[int] = [self._new_storage() for _ in shapes]
            is_loss = False
        else:
            layer_type = self._type(message.type)
            if layer_type.is_loss and not layer.tops:
                layer = replace(layer, tops=(Blob(AUTOMATIC, (), -1),))
            _check_counts(layer, layer_type)
            layer = replace(layer, on_host=isinstance(layer_type, HostLayer))
            _check_in_graph(layer)
            if layer_type.quantized:
                layer_formats(message.quantization_param)  # rejects settings that no format allows
            layer = replace(layer, params=self._params(layer, layer_type.params(message, [b.shape for b in bottoms])))
            shapes = _top_shapes(layer, layer_type)
            storages = self._storages_of(layer, layer_type)
            is_loss = layer_type.is_loss
        layer = replace(
            layer,
            tops=tuple(
                Blob(top.name, tuple(shape), storage, on_host=layer.on_host or DYNAMIC in shape)
                for top, shape, storage in zip(layer.tops, shapes, storages, strict=True)
            ),
            loss_weights=_loss_weights(message, len(layer.tops), is_loss),
        )
        _check_losses(layer)
        self.layers.append(layer)
        for name in message.bottom:
            self._current[name].readers.append(layer)
        for top in layer.tops:
            if top.name == AUTOMATIC:
                continue
            self._current[top.name] = version = _Version(top, [])
            self._versions.append(version)

    def _bottom(self, name: str) -> Blob:
        if name in self._current:
            return self._current[name].blob
        if name in self._producers:
            producer, line = self._producers[name]
            raise LayerError(
                f'its bottom "{name}" is produced only later, by layer "{producer}" ({line})',
                hint="Move that layer up; a net has no cycles.",
            )
        names = list(self._current)
        more = "..., " * (len(names) > _MAX_SHOWN)
        known = more + ", ".join(names[-_MAX_SHOWN:]) or "none"
        raise LayerError(
            f'no layer produces its bottom "{name}"',
            hint=did_you_mean(name, self._current) or f"Blobs so far: {known}.",
        )

    def _check_tops(self, layer: Layer) -> None:
        read = [blob.name for blob in layer.bottoms]
        seen: set[str] = set()
        for i, top in enumerate(layer.tops):
            if not top.name:
                raise LayerError("one of its tops has no name", hint='Add a name: top: "...".')
            in_place = i < len(read) and read[i] == top.name
            if top.name in seen or (top.name in self._current and not in_place):
                raise LayerError(
                    f'its top "{top.name}" is also produced by another layer',
                    hint="Rename one of them.",
                )
            seen.add(top.name)

    def _data_shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        try:
            return self._data.shapes(message, phase)
        except RistrettoError as error:
            raise LayerError(str(error)) from error

    def _type(self, name: str) -> LayerType:
        if not name:
            raise LayerError("it has no type", hint='Add type: "...".')
        if name in LAYERS:
            try:
                return LAYERS.get(name)
            except ExtensionError as error:
                raise LayerError(str(error)) from error
        known = [*LAYERS.names(), *self._data.names()]
        raise LayerError(
            f'unknown layer type "{name}"', hint=did_you_mean(name, known) or f"Known: {', '.join(known)}."
        )

    def _params(self, layer: Layer, definitions: Sequence[ParamDef]) -> tuple[Param, ...]:
        specs = layer.message.param
        if len(specs) > len(definitions):
            raise LayerError(f"it has {len(specs)} param blocks but {len(definitions)} parameters")
        if definitions:
            if layer.name in self._names_with_params:
                raise LayerError(
                    f"{self._names_with_params[layer.name]} has a layer of the same name",
                    hint="Weights are matched by name: use unique names.",
                )
            self._names_with_params[layer.name] = layer.where or Location("")
        params = []
        for i, definition in enumerate(definitions):
            param = Param(layer.name, i, sized(definition.shape).shape, definition.filler)
            if i < len(specs) and specs[i].name:
                param = self._shared(param, specs[i])
            params.append(param)
        return tuple(params)

    def _shared(self, param: Param, spec: Message) -> Param:
        owner = self._owners.setdefault(spec.name, param)
        permissive = spec.share_mode == spec.PERMISSIVE
        if owner.shape != param.shape and not (permissive and math.prod(owner.shape) == math.prod(param.shape)):
            raise LayerError(
                f'parameter "{spec.name}" has shape {show(owner.shape)} in layer "{owner.owner}" '
                f"and {show(param.shape)} here"
            )
        for field in ("lr_mult", "decay_mult"):
            if spec.HasField(field):
                value = getattr(spec, field)
                known = self._multipliers.setdefault((spec.name, field), value)
                if known != value:
                    raise LayerError(
                        f'shared parameter "{spec.name}" has {field} {value:g} here and {known:g} in another layer',
                        hint="Set both to the same value, or set only one.",
                    )
        return replace(owner, shape=param.shape)

    def _storages_of(self, layer: Layer, layer_type: LayerType) -> list[int]:
        if layer_type.shares_memory(layer):
            return [layer.bottoms[0].storage for _ in layer.tops]
        in_place = [b.name for b in layer.bottoms]
        return [
            layer.bottoms[i].storage if i < len(in_place) and in_place[i] == top.name else self._new_storage()
            for i, top in enumerate(layer.tops)
        ]

    def _new_storage(self) -> int:
        self._storages += 1
        return self._storages - 1

    def reject_shared_in_place(self) -> None:
        """A blob that a layer overwrites must have no other reader, as in the original."""
        for version in self._versions:
            name = version.blob.name
            writers = [layer for layer in version.readers if name in (top.name for top in layer.tops)]
            others = [layer for layer in version.readers if layer not in writers[:1]]
            if writers and others:
                self.errors.append(
                    RistrettoError(
                        f'layer "{writers[0].name}" works in place on "{name}", which layer '
                        f'"{others[0].name}" also reads',
                        where=writers[0].where,
                        hint="Rename the top of the in-place layer.",
                    )
                )

    def unread(self) -> list[Blob]:
        """The blobs that no layer reads."""
        return [version.blob for version in self._current.values() if not version.readers]


def _state_text(state: NetState) -> str:
    phase = {TRAIN: "TRAIN", TEST: "TEST"}[state.phase]
    return ", ".join([f"phase {phase}", f"level {state.level}", *(f'stage "{stage}"' for stage in state.stages)])


def _check_counts(layer: Layer, layer_type: LayerType) -> None:
    read = [blob.name for blob in layer.bottoms]
    for kind, count, (low, high) in (
        ("bottom", len(layer.bottoms), layer_type.bottoms),
        ("top", len(layer.tops), layer_type.tops),
    ):
        if count < low or (high is not None and count > high):
            wanted = f"{low}" if high == low else f"{low} or more" if high is None else f"{low} to {high}"
            raise LayerError(f"expected {wanted} {kind}{'s' * (wanted != '1')}, got {count}")
    if layer_type.tops_match_bottoms and len(layer.tops) != len(layer.bottoms):
        raise LayerError(f"it has {len(layer.bottoms)} bottoms but {len(layer.tops)} tops: the numbers must match")
    if not layer_type.in_place and any(top.name in read for top in layer.tops):
        raise LayerError("in-place computation is not supported", hint="Use different names for top and bottom.")
    propagate_down = layer.message.propagate_down
    if propagate_down and len(propagate_down) != len(layer.bottoms):
        raise LayerError(f"it has {len(propagate_down)} propagate_down values but {len(layer.bottoms)} bottoms")


def _check_in_graph(layer: Layer) -> None:
    for blob in layer.bottoms:
        if blob.on_host and not layer.on_host:
            what = "has a variable number of items" if DYNAMIC in blob.shape else "is produced by a host layer"
            raise LayerError(
                f'its bottom "{blob.name}" ({show(blob.shape)}) {what}: only layers of type {readers()} can read it'
            )


def _check_losses(layer: Layer) -> None:
    for blob, weight in zip(layer.tops, layer.loss_weights, strict=True):
        if blob.on_host and weight != 0:
            raise LayerError(f'its top "{blob.name}" ({show(blob.shape)}) cannot be a loss', hint="Remove loss_weight.")


def _top_shapes(layer: Layer, layer_type: LayerType) -> Sequence[Shape]:
    if isinstance(layer_type, HostLayer):
        return layer_type.shapes(layer, [blob.shape for blob in layer.bottoms])
    ops = ShapeOps()
    bottoms = [Sized(blob.shape) for blob in layer.bottoms]
    params = [Sized(param.shape) for param in layer.params]
    return [top.shape for top in layer_type.forward(ops, layer, bottoms, params)]


def _loss_weights(message: Message, count: int, is_loss: bool) -> tuple[float, ...]:
    if message.loss_weight:
        if len(message.loss_weight) != count:
            raise LayerError(f"it has {len(message.loss_weight)} loss_weights but {count} tops")
        return tuple(message.loss_weight)
    return tuple(1.0 if is_loss and i == 0 else 0.0 for i in range(count))
