"""The parts of SSD's augmentation: colours, effects, crops."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.sources.annotations import AnnotatedBoxes
from ristretto_cli.sources.colour_distortion import ColourDistortion
from ristretto_cli.sources.crop_sampler import CropSampler
from ristretto_cli.sources.noise import Noise

IMAGE = np.random.default_rng(0).integers(256, size=(12, 10, 3), dtype=np.uint8)


def settings(kind: str, text: str) -> Any:
    return text_format.Parse(text, new(kind))


def distorted(text: str, image: Any = IMAGE, count: int = 1, seed: int = 0) -> list[Any]:
    distortion, rng = ColourDistortion(settings("DistortionParameter", text)), np.random.default_rng(seed)
    return [distortion(image, rng, "here") for _ in range(count)]


def test_brightness_is_added_and_saturates() -> None:
    gray = np.array([[[0], [100], [250]]], np.uint8)
    deltas = []
    for out in distorted("brightness_prob: 1 brightness_delta: 30", gray, 200):
        delta = int(out[0, 1, 0]) - 100
        assert out[0, :, 0].tolist() == [max(delta, 0), 100 + delta, min(250 + delta, 255)]
        deltas.append(delta)
    assert min(deltas) < -25
    assert max(deltas) > 25
    assert max(map(abs, deltas)) <= 30


def test_contrast_is_a_factor() -> None:
    gray = np.array([[[0], [100], [200]]], np.uint8)
    middles = []
    for out in distorted("contrast_prob: 1 contrast_lower: 0.5 contrast_upper: 1.5", gray, 200):
        middles.append(int(out[0, 1, 0]))
        assert out[0, 0, 0] == 0
        assert abs(int(out[0, 2, 0]) - min(2 * middles[-1], 255)) <= 1
    assert min(middles) < 60
    assert max(middles) > 140


def test_without_saturation_an_image_is_gray() -> None:
    (out,) = distorted("saturation_prob: 1")
    np.testing.assert_array_equal(out, np.repeat(IMAGE.max(2, keepdims=True), 3, 2))


def test_hue_keeps_the_value_and_turns_the_colour() -> None:
    red = np.full((1, 1, 3), (0, 0, 255), np.uint8)
    outs = [out[0, 0].tolist() for out in distorted("hue_prob: 1 hue_delta: 18", red, 100)]
    assert all(out[2] == 255 for out in outs)
    assert max(out[1] for out in outs) > 100  # towards yellow
    assert all(out[0] == 0 for out in outs)  # OpenCV's hue does not go below 0


def test_channels_are_reordered() -> None:
    outs = distorted("random_order_prob: 1", count=100)
    orders = {tuple(int(np.argmax((out[..., [c]] == IMAGE).all((0, 1)))) for c in range(3)) for out in outs}
    assert len(orders) == 6


def test_each_change_has_its_probability() -> None:
    outs = distorted("brightness_prob: 0.25 brightness_delta: 90", count=400)
    assert 60 < sum(not np.array_equal(out, IMAGE) for out in outs) < 140


def test_nothing_is_changed_with_probabilities_of_0() -> None:
    for out in distorted("brightness_delta: 9 hue_delta: 9", count=10):
        np.testing.assert_array_equal(out, IMAGE)


def test_contrast_comes_before_or_after_the_colours() -> None:
    text = "saturation_prob: 1 saturation_lower: 0.5 saturation_upper: 0.5"
    text += " contrast_prob: 1 contrast_lower: 3 contrast_upper: 3"
    assert len({out.tobytes() for out in distorted(text, count=30)}) == 2


# ------------------------------------------------------------------ effects


def noisy(text: str, image: Any = IMAGE, seed: int = 0) -> Any:
    return Noise(settings("NoiseParameter", text))(image, np.random.default_rng(seed), "here")


def luma(image: Any) -> Any:
    return cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)[..., 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inverse: true", 255 - IMAGE),
        ("posterize: true", IMAGE // 64 * 64 + 32),
        ("decolorize: true", np.repeat(cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)),
        ("gauss_blur: true", cv2.GaussianBlur(IMAGE, (7, 7), 1.5)),
        ("erode: true", cv2.erode(IMAGE, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8))),
        ("jpeg: 30", cv2.imdecode(cv2.imencode(".jpg", IMAGE, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)),
        ("convert_to_hsv: true", cv2.cvtColor(IMAGE, cv2.COLOR_BGR2HSV)),
        ("inverse: true posterize: true", 255 - (IMAGE // 64 * 64 + 32)),
    ],
)
def test_effects(text: str, expected: Any) -> None:
    np.testing.assert_array_equal(noisy(text), expected)


@pytest.mark.parametrize("text", ["hist_eq: true", "clahe: true"])
def test_equalized_images_have_more_contrast(text: str) -> None:
    dull = (IMAGE // 4 + 96).astype(np.uint8)
    assert luma(noisy(text, dull)).std() > 1.2 * luma(dull).std()
    gray = dull[..., :1]
    assert noisy(text, gray).shape == gray.shape
    assert noisy(text, gray).std() > 1.2 * gray.std()


@pytest.mark.parametrize("text", ["gauss_blur: true", "jpeg: 50", "erode: true", "posterize: true inverse: true"])
def test_effects_keep_the_single_channel_of_gray_images(text: str) -> None:
    assert noisy(text, IMAGE[..., :1]).shape == (12, 10, 1)


def test_salt_and_pepper_are_a_share_of_the_pixels() -> None:
    black = np.zeros((40, 50, 3), np.uint8)
    text = "saltpepper: true saltpepper_param { fraction: 0.1 value: 1 value: 2 value: 300 }"
    out = noisy(text, black)
    spots = (out == (1, 2, 255)).all(2)
    assert (out[~spots] == 0).all()
    assert 150 < spots.sum() <= 200
    assert not np.array_equal(out, noisy(text, black, seed=1))


# ------------------------------------------------------------------ crops


def boxes(*corners: tuple[float, ...], sizes: float = np.nan) -> AnnotatedBoxes:
    count = len(corners)
    table = np.array(corners, np.float32).reshape(-1, 4)
    return AnnotatedBoxes(np.zeros((count, 2), np.float32), table, np.zeros(count), np.full(count, sizes, np.float32))


def crops(text: str, objects: AnnotatedBoxes, seed: int = 0) -> Any:
    return CropSampler(settings("BatchSampler", text))(objects, np.random.default_rng(seed))


def test_crops_have_the_scales_and_aspect_ratios_of_the_sampler() -> None:
    text = "sampler { min_scale: 0.3 max_scale: 0.6 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } max_trials: 500"
    found = crops(text, boxes())
    assert found.shape == (500, 4)
    assert (found >= 0).all()
    assert (found <= 1).all()
    width, height = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    scale, ratio = np.sqrt(width * height), width / height
    for values, low, high in ((scale, 0.3, 0.6), (ratio, 0.5, 2)):
        assert low - 1e-3 < values.min() < low * 1.1
        assert high * 0.9 < values.max() < high + 1e-3


def test_sides_do_not_exceed_the_image() -> None:
    text = "sampler { min_scale: 0.9 min_aspect_ratio: 0.1 max_aspect_ratio: 9 } max_trials: 100"
    found = crops(text, boxes())
    assert ((found[:, 2:] - found[:, :2]) <= 1).all()
    # The area is kept.
    assert (np.prod(found[:, 2:] - found[:, :2], axis=1) > 0.8).all()


def test_max_sample_ends_the_trials() -> None:
    every = crops("sampler { min_scale: 0.3 }", boxes())
    assert len(every) == 100
    np.testing.assert_array_equal(crops("sampler { min_scale: 0.3 } max_sample: 2", boxes()), every[:2])


def area(corners: Any) -> Any:
    return np.prod(np.maximum(corners[..., 2:] - corners[..., :2], 0), axis=-1)


@pytest.mark.parametrize(
    ("bound", "measure"),
    [
        ("jaccard_overlap", lambda crop, thing, both: both / (crop + thing - both)),
        ("sample_coverage", lambda crop, thing, both: both / crop),
        ("object_coverage", lambda crop, thing, both: both / thing),
    ],
)
def test_constraints_select_crops(bound: str, measure: Any) -> None:
    things = np.array([[0.1, 0.1, 0.4, 0.5], [0.5, 0.6, 0.9, 0.9]], np.float32)
    sampler = "sampler { min_scale: 0.2 max_scale: 0.8 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } max_trials: 300"
    objects = boxes(*things.tolist())
    every = crops(sampler, objects)
    low = np.maximum(every[:, None, :2], things[None, :, :2])
    high = np.minimum(every[:, None, 2:], things[None, :, 2:])
    both = area(np.concatenate([low, high], axis=2))
    values = measure(area(every)[:, None], area(things)[None], both)
    for text, kept in (
        (f"min_{bound}: 0.3", values >= 0.3),
        (f"min_{bound}: 0.01 max_{bound}: 0.1", (values >= 0.01) & (values <= 0.1)),
        (f"min_{bound}: 0.2 max_{bound}: 0.5", (values >= 0.2) & (values <= 0.5)),
    ):
        found = crops(f"{sampler} sample_constraint {{ {text} }}", objects)
        np.testing.assert_array_equal(found, every[kept.any(axis=1)])
        assert 0 < len(found) < 300
    assert len(crops(f"{sampler} sample_constraint {{ max_{bound}: 1 }}", objects)) == 300


def test_one_object_must_meet_all_constraints() -> None:
    # A crop of a quarter of the image: the first object covers it, the second lies in it.
    objects = boxes((0, 0, 1, 1), (0.45, 0.45, 0.55, 0.55))
    text = "sampler { min_scale: 0.5 max_scale: 0.5 } sample_constraint { min_sample_coverage: 0.9 %s }"
    assert len(crops(text % "", objects)) == 100
    assert len(crops(text % "min_object_coverage: 0.9", objects)) == 0


def test_the_area_that_a_box_states_counts() -> None:
    text = "sampler { min_scale: 0.9 max_scale: 0.9 } sample_constraint { min_object_coverage: 0.5 }"
    assert len(crops(text, boxes((0.4, 0.4, 0.6, 0.6)))) == 100
    assert len(crops(text, boxes((0.4, 0.4, 0.6, 0.6), sizes=1.0))) == 0
