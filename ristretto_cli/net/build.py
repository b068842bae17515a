"""From a NetParameter to the Net of one phase: selects its layers, connects them and infers all shapes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ristretto_cli.backends.shapes import sized
from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.errors import LayerError, Location, MissingPath, RistrettoError, did_you_mean, raise_all
from ristretto_cli.extensions import ExtensionError
from ristretto_cli.layers.host_layer import HostLayer, host_loss
from ristretto_cli.layers.layer_type import LAYERS, LayerType
from ristretto_cli.net.ir import AUTOMATIC, Blob, Layer, Net, Param, ParamDef
from ristretto_cli.net.param_formats import param_formats
from ristretto_cli.net.reshape import likely_shape, top_shapes
from ristretto_cli.ops import DYNAMIC, Shape, show

log = logging.getLogger("ristretto")


_TRIMMED = "Ristretto"  # in the names of trimmed types
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
    return build_layers(net_file, layers, state.phase, data, state)


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
    net_file: NetFile,
    layers: Sequence[tuple[Message, Location]],
    phase: int,
    data: DataLayerTypes,
    state: NetState | None = None,
) -> Net:
    """The net of these layers, at least one, regardless of their rules. state: for which they were selected, if so."""
    builder = _Builder(data, phase, layers, {} if state is None else _producers_elsewhere(net_file, layers, state))
    builder.file = net_file.file
    for message, where in layers:
        builder.add(message, where)
    builder.reject_shared_in_place()
    raise_all(builder.errors)
    placed = builder.placed()
    tops = {top.name: top for layer in placed for top in layer.tops}
    return Net(
        name=net_file.message.name,
        phase=phase,
        layers=tuple(placed),
        inputs=tuple(top for layer in placed if layer.is_source for top in layer.tops),
        outputs=tuple(tops[name] for name in sorted(builder.unread())),
        file=net_file.file,
        force_backward=net_file.message.force_backward,
    )


@dataclass
class _Version:
    """One version of a blob: the layer that produced it, and its readers."""

    blob: Blob
    readers: list[Layer]


class _Builder:
    """elsewhere: for blobs that only layers of other states produce, what to say of these."""

    def __init__(
        self,
        data: DataLayerTypes,
        phase: int,
        layers: Sequence[tuple[Message, Location]],
        elsewhere: Mapping[str, str],
    ) -> None:
        self.file = ""
        self._elsewhere = elsewhere
        self.layers: list[Layer] = []
        self.errors: list[RistrettoError] = []
        self._data = data
        self._phase = phase
        self._producers = {
            top: (message.name, where)
            for message, where in reversed(layers)
            for top in message.top
            if top not in message.bottom  # an in-place layer needs another one that produces the blob
        }
        self._current: dict[str, _Version] = {}
        self._versions: list[_Version] = []
        self._broken: set[str] = set()  # tops of rejected layers: their readers are not checked
        self._storages = 0
        self._into_graph: set[int] = set()  # the storage of tops of host layers and of inputs that the graph reads
        # For blobs with DYNAMIC extents, two shapes that they may have: the likely one, and one that differs there.
        self._examples: dict[Blob, tuple[Shape, Shape]] = {}
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
            if layer_type.is_loss and not layer.tops and not isinstance(layer_type, HostLayer):
                layer = replace(layer, tops=(Blob(AUTOMATIC, (), -1),))
            _check_counts(layer, layer_type)
            layer = replace(layer, on_host=isinstance(layer_type, HostLayer))
            if layer_type.quantized:
                layer_type.formats(message)  # rejects settings that no format allows
            likely = self._for_example(layer, 0)
            definitions = layer_type.params(message, [blob.shape for blob in likely.bottoms])
            layer = replace(layer, params=self._params(layer, definitions))
            param_formats(layer)  # rejects a scale per filter without filters
            shapes = self._top_shapes(layer)
            storages = self._storages_of(layer, layer_type)
            is_loss = layer_type.is_loss
            if not layer.on_host:
                self._into_graph.update(blob.storage for blob in bottoms if blob.on_host)
                if likely.bottoms != bottoms and layer_type.states(likely):
                    raise LayerError("it keeps a state, so the number of items that it reads must not vary")
        layer = replace(
            layer,
            tops=tuple(
                Blob(top.name, tuple(shape), storage, on_host=layer.on_host or (layer.is_source and DYNAMIC in shape))
                for top, shape, storage in zip(layer.tops, shapes, storages, strict=True)
            ),
            loss_weights=_loss_weights(message, len(layer.tops), is_loss),
        )
        if any(DYNAMIC in top.shape for top in layer.tops):
            self._examples.update(zip(layer.tops, self._examples_of(layer), strict=True))
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
        if name in self._elsewhere:
            raise LayerError(f'its bottom "{name}" is {self._elsewhere[name]}')
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
        except MissingPath as error:
            raise error.seen_from(self.file) from error
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
        hint = _hint_of_trimmed(name, known) or did_you_mean(name, known) or f"Known: {', '.join(known)}."
        raise LayerError(f'unknown layer type "{name}"', hint=hint)

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

    def _for_example(self, layer: Layer, number: int) -> Layer:
        """The layer with examples for bottoms with DYNAMIC extents."""
        examples = self._examples
        bottoms = (replace(b, shape=examples[b][number]) if b in examples else b for b in layer.bottoms)
        return replace(layer, bottoms=tuple(bottoms))

    def _top_shapes(self, layer: Layer) -> Sequence[Shape]:
        """The shapes of the tops; an extent is DYNAMIC if it differs between examples of the bottoms."""
        if layer.on_host:
            return top_shapes(layer, [blob.shape for blob in layer.bottoms])
        likely, other = self._shapes_by_example(layer)
        return [
            tuple(one if one == two else DYNAMIC for one, two in zip(a, b, strict=True))
            for a, b in zip(likely, other, strict=True)
        ]

    def _shapes_by_example(self, layer: Layer) -> tuple[Sequence[Shape], Sequence[Shape]]:
        """The shapes of a graph layer's tops for both examples of its bottoms."""
        likely, other = (self._for_example(layer, number) for number in (0, 1))
        found = top_shapes(likely, [blob.shape for blob in likely.bottoms])
        if likely.bottoms == layer.bottoms:
            return found, found
        try:
            varied = top_shapes(other, [blob.shape for blob in other.bottoms])
        except LayerError:  # it fits the likely shape only
            return found, found
        same_axes = [len(shape) for shape in varied] == [len(shape) for shape in found]
        return found, varied if same_axes else found

    def _examples_of(self, layer: Layer) -> Sequence[tuple[Shape, Shape]]:
        """Examples for the shapes of a layer's tops."""
        if not (layer.is_source or layer.on_host):
            return list(zip(*self._shapes_by_example(layer), strict=True))
        bottom = self._for_example(layer, 0).bottoms[0].shape if layer.bottoms else ()
        likely = [likely_shape(top.shape, bottom) for top in layer.tops]
        other = [
            tuple(n + (known == DYNAMIC) for n, known in zip(shape, top.shape, strict=True))
            for shape, top in zip(likely, layer.tops, strict=True)
        ]
        return list(zip(likely, other, strict=True))

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

    def unread(self) -> list[str]:
        """The names of the blobs that no layer reads."""
        return [name for name, version in self._current.items() if not version.readers]

    def placed(self) -> list[Layer]:
        """The layers, with those tops of host layers and inputs in the graph that it reads."""
        for layer in self.layers:
            if not self._into_graph.isdisjoint(top.storage for top in layer.tops if top.on_host):
                self._into_graph.update(top.storage for top in layer.tops)
        return [
            replace(layer, bottoms=self._placed(layer.bottoms), tops=self._placed(layer.tops)) for layer in self.layers
        ]

    def _placed(self, blobs: Sequence[Blob]) -> tuple[Blob, ...]:
        return tuple(replace(b, on_host=False) if b.storage in self._into_graph else b for b in blobs)


