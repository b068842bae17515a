"""Tile."""

import pytest


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("tiles: 2", [[1, 2, 1, 2], [3, 4, 3, 4]]),
        ("tiles: 2 axis: -1", [[1, 2, 1, 2], [3, 4, 3, 4]]),
        ("tiles: 3 axis: 0", [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2], [3, 4]]),
        ("tiles: 1", [[1, 2], [3, 4]]),
    ],
)
def test_copies_follow_one_another(bench, settings, expected):
    (top,) = bench.run("Tile", f"tile_param {{ {settings} }}", [[[1, 2], [3, 4]]])
    assert top.tolist() == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "tiles is missing or below 1"),
        ("tiles: 0", "tiles is missing or below 1"),
        ("tiles: -1", "tiles is missing or below 1"),
        ("tiles: 2 axis: 2", "axis 2 is out of range"),
        ("tiles: 2000000000", "has too many elements"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, said):
    assert said in bench.refusal("Tile", f"tile_param {{ {settings} }}", [(2, 3)])
