"""Reshape."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


def dims(*extents):
    return "shape { " + " ".join(f"dim: {extent}" for extent in extents) + " }"


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (dims(4, 6), (4, 6)),
        (dims(0, -1), (2, 12)),
        (dims(-1), (24,)),
        (dims(0, 0, 2, 2), (2, 3, 2, 2)),
        (dims(-1, 2) + " axis: 1", (2, 6, 2)),
        (dims(2, 2) + " axis: -2", (2, 3, 2, 2)),
        (dims(6) + " num_axes: 2", (6, 4)),
        (dims(1) + " axis: 1 num_axes: 0", (2, 1, 3, 4)),
        (dims(1, 1) + " axis: -1 num_axes: 0", (2, 3, 4, 1, 1)),
        (dims(0, 12) + " axis: 0 num_axes: -1", (2, 12)),
    ],
)
def test_the_new_axes_take_the_place_of_the_old(bench, settings, shape):
    x = np.arange(24).reshape(2, 3, 4)
    (top,) = bench.run("Reshape", f"reshape_param {{ {settings} }}", [x])
    assert top.shape == shape
    assert top.reshape(-1).tolist() == list(range(24))


def test_no_dims_drop_axes_of_extent_1(bench):
    (top,) = bench.run("Reshape", "reshape_param { axis: 1 num_axes: 1 }", [[[[1, 2]]]])
    assert top.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (dims(5, 5), "do not fill"),
        (dims(-1, 5), "no extent for dim -1"),
        (dims(-1, -1), "are not a shape"),
        (dims(-2, 12), "are not a shape"),
        (dims(2, 3, 4, 0), "keeps the bottom's extent on axis 3"),
        (dims(24) + " axis: 4", "axis 4 is out of range"),
        (dims(24) + " axis: -5", "axis -5 is out of range"),
        (dims(24) + " num_axes: -2", "num_axes is -2"),
        (dims(24) + " axis: 2 num_axes: 2", "extend past the end"),
        (dims(*[1] * 33), "more than 32 axes"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(bench, settings, what):
    assert what in bench.refusal("Reshape", f"reshape_param {{ {settings} }}", [(2, 3, 4)])


def test_the_top_is_the_bottoms_memory_and_not_in_place(bench):
    assert LAYERS.get("Reshape").shares_memory(bench.layer("Reshape", ""))
    assert not LAYERS.get("Reshape").in_place
