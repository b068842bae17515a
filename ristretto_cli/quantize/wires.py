"""Wires: activations that hardware passes on as they are, so that all layers at their ends need one format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ristretto_cli.formats.number_format import Role
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Net
from ristretto_cli.quantize.trimmable import Trimmable
from ristretto_cli.scoring.samples import pooled_sample

End = tuple[str, Role]  # the input or the output of a layer, by the layer's name


class _Wires:
    """Disjoint sets of blobs, each as one layer wrote it, by numbers."""

    def __init__(self) -> None:
        self._parents: list[int] = []

    def new(self) -> int:
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def find(self, blob: int) -> int:
        while self._parents[blob] != blob:
            blob = self._parents[blob]
        return blob

    def join(self, blobs: Sequence[int]) -> None:
        for blob in blobs[1:]:
            self._parents[self.find(blob)] = self.find(blobs[0])


def wires(net: Net, layers: Sequence[Trimmable]) -> list[list[End]]:
    """The ends of each wire, in the order of the layers.

    A wire goes from the layer that writes a blob to all that read it, and through layers that keep the format of their
    bottoms. The bottoms of a layer that needs them in one format belong to one wire.
    """
    found, current = _Wires(), dict[str, int]()
    trimmed = {each.layer.name for each in layers}
    ends: list[tuple[End, int]] = []
    for layer in net.layers:
        bottoms = [current[bottom.name] for bottom in layer.bottoms]
        tops = [found.new() for _ in layer.tops]
        current.update((top.name, blob) for top, blob in zip(layer.tops, tops, strict=True))
        if layer.is_source:
            continue
        layer_type = LAYERS.get(layer.type)
        if layer.name in trimmed and layer.params:
            for role, blobs in ((Role.LAYER_IN, bottoms), (Role.LAYER_OUT, tops)):
                found.join(blobs)
                ends.append(((layer.name, role), blobs[0]))
        elif layer_type.keeps_format(layer):
            found.join([*bottoms, *tops])
        elif layer_type.needs_one_format:
            found.join(bottoms)
    by_wire: dict[int, list[End]] = {}
    for end, blob in ends:
        by_wire.setdefault(found.find(blob), []).append(end)
    return list(by_wire.values())


def with_ranges_of_wires(net: Net, layers: Sequence[Trimmable]) -> tuple[Trimmable, ...]:
    """The layers with ranges that are the same at all ends of a wire, so that their formats are; those on no wire with
    several ends as they are."""
    ranges = {each.layer.name: each.ranges for each in layers}
    joined: set[str] = set()
    for ends in wires(net, layers):
        if len(ends) == 1:
            continue
        joined |= {name for name, _ in ends}
        largest = max(ranges[name].of(role) for name, role in ends)
        known = [ranges[name].samples[role] for name, role in ends if role in ranges[name].samples]
        sample = pooled_sample(known) if known else None
        never_negative = all(role in ranges[name].never_negative for name, role in ends)
        for name, role in ends:
            old = ranges[name]
            ranges[name] = replace(
                old,
                layer_in=largest if role is Role.LAYER_IN else old.layer_in,
                layer_out=largest if role is Role.LAYER_OUT else old.layer_out,
                samples=old.samples if sample is None else {**old.samples, role: sample},
                never_negative=old.never_negative if never_negative else old.never_negative - {role},
            )
    return tuple(
        replace(each, ranges=ranges[each.layer.name]) if each.layer.name in joined else each for each in layers
    )
