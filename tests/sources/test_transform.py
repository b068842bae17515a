from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.sources.transform import Transform

from .conftest import mean_file

# Two channels of 3x4: values 0..11 and 100..111.
IMAGE = np.stack([np.arange(12).reshape(3, 4), np.arange(100, 112).reshape(3, 4)]).astype(np.uint8)


def transform(text: str, phase: int = TEST, seed: int = 0) -> Transform:
    message = parse(text, "TransformationParameter", "t").message
    return Transform(message, phase, np.random.default_rng(seed))


def apply(text: str, images: Any = None, phase: int = TEST, seed: int = 0) -> Any:
    images = IMAGE[None] if images is None else images
    t = transform(text, phase, seed)
    out = t(images)
    assert out.dtype == np.float32
    assert out.shape == (len(images), *t.shape(images.shape[1:]))
    return out


def test_without_settings_pixels_become_floats() -> None:
    np.testing.assert_array_equal(apply(""), IMAGE[None])


def test_the_mean_is_subtracted_before_the_scale() -> None:
    out = apply("mean_value: 4 scale: 0.5")
    assert out[0, 0, 0].tolist() == [-2, -1.5, -1, -0.5]
    assert out[0, 1, 0].tolist() == [48, 48.5, 49, 49.5]


def test_each_channel_has_its_mean_value() -> None:
    out = apply("mean_value: 1 mean_value: 100")
    assert out[0, :, 0, 0].tolist() == [-1, 0]


def test_a_test_crop_is_the_centre_rounded_down() -> None:
    # (3 - 2) // 2 = 0 rows, (4 - 2) // 2 = 1 column
    assert apply("crop_size: 2")[0, 0].tolist() == [[1, 2], [5, 6]]
    assert apply("crop_size: 3")[0, 0].tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]


def test_the_mean_file_is_cropped_like_the_image(tmp_path: Path) -> None:
    file = mean_file(tmp_path / "mean", IMAGE.astype(np.float32) / 2)
    out = apply(f'crop_size: 2 mean_file: "{file}" scale: 2')
    assert out[0, 0].tolist() == [[1, 2], [5, 6]]
    shifted = apply(f'crop_size: 2 mean_file: "{file}" scale: 2', phase=TRAIN)
    assert (shifted % 1 == 0).all()  # x - x / 2, twice: the pixel itself, wherever the crop lies
    assert shifted[0, 0, 0, 1] - shifted[0, 0, 0, 0] == 1


def test_train_crops_reach_every_place_and_keep_channels_together() -> None:
    images = np.repeat(IMAGE[None], 200, axis=0)
    out = apply("crop_size: 2", images, TRAIN)
    corners = sorted({int(v) for v in out[:, 0, 0, 0]})
    assert corners == [0, 1, 2, 4, 5, 6]
    np.testing.assert_array_equal(out[:, 1], out[:, 0] + 100)
    np.testing.assert_array_equal(out[:, 0, 1, 1], out[:, 0, 0, 0] + 5)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_mirror_turns_about_half_of_the_images_in_either_phase(phase: int) -> None:
    out = apply("mirror: true", np.repeat(IMAGE[None], 400, axis=0), phase)
    plain = (out == IMAGE).all(axis=(1, 2, 3))
    turned = (out == IMAGE[..., ::-1]).all(axis=(1, 2, 3))
    assert (plain ^ turned).all()
    assert 150 < turned.sum() < 250


def test_the_same_seed_gives_the_same_crops_and_mirrors() -> None:
    images = np.repeat(IMAGE[None], 20, axis=0)
    first = apply("crop_size: 2 mirror: true", images, TRAIN, seed=3)
    np.testing.assert_array_equal(first, apply("crop_size: 2 mirror: true", images, TRAIN, seed=3))
    assert (first != apply("crop_size: 2 mirror: true", images, TRAIN, seed=4)).any()


def test_the_input_is_left_unchanged() -> None:
    images = np.ones((2, 1, 2, 2), np.float32)
    apply("mean_value: 1 scale: 3 mirror: true", images)
    assert (images == 1).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crop_size: 4", "crop_size 4 is larger than the image, 3x4"),
        (
            "mean_value: [1, 2, 3]",
            "transform_param has 3 mean_values for 2 channels. Set one, or one per channel.",
        ),
        ('mean_file: "m" mean_value: 1', "transform_param has both mean_file and mean_value. Use only one of them."),
        (
            "force_color: true force_gray: true",
            "transform_param has both force_color and force_gray. Use only one of them.",
        ),
        ('mean_file: "no/m"', "mean_file no/m does not exist. Relative paths start at the current folder."),
        ('mean_file: ""', "mean_file is not set"),
    ],
)
def test_bad_settings_are_reported_in_a_line(text: str, says: str) -> None:
    with pytest.raises(LayerError) as caught:
        transform(text).shape(IMAGE.shape)
    assert str(caught.value) == says


def test_a_mean_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = mean_file(tmp_path / "mean", np.zeros((2, 3, 3)))
    with pytest.raises(LayerError, match=r"mean_file .*mean is 2x3x3, but the image is 2x3x4$"):
        transform(f'mean_file: "{file}"').shape((2, 3, 4))


def test_a_mean_file_that_is_no_blob_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mean").write_bytes(b"\xff\xff\xff")
    for path in (tmp_path / "mean", tmp_path):
        with pytest.raises(RistrettoError, match=str(tmp_path)):
            transform(f'mean_file: "{path}"')