def _producers_elsewhere(
    net_file: NetFile, layers: Sequence[tuple[Message, Location]], state: NetState
) -> dict[str, str]:
    """For the tops of layers that a state leaves out, which layer produces them, and its rules."""
    there = {id(where) for _, where in layers}
    found: dict[str, str] = {}
    for message, where in zip(net_file.message.layer, net_file.layers, strict=True):
        if id(where) in there or not (message.include or message.exclude):
            continue
        for top in message.top:
            if top not in message.bottom:
                only = f'produced by layer "{message.name}" ({where}), which is {_rules_text(message)}'
                found.setdefault(top, f"{only}; this net is for {_state_text(state)}")
    return found


def _rules_text(message: Message) -> str:
    """The include or exclude rules of a layer in words."""
    rules = message.include or message.exclude
    word = "only in" if message.include else "not in"
    return f"{word} {' or '.join(_rule_text(rule) for rule in rules)}"


def _rule_text(rule: Message) -> str:
    parts = [f"phase {'TRAIN' if rule.phase == TRAIN else 'TEST'}"] if rule.HasField("phase") else []
    parts += [f"levels from {rule.min_level}"] if rule.HasField("min_level") else []
    parts += [f"levels up to {rule.max_level}"] if rule.HasField("max_level") else []
    parts += [f'stage "{stage}"' for stage in rule.stage] + [
        f'nets without stage "{stage}"' for stage in rule.not_stage
    ]
    return " and ".join(parts) or "every net"


def _hint_of_trimmed(name: str, known: Sequence[str]) -> str:
    """A hint for the trimmed type of a known one, such as LSTMRistretto, if no layer of that type is trimmed."""
    ordinary = name.replace(_TRIMMED, "")
    if _TRIMMED not in name or ordinary not in known:
        return ""
    trimmed = ", ".join(type_name for type_name in known if type_name.endswith(_TRIMMED))
    return f"Use {ordinary}, which computes in float, without quantization_param. The trimmed types are {trimmed}."


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


def _check_losses(layer: Layer) -> None:
    if host_loss(layer) is not None:
        return
    for blob, weight in zip(layer.tops, layer.loss_weights, strict=True):
        if blob.on_host and weight != 0:
            raise LayerError(f'its top "{blob.name}" ({show(blob.shape)}) cannot be a loss', hint="Remove loss_weight.")


def _loss_weights(message: Message, count: int, is_loss: bool) -> tuple[float, ...]:
    if message.loss_weight:
        if len(message.loss_weight) != count:
            raise LayerError(f"it has {len(message.loss_weight)} loss_weights but {count} tops")
        return tuple(message.loss_weight)
    return tuple(1.0 if is_loss and i == 0 else 0.0 for i in range(count))
