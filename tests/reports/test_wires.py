"""The wires beside a table of layers."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.reports.wires import read_layers, wires


def net(*layers: tuple[list[str], list[str]]) -> Net:
    """A net of layers that are given as their bottoms and tops."""

    def blobs(names: list[str]) -> tuple[Blob, ...]:
        return tuple(Blob(name, (1,), 0) for name in names)

    return Net(
        "net",
        TEST,
        tuple(
            Layer(f"layer{i}", "ReLU", TEST, new("LayerParameter"), blobs(bottoms), blobs(tops))
            for i, (bottoms, tops) in enumerate(layers)
        ),
        (),
        (),
    )


def test_a_layer_reads_the_last_layer_that_wrote_the_blob() -> None:
    in_place = net(([], ["x", "label"]), (["x"], ["y"]), (["y"], ["y"]), (["y", "label", "y"], ["z"]))
    assert read_layers(in_place) == [[], [0], [1], [2, 0]]


def segments(read: list[list[int]]) -> list[str]:
    """The paths of the drawings."""
    found = [re.search(r'd="([^"]*)"', each.markup) for each in wires(read, [False] * len(read))]
    return [each[1] for each in found if each is not None]


def ends(path: str) -> tuple[set[str], set[str]]:
    """The columns at which wires reach the upper and the lower edge of a drawing."""
    return (
        set(re.findall(r"M(\d+) 0", path)),
        set(re.findall(r"M(\d+) (?:0|14)V28", path)) | set(re.findall(r" (\d+) 28", path)),
    )


@pytest.mark.parametrize(
    "read",
    [
        [[], [0], [1]],
        [[], [0], [1, 0], [2, 0]],
        [[], [0], [1], [2, 0], [3, 1], [4, 0]],
        [[], [], [0], [1], [2, 3]],
        [[], *([i, 0] for i in range(30))],
        [[], *(list(range(i)) for i in range(1, 12))],
    ],
)
def test_wires_continue_from_one_row_to_the_next(read: list[list[int]]) -> None:
    paths = segments(read)
    assert len(paths) == len(read)
    assert ends(paths[0])[0] == ends(paths[-1])[1] == set()
    for above, below in pairwise(paths):
        assert ends(above)[1] == ends(below)[0]


def test_each_reader_has_a_wire() -> None:
    paths = segments([[], [0], [1], [2, 0], [3, 0]])
    assert [path.count("C") for path in paths] == [1, 0, 0, 1, 1]


def test_wires_without_a_column_left_are_omitted() -> None:
    dense = [list(range(i)) for i in range(60)]
    widest = max(
        int(width) for each in wires(dense, [True] * 60) for width in re.findall(r'svg width="(\d+)"', each.markup)
    )
    assert widest < 220
