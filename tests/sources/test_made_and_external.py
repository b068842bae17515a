"""DummyData, MemoryData and Input: layers without files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.open import DataLayers

from .conftest import layer

DUMMY = 'type: "DummyData" top: "a" top: "b" dummy_data_param { %s }'


def test_each_top_has_its_shape_and_filler(open_layer: Any) -> None:
    source = open_layer(DUMMY % "shape { dim: 2 dim: 3 } shape { dim: 1 } data_filler {} data_filler { value: 5 }")
    assert source.shapes == ((2, 3), (1,))
    a, b = source.next()
    assert a.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert b.tolist() == [5]


def test_one_shape_serves_all_tops_and_zeros_are_the_filler_where_none_is(open_layer: Any) -> None:
    a, b = open_layer(DUMMY % "shape { dim: 2 }").next()
    assert a.tolist() == b.tolist() == [0, 0]


def test_legacy_extents_are_given_once_or_per_top(open_layer: Any) -> None:
    source = open_layer(DUMMY % "num: [1, 2] channels: 3 height: [4, 5] width: 6")
    assert source.shapes == ((1, 3, 4, 6), (2, 3, 5, 6))


def test_random_tops_change_with_each_batch_and_constants_do_not(open_layer: Any) -> None:
    text = DUMMY % 'shape { dim: 4 } data_filler { type: "gaussian" } data_filler { value: 5 }'
    source = open_layer(text, seed=3)
    (a1, b1), (a2, b2) = source.next(), source.next()
    assert (a1 != a2).all()
    assert b1.tolist() == b2.tolist() == [5] * 4
    assert (open_layer(text, seed=3).next()[0] == a1).all()


def test_changing_a_batch_leaves_the_next_one_unchanged(open_layer: Any) -> None:
    source = open_layer(DUMMY % "shape { dim: 1 } data_filler { value: 5 }")
    source.next()[0][:] = 7
    assert source.next()[0].tolist() == [5]


def test_one_random_filler_fills_each_top_again(open_layer: Any) -> None:
    a, b = open_layer(DUMMY % 'shape { dim: 4 } data_filler { type: "uniform" }').next()
    assert (a != b).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("", "dummy_data_param.shape is given 0 times for 2 tops. Set it once, or once per top."),
        (
            "shape {} shape {} shape {}",
            "dummy_data_param.shape is given 3 times for 2 tops. Set it once, or once per top.",
        ),
        (
            "num: 1 channels: 1 height: 1",
            "dummy_data_param.width is given 0 times for 2 tops. Set it once, or once per top.",
        ),
        (
            "shape { dim: 1 } num: 1",
            "dummy_data_param has both shape and num, channels, height or width",
        ),
        (
            "shape { dim: 1 } data_filler {} data_filler {} data_filler {}",
            "dummy_data_param.data_filler is given 3 times for 2 tops. Set it once, or once per top.",
        ),
        ("shape { dim: 0 }", "top 0 has the shape 0. Every extent must be 1 or more."),
        ("shape { dim: 2 dim: -1 }", "top 0 has the shape 2x-1. Every extent must be 1 or more."),
        (
            "num: 65536 channels: 65536 height: 1 width: 1",
            "top 0 has the shape 65536x65536x1x1, which is too large for a blob",
        ),
        (
            'shape { dim: 1 } data_filler { type: "gausian" }',
            'unknown filler "gausian". Did you mean gaussian?',
        ),
    ],
)
def test_bad_dummy_settings_are_reported_in_a_line(settings: str, says: str, open_layer: Any) -> None:
    with pytest.raises(RistrettoError) as caught:
        open_layer(DUMMY % settings)
    assert str(caught.value) == says


MEMORY = 'name: "m" type: "MemoryData" top: "data" top: "label" memory_data_param { %s }'
INPUT = 'name: "i" type: "Input" top: "a" top: "b" input_param { %s }'


def test_memory_data_knows_its_shapes_but_has_no_batches(open_layer: Any) -> None:
    source = open_layer(MEMORY % "batch_size: 2 channels: 3 height: 4 width: 5")
    assert source.is_external
    assert source.shapes == ((2, 3, 4, 5), (2,))
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == (
        'layer "m": MemoryData layers have no data of their own. Set its blobs (data, label) with --input x.npz.'
    )


def test_inputs_share_a_shape_or_have_one_each(open_layer: Any) -> None:
    assert open_layer(INPUT % "shape { dim: 2 dim: 3 }").shapes == ((2, 3), (2, 3))
    source = open_layer(INPUT % "shape { dim: 2 } shape { dim: 4 dim: 1 }")
    assert source.shapes == ((2,), (4, 1))
    with pytest.raises(RistrettoError, match=r'^layer "i": Input layers .* \(a, b\) with --input x\.npz\.$'):
        source.next()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MEMORY % "channels: 1", "memory_data_param.batch_size is not set. Set it to 1 or more."),
        (
            MEMORY % "batch_size: 1 channels: 3 height: 4",
            "memory_data_param has the shape 1x3x4x0. Every extent must be 1 or more.",
        ),
        (
            (MEMORY % "batch_size: 1").replace('top: "label"', ""),
            "expected 2 tops, got 1",
        ),
        (INPUT % "", "input_param.shape is not set. Add input_param { shape { dim: 1 ... } }."),
        (
            INPUT % "shape {} shape {} shape {}",
            "input_param.shape is given 3 times for 2 tops. Set it once, or once per top.",
        ),
        (
            INPUT % "shape { dim: -3 }",
            "input_param.shape 0 has the shape -3. Every extent must be 1 or more.",
        ),
        (
            INPUT % "shape { %s }" % ("dim: 1 " * 33),
            f"input_param.shape 0 has the shape {'x'.join('1' * 33)}, which is too large for a blob",
        ),
    ],
)
def test_bad_fed_settings_are_reported_in_a_line(text: str, says: str, open_layer: Any) -> None:
    with pytest.raises(RistrettoError) as caught:
        open_layer(text)
    assert str(caught.value) == says


def test_the_data_layers_of_caffe_are_known_by_name() -> None:
    layers = DataLayers()
    assert {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData"} <= set(layers.names())
    assert "Data" in layers
    assert "ReLU" not in layers
    assert layers.shapes(layer(INPUT % "shape { dim: 7 }"), TEST) == ((7,), (7,))


def test_batches_of_dummy_data_are_float32(open_layer: Any) -> None:
    assert {array.dtype for array in open_layer(DUMMY % "shape { dim: 1 }").next()} == {np.dtype(np.float32)}
