"""The wires of a net beside the rows of a table of its layers: one small drawing per row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ristretto_cli.net.ir import Net
from ristretto_cli.reports.report import Svg

_HEIGHT, _STEP, _MIDDLE = 28, 11, 7  # _MIDDLE: of the circles, from the left; the style sheet has it, too
_MOST_LANES = 16


@dataclass(frozen=True)
class _Lane:
    """A wire that passes other layers: from a row to others, the last of which is `end`, in a column."""

    start: int
    targets: frozenset[int]
    column: int

    @property
    def end(self) -> int:
        return max(self.targets)


def read_layers(net: Net) -> list[list[int]]:
    """For each layer the positions of the layers that it reads, in the order of its bottoms."""
    writers: dict[str, int] = {}
    found = []
    for position, layer in enumerate(net.layers):
        found.append(list(dict.fromkeys(writers[each.name] for each in layer.bottoms if each.name in writers)))
        writers.update((top.name, position) for top in layer.tops)
    return found


def wires(read: Sequence[Sequence[int]], filled: Sequence[bool]) -> list[Svg]:
    """A drawing for each layer: a circle, filled or not, with the wires to it and past it.

    read: as read_layers gives it. The drawings of consecutive rows fit together; each is as high as its row.
    Wires for which there is no column left are omitted.
    """
    lanes = list(_lanes(read))
    columns = 1 + max((lane.column for lane in lanes), default=0)
    return [_row(row, read, lanes, columns, fill) for row, fill in enumerate(filled)]


def _lanes(read: Sequence[Sequence[int]]) -> Iterable[_Lane]:
    """A lane for each layer that others than the next one read, in the first column that is free."""
    readers: dict[int, list[int]] = {}
    for row, sources in enumerate(read):
        for source in sources:
            if source < row - 1:
                readers.setdefault(source, []).append(row)
    busy_until: list[int] = []
    for start in sorted(readers):
        end = max(readers[start])
        free = next((i for i, busy in enumerate(busy_until) if busy <= start), len(busy_until))
        if free == _MOST_LANES:
            continue
        busy_until[free : free + 1] = [end]
        yield _Lane(start, frozenset(readers[start]), free + 1)


def _row(row: int, read: Sequence[Sequence[int]], lanes: Sequence[_Lane], columns: int, fill: bool) -> Svg:
    x0, middle = _MIDDLE, _HEIGHT // 2
    paths = []
    if row - 1 in read[row]:
        paths.append(f"M{x0} 0V{middle}")
    if row + 1 < len(read) and row in read[row + 1]:
        paths.append(f"M{x0} {middle}V{_HEIGHT}")
    for lane in lanes:
        x = x0 + 4 + lane.column * _STEP
        if lane.start == row:
            paths.append(f"M{x0} {middle}C{x} {middle} {x} {middle} {x} {_HEIGHT}")
        elif lane.start < row <= lane.end:
            if row in lane.targets:
                paths.append(f"M{x} 0C{x} {middle} {x} {middle} {x0} {middle}")
            if row < lane.end:
                paths.append(f"M{x} 0V{_HEIGHT}")
    width = x0 + 6 + columns * _STEP
    return Svg(
        f'<div style="width: {width}px"></div>'
        f'<svg width="{width}" viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{"".join(paths)}" vector-effect="non-scaling-stroke"/></svg>'
        f'<i class="dot{" full" if fill else ""}"></i>'
    )
