"""Nets whose data is not there: where the shapes come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ristretto_cli.analysis.nets_without_data import NetWithoutData, build_without_data
from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.build import NetState
from ristretto_cli.ops import Shape

DATA = """
layer {{ name: "d" type: "Data" top: "data" top: "label"
        transform_param {{ {} }} data_param {{ source: "none_lmdb" backend: LMDB batch_size: 8 }} }}
"""
IMAGES = """
layer {{ name: "d" type: "ImageData" top: "data" top: "label"
        image_data_param {{ source: "none.txt" batch_size: 2 {} }} }}
"""


def known(workshop: Any, text: str, given: Mapping[str, Shape] | None = None) -> NetWithoutData:
    return build_without_data(read_net(workshop.net(text)), NetState(), given or {})


def shapes(net: NetWithoutData) -> dict[str, Shape]:
    return {blob.name: blob.shape for blob in net.net.inputs}


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ("crop_size: 5 mean_value: 1 mean_value: 2", (8, 2, 5, 5)),
        ("crop_size: 5 force_gray: true", (8, 1, 5, 5)),
        ("crop_size: 5 force_color: true", (8, 3, 5, 5)),
    ],
)
def test_crop_size_gives_the_shape_of_a_missing_database(workshop: Any, settings: str, image: Shape) -> None:
    net = known(workshop, DATA.format(settings))
    assert shapes(net) == {"data": image, "label": (8,)}
    assert "guess" not in net.notes["d"]


@pytest.mark.parametrize("settings", ["crop_size: 5", "crop_size: 5 mean_value: 128"])
def test_three_channels_are_guessed_and_called_a_guess(workshop: Any, settings: str) -> None:
    net = known(workshop, DATA.format(settings))
    assert shapes(net)["data"] == (8, 3, 5, 5)
    assert net.notes["d"].startswith("data 8x3x5x5, label 8, from crop_size and, as a guess, 3 channels (")
    assert "none_lmdb does not exist" in net.notes["d"]


def test_a_mean_file_gives_the_shape(workshop: Any) -> None:
    mean = new("BlobProto", num=1, channels=4, height=6, width=7, data=[0.0] * 168)
    (workshop.folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    net = known(workshop, DATA.format('mean_file: "mean.binaryproto"'))
    assert shapes(net) == {"data": (8, 4, 6, 7), "label": (8,)}


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ("new_height: 4 new_width: 6", (2, 3, 4, 6)),
        ("new_height: 4 new_width: 6 is_color: false", (2, 1, 4, 6)),
    ],
)
def test_new_height_and_new_width_give_the_shape_of_missing_images(workshop: Any, settings: str, image: Shape) -> None:
    assert shapes(known(workshop, IMAGES.format(settings)))["data"] == image


def test_data_that_is_there_gives_the_shape(workshop: Any) -> None:
    workshop.database("none_lmdb", np.zeros((1, 2, 9, 9), np.uint8))
    net = known(workshop, DATA.format("crop_size: 5"))
    assert shapes(net)["data"] == (8, 2, 5, 5)
    assert net.notes == {}


@pytest.mark.parametrize("there", [False, True])
def test_a_given_shape_wins_and_labels_follow_its_batch(workshop: Any, there: bool) -> None:
    if there:
        workshop.database("none_lmdb", np.zeros((1, 2, 9, 9), np.uint8))
    net = known(workshop, DATA.format("crop_size: 5"), {"data": (3, 1, 7, 7)})
    assert shapes(net) == {"data": (3, 1, 7, 7), "label": (3,)}
    assert net.notes["d"].startswith("data 3x1x7x7, label 3, as given")


def test_all_tops_may_be_given(workshop: Any) -> None:
    net = known(workshop, DATA.format(""), {"data": (3, 1, 7, 7), "label": (3, 1)})
    assert shapes(net) == {"data": (3, 1, 7, 7), "label": (3, 1)}


def test_input_layers_take_a_given_shape_too(workshop: Any) -> None:
    text = 'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 dim: 2 } } }'
    assert shapes(known(workshop, text, {"a": (5, 3)})) == {"a": (5, 3), "b": (5, 2)}


@pytest.mark.parametrize(
    ("text", "given", "reported"),
    [
        (
            DATA.format(""),
            {},
            'net.prototxt:2: layer "d" (Data): the shape of "data" is unknown: data_param.source none_lmdb does not '
            "exist. Relative paths start at the current folder. Set it with --input_shape=data=N,C,H,W.",
        ),
        (DATA.format(""), {"label": (8,)}, '.*the shape of "data" is unknown.*'),
        (DATA.format(""), {"dat": (1,)}, 'net.prototxt: "dat" is not an input of the net. Did you mean data\\?'),
        (DATA.format(""), {"x": (1,)}, 'net.prototxt: "x" is not an input of the net. Inputs: data, label.'),
        (DATA.format("crop_size: 4000000000"), {}, ".*too large for a blob.*"),
        (
            DATA.format("").replace('top: "data" top: "label"', ""),
            {},
            'net.prototxt:2: layer "d" (Data): expected 1 or 2 tops, got 0',
        ),
        (DATA.format("crop_size: 5").replace("batch_size: 8", ""), {}, ".*data_param.batch_size is not set.*"),
        (DATA.format(f'mean_file: "{"m" * 5000}"'), {}, '.*the shape of "data" is unknown.*'),
        (DATA.format(""), {"data": (2**20, 2**20)}, '"data" has the shape 1048576x1048576, which is too large.*'),
    ],
)
def test_what_nothing_tells_is_refused_with_the_way_to_tell_it(
    workshop: Any, text: str, given: Mapping[str, Shape], reported: str
) -> None:
    with pytest.raises(RistrettoError, match=f"^{reported}$".replace("(Data)", r"\(Data\)")):
        known(workshop, text, given)
