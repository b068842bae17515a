from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.sources.resize_param import Resize

from .conftest import datum, encoded, mean_file

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(256, size=(40, 60, 3), dtype=np.uint8)


def resize(text: str) -> Resize:
    return Resize.of(parse(text, "ResizeParameter", "r").message)


def apply(text: str, image: Any = PHOTO) -> Any:
    setting = resize(text)
    out = setting(image, setting.interpolations[0], "here")
    assert out.dtype == np.uint8
    return out


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("", cv2.INTER_LINEAR),
        ("interp_mode: LINEAR", cv2.INTER_LINEAR),
        ("interp_mode: AREA", cv2.INTER_AREA),
        ("interp_mode: NEAREST", cv2.INTER_NEAREST),
        ("interp_mode: CUBIC", cv2.INTER_CUBIC),
        ("interp_mode: LANCZOS4", cv2.INTER_LANCZOS4),
    ],
)
def test_warp_is_opencvs_resize_with_the_interpolation(mode: str, number: int) -> None:
    out = apply(f"height: 25 width: 30 {mode}")
    np.testing.assert_array_equal(out, cv2.resize(PHOTO, (30, 25), interpolation=number))


def test_one_channel_keeps_its_axis() -> None:
    assert apply("height: 1 width: 2", np.full((4, 4, 1), 7, np.uint8)).tolist() == [[[7], [7]]]


def test_fit_small_size_lets_the_longer_side_reach_over() -> None:
    # 60 / 40 = 1.5 is wider than 1: height fits, width is 1.5 * 25 = 37.5, rounded down.
    out = apply("height: 25 width: 25 resize_mode: FIT_SMALL_SIZE")
    np.testing.assert_array_equal(out, cv2.resize(PHOTO, (37, 25)))
    # and upright: 2/3 is narrower than 1, so that width fits; 25 / (2/3) = 37.5
    out = apply("height: 25 width: 25 resize_mode: FIT_SMALL_SIZE", PHOTO.transpose(1, 0, 2))
    assert out.shape == (37, 25, 3)


WHITE = np.full((2, 4, 1), 255, np.uint8)


def test_fit_large_size_pads_the_shorter_side() -> None:
    # 4 / 2 = 2 is wider than 4 / 5: width fits, height is 4 / 2 = 2; of 3 rows of padding, one is above.
    out = apply("height: 5 width: 4 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 9", WHITE)
    assert out[:, 0, 0].tolist() == [9, 255, 255, 9, 9]
    out = apply("height: 4 width: 5 resize_mode: FIT_LARGE_SIZE_AND_PAD", WHITE.transpose(1, 0, 2))
    assert out[0, :, 0].tolist() == [0, 255, 255, 0, 0]


RAMP = np.array([[[10], [20]], [[30], [40]], [[50], [60]]], np.uint8)  # three rows of two pixels


@pytest.mark.parametrize(
    ("mode", "row"),
    [
        ("CONSTANT", [7, 7, 10, 20, 7, 7]),
        ("MIRRORED", [10, 20, 10, 20, 10, 20]),
        ("REPEAT_NEAREST", [10, 10, 10, 20, 20, 20]),
    ],
)
def test_pad_modes(mode: str, row: list[int]) -> None:
    text = f"height: 3 width: 6 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_mode: {mode} pad_value: 7"
    assert apply(text, RAMP)[0, :, 0].tolist() == row


def test_each_channel_has_its_pad_value_or_all_have_the_one() -> None:
    text = "height: 60 width: 60 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 104"
    assert apply(text)[0, 0].tolist() == [104, 104, 104]
    # OpenCV rounds to the nearest, ties to even, and saturates.
    assert apply(text + " pad_value: 116.5 pad_value: 300")[0, 0].tolist() == [104, 116, 255]


def test_prob_has_no_effect_as_in_the_original() -> None:
    np.testing.assert_array_equal(apply("height: 9 width: 8 prob: 0"), cv2.resize(PHOTO, (8, 9)))


