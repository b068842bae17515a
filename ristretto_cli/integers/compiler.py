"""From a trimmed net to its integer program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ristretto_cli.backends.shapes import Sized
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.integers.integer_ops import IntegerOps
from ristretto_cli.integers.program import HostLayer, Input, Place, Program, Step, read_by
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.integers.values import Constant, Integers, Value
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, forward
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.scoring.all_blobs import chosen_blobs, values_by_key

DEFAULT_AFFINE_BITS = 24


@dataclass(frozen=True)
class HostRead:
    """An array of integers that a layer on the host reads: its bottom, by index; place: the program's output."""

    layer: int
    bottom: int
    place: Place


@dataclass(frozen=True)
class Compiled:
    """A program, and what of the net is computed around it.

    before: the positions of the layers before it, after: of those after it. reads: what the latter read of it.
    finals: the blobs of the net that are places at the end, by name.
    """

    program: Program
    net: Net
    before: tuple[int, ...]
    after: tuple[int, ...]
    reads: tuple[HostRead, ...]
    finals: Mapping[str, Place]


def compile_program(
    net: Net,
    *,
    rounding: ShiftRounding = ShiftRounding.HALF_EVEN,
    affine_bits: int = DEFAULT_AFFINE_BITS,
) -> Compiled:
    """The integer program of a net for phase TEST, with weights.

    Layers whose inputs no trimmed layer computes stay before the program, those whose results no trimmed layer
    reads may stay after it. RistrettoError(s) where anything else has no integer form, one for each layer.
    """
    ops = IntegerOps(_batch(net), rounding=rounding, affine_bits=affine_bits)
    feeds: dict[str, Value] = {blob.name: Sized(blob.shape) for blob in in_graph(net.inputs)}
    run = forward(net, ops, feeds, rng=np.random.default_rng(0))
    kinds = _Kinds(net, ops, run)
    raise_all(kinds.errors)
    if not ops.recorded.trims:
        raise RistrettoError(
            "the net has no layer that is trimmed to fixed point", where=net.file, hint="Trim it: `ristretto quantize`."
        )
    inputs = _inputs(net, run, ops.recorded.trims)
    outputs: dict[str, Place] = {}
    reads = []
    for i in kinds.after:
        for k, (blob, value) in enumerate(zip(in_graph(net.layers[i].bottoms), run.inputs[i], strict=True)):
            place = _place_of(ops, value)
            if place is not None:
                reads.append(HostRead(i, k, place))
                _add_output(outputs, blob, place)
    finals = {}
    for blob in in_graph(net.outputs):
        place = _place_of(ops, run.final[blob.name])
        if place is not None:
            finals[blob.name] = place
            _add_output(outputs, blob, place)
    blobs, _ = chosen_blobs(net, ())
    by_key = {key: value for key, value in values_by_key(net, blobs, run).items() if isinstance(value, Integers)}
    found = {key: value.place for key, value in by_key.items()}
    kept = {key: place for key, place in found.items() if not key.endswith("@end") or place != found.get(key[:-4])}
    steps = _needed(ops.recorded.steps, [*outputs.values()])
    program = Program(
        name=net.name,
        inputs=tuple(inputs),
        steps=steps,
        outputs=outputs,
        blobs=_computed(kept, inputs, steps),
        host=tuple(HostLayer(net.layers[i].name, net.layers[i].type, kinds.reason(i)) for i in kinds.after),
        rounding=rounding,
    )
    return Compiled(program, net, tuple(kinds.before), tuple(kinds.after), tuple(reads), finals)


def _inputs(net: Net, run: Run[Value], trims: Sequence[tuple[str, Place]]) -> list[Input]:
    """The inputs, from the layers that quantized floats, in order, and the places that they made."""
    positions = {layer.name: i for i, layer in enumerate(net.layers)}
    floats = {
        name: [k for k, value in enumerate(run.inputs[positions[name]]) if isinstance(value, Sized)]
        for name, _ in trims
    }
    inputs = []
    for name, place in trims:
        bottom = floats[name].pop(0)
        blob = in_graph(net.layers[positions[name]].bottoms)[bottom]
        inputs.append(Input(place, blob.name, positions[name], bottom))
    return inputs


def _batch(net: Net) -> int:
    """The extent of the first axis of what the trimmed layers read."""
    for layer in net.layers:
        if not layer.is_source and LAYERS.get(layer.type).quantized and layer.bottoms[0].shape:
            return layer.bottoms[0].shape[0]
    return 1


class _Kinds:
    """Which layers are in the program, before it, and after it."""

    def __init__(self, net: Net, ops: IntegerOps, run: Run[Value]) -> None:
        self.before: list[int] = []
        self.after: list[int] = []
        self.errors: list[RistrettoError] = []
        self._net, self._ops = net, ops
        # For each storage: the layer that made floats of integers; None if it is before the program.
        floats: dict[int, Layer | None] = {}
        refused: set[str] = set()
        for i, layer in enumerate(net.layers):
            if layer.is_source:
                floats.update((top.storage, None) for top in layer.tops)
                continue
            inputs = dict(zip((b.storage for b in in_graph(layer.bottoms)), run.inputs[i], strict=True))
            origin: Layer | None = None
            from_integers = layer.on_host and any(b.storage not in floats for b in layer.bottoms)
            for blob in layer.bottoms:
                is_float = isinstance(inputs.get(blob.storage, Sized(())), (Sized, Constant))
                if is_float and floats.get(blob.storage) is not None:
                    origin = origin or floats[blob.storage]
                from_integers = from_integers or not is_float
            outputs = run.outputs[i] if not layer.on_host else ()
            trimmed = LAYERS.get(layer.type).quantized
            if trimmed and origin is not None and origin.name not in refused:
                refused.add(origin.name)
                self.errors.append(self._refusal(origin, layer))
            if trimmed:
                for blob in layer.bottoms:
                    floats.pop(blob.storage, None)
            if not layer.on_host and all(not isinstance(top, Sized) for top in outputs) and layer.tops:
                for blob in layer.tops:
                    floats.pop(blob.storage, None)
                continue
            if trimmed and origin is None and layer.name not in refused:
                refused.add(layer.name)
                self.errors.append(self._refusal(layer, layer))
            follows = origin is not None or from_integers
            (self.after if follows else self.before).append(i)
            for blob in layer.tops:
                floats[blob.storage] = (origin or layer) if follows else None

    def reason(self, i: int) -> str:
        """Why a layer is computed after the program."""
        layer = self._net.layers[i]
        found = self._ops.recorded.reasons.get(layer.name)
        return found.reason if found is not None and found.reason else f"{layer.type} has no integer form"

    def _refusal(self, layer: Layer, reader: Layer) -> RistrettoError:
        found = self._ops.recorded.reasons.get(layer.name)
        reason = found.reason if found is not None and found.reason else f"{layer.type} has no integer form"
        remedy = found.remedy if found is not None and found.remedy else ""
        if not remedy:
            remedy = "Train the net without it, or move it after the last trimmed layer."
        follows = "" if reader is layer else f', and the trimmed layer "{reader.name}" reads it'
        return RistrettoError(f'layer "{layer.name}" ({layer.type}): {reason}{follows}', where=layer.where, hint=remedy)


def _place_of(ops: IntegerOps, value: Value) -> Place | None:
    found = ops.settled(value) if not isinstance(value, (Sized, Constant)) else None
    return None if found is None else found.place


def _add_output(outputs: dict[str, Place], blob: Blob, place: Place) -> None:
    if place in outputs.values():
        return
    outputs[blob.name if blob.name not in outputs else place.name] = place


def _needed(steps: Sequence[Step], wanted: Iterable[Place]) -> tuple[Step, ...]:
    """The steps that these places depend on."""
    needed = {place.name for place in wanted}
    kept = []
    for step in reversed(steps):
        if step.y.name in needed:
            kept.append(step)
            needed.update(place.name for place in read_by(step))
    return tuple(reversed(kept))


def _computed(blobs: Mapping[str, Place], inputs: Sequence[Input], steps: Sequence[Step]) -> dict[str, Place]:
    """The blobs that the program computes."""
    names = {*(each.place.name for each in inputs), *(step.y.name for step in steps)}
    return {key: place for key, place in blobs.items() if place.name in names}