def test_of_several_interpolations_each_image_gets_one() -> None:
    setting = resize("height: 9 width: 8 interp_mode: NEAREST interp_mode: CUBIC")
    drawn = setting.drawn(1000, np.random.default_rng(1))
    assert 400 < drawn.count(cv2.INTER_NEAREST) < 600
    assert drawn.count(cv2.INTER_NEAREST) + drawn.count(cv2.INTER_CUBIC) == 1000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("width: 3", "resize_param has height 0 and width 3. Set both to 1 or more."),
        ("", "resize_param has height 0 and width 0. Set both to 1 or more."),
        ("height: 4000000000 width: 1", "resize_param: an image of 4000000000x1 is too large"),
        ("height: 30000 width: 30000", "resize_param: an image of 30000x30000 is too large"),
    ],
)
def test_sizes_that_no_image_has_are_refused(text: str, says: str) -> None:
    with pytest.raises(LayerError) as caught:
        resize(text)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("text", "shape", "says"),
    [
        (
            "height: 300 width: 300 resize_mode: FIT_SMALL_SIZE",
            (1, 30000, 1),
            "here: resize_param would resize the 1x30000 image to 300x9000000. Its aspect ratio is too extreme.",
        ),
        (
            "height: 300 width: 300 resize_mode: FIT_LARGE_SIZE_AND_PAD",
            (1, 30000, 1),
            "here: resize_param would resize the 1x30000 image to 0x300. Its aspect ratio is too extreme.",
        ),
        (
            "height: 2 width: 2 pad_value: 1 pad_value: 2",
            (3, 3, 3),
            "here: resize_param has 2 pad_values for 3 channels. Set one, or one per channel.",
        ),
        ("height: 2 width: 2", (3, 40000, 1), None),
    ],
)
def test_images_without_a_size_are_refused_by_their_place(text: str, shape: Any, says: str | None) -> None:
    image = np.zeros(shape, np.uint8)
    if says is None:
        assert apply(text, image).shape == (2, 2, 1)
        return
    with pytest.raises(RistrettoError) as caught:
        apply(text, image)
    assert str(caught.value) == says


# ------------------------------------------------------------------ the layers that have it

DATA = """type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: %d }
transform_param { resize_param { height: 8 width: 6 %s } %s }"""


def warped(image: Any) -> Any:
    return np.moveaxis(cv2.resize(image, (6, 8)), 2, 0)


def test_encoded_records_of_a_data_layer_are_resized_before_all_else(write: Any, open_layer: Any) -> None:
    write({"a": encoded(PHOTO, 1), "b": encoded(PHOTO[:9, :7], 2)})
    source = open_layer(DATA % (2, "", "crop_size: 4 mean_value: 10 scale: 0.5"))
    assert source.shapes == ((2, 3, 4, 4), (2,))
    images, labels = source.next()
    assert labels.tolist() == [1, 2]
    for image, photo in zip(images, (PHOTO, PHOTO[:9, :7]), strict=True):
        np.testing.assert_array_equal(image, (warped(photo)[:, 2:6, 1:5].astype(np.float32) - 10) / 2)


def test_the_mean_file_has_the_resized_images_shape(write: Any, open_layer: Any, tmp_path: Path) -> None:
    mean_file(tmp_path / "mean", np.full((3, 8, 6), 3))
    write({"a": encoded(PHOTO)})
    out = open_layer(DATA % (1, "", 'mean_file: "mean"')).next()[0]
    np.testing.assert_array_equal(out[0], warped(PHOTO).astype(np.float32) - 3)


def test_image_files_are_resized(open_layer: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), PHOTO)
    cv2.imwrite(str(tmp_path / "b.png"), PHOTO[:9, :7])
    (tmp_path / "list").write_text("a.png 1\nb.png 2\n")
    source = open_layer("""type: "ImageData" top: "data" top: "label"
        image_data_param { source: "list" batch_size: 2 } transform_param { resize_param { height: 8 width: 6 } }""")
    assert source.shapes == ((2, 3, 8, 6), (2,))
    np.testing.assert_array_equal(source.next()[0], np.stack([warped(PHOTO), warped(PHOTO[:9, :7])]))


def test_raw_records_of_the_right_size_pass_and_others_are_refused(write: Any, open_layer: Any) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(1, 8, 6)
    write({"a": datum(image), "b": datum(image[:, :7])})
    source = open_layer(DATA % (1, "", ""))
    np.testing.assert_array_equal(source.next()[0][0], image)
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == (
        'db: key "b": the image, 1x7x6, is not encoded, but resize_param needs encoded images. '
        "Store encoded images, or images of the right size."
    )


def test_the_same_seed_draws_the_same_interpolations(write: Any, open_layer: Any) -> None:
    write({f"{i}": encoded(PHOTO) for i in range(8)})
    text = DATA % (8, "interp_mode: NEAREST interp_mode: CUBIC interp_mode: AREA", "")
    first = open_layer(text, TRAIN, seed=5).next()[0]
    np.testing.assert_array_equal(first, open_layer(text, TRAIN, seed=5).next()[0])
    assert len({image.tobytes() for image in first}) > 1


def test_settings_are_checked_before_the_database_is_opened(open_layer: Any) -> None:
    with pytest.raises(LayerError, match=r"^resize_param has height 0"):
        open_layer((DATA % (1, "", "")).replace("height: 8", ""))
