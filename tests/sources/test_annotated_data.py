from __future__ import annotations

from contextlib import closing
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.ops import DYNAMIC
from ristretto_cli.sources.open import open_source

from .conftest import datum, encoded, layer, write_lmdb

LAYER = """type: "AnnotatedData" top: "data" top: "label"
data_param { source: "db" backend: LMDB batch_size: %d } transform_param { %s } annotated_data_param { %s }"""

PIXELS = np.random.default_rng(0).integers(256, size=(4, 8, 3), dtype=np.uint8)  # 4 rows of 8 pixels

Box = tuple[float, float, float, float]


def record(*groups: tuple[int, list[Box]], image: Any = PIXELS, typed: bool = True, png: bool = True) -> bytes:
    """An AnnotatedDatum; groups: a label and its boxes, which are numbered from 0 in each."""
    message = new("AnnotatedDatum")
    message.datum.MergeFromString(encoded(image, 7) if png else datum(image, 7))
    if typed:
        message.type = 0
    for label, boxes in groups:
        group = message.annotation_group.add(group_label=label)
        for number, box in enumerate(boxes):
            group.annotation.add(instance_id=number, bbox=dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)))
    return bytes(message.SerializeToString())


LEFT, RIGHT, ALL = (0.0, 0.25, 0.25, 0.75), (0.5, 0.0, 1.0, 0.5), (0.0, 0.0, 1.0, 1.0)


def rows(source: Any) -> Any:
    blob = source.next()[1]
    assert blob.dtype == np.float32
    assert blob.shape == (1, 1, blob.shape[2], 8)
    return blob[0, 0].tolist()


def test_each_box_is_a_row_after_its_images_number(write: Any, open_layer: Any) -> None:
    difficult = new("AnnotatedDatum")
    difficult.ParseFromString(record((15, [ALL])))
    difficult.annotation_group[0].annotation[0].bbox.difficult = True
    write({"a": record((3, [LEFT, RIGHT]), (1, [ALL])), "b": difficult.SerializeToString()})
    source = open_layer(LAYER % (2, "", ""))
    assert source.shapes == ((2, 3, 4, 8), (1, 1, DYNAMIC, 8))
    images, boxes = source.next()
    assert boxes.tolist() == [
        [
            [
                [0, 3, 0, 0, 0.25, 0.25, 0.75, 0],
                [0, 3, 1, 0.5, 0, 1, 0.5, 0],
                [0, 1, 0, 0, 0, 1, 1, 0],
                [1, 15, 0, 0, 0, 1, 1, 1],
            ]
        ]
    ]
    assert boxes.dtype == images.dtype == np.float32
    np.testing.assert_array_equal(images, np.stack([np.moveaxis(PIXELS, 2, 0)] * 2))


def test_the_number_of_rows_is_that_of_the_batch(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [LEFT] * 5)), "b": record(), "c": record((2, [ALL]))})
    source = open_layer(LAYER % (1, "", ""))
    assert [source.next()[1].shape for _ in range(4)] == [(1, 1, n, 8) for n in (5, 1, 1, 5)]


def test_a_batch_without_boxes_has_one_row_of_minus_one(write: Any, open_layer: Any) -> None:
    write({"a": record(), "b": record((4, []))})
    assert rows(open_layer(LAYER % (2, "", ""))) == [[-1] * 8]


def test_one_top_has_only_images(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]), typed=False)})
    source = open_layer((LAYER % (1, "", "")).replace('top: "label"', ""))
    assert source.shapes == ((1, 3, 4, 8),)
    assert len(source.next()) == 1


def test_records_without_a_type_have_their_labels_on_four_axes(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]), typed=False), "b": record(typed=False)})
    source = open_layer(LAYER % (2, "", ""))
    assert source.shapes == ((2, 3, 4, 8), (2, 1, 1, 1))
    assert source.next()[1].tolist() == [[[[7]]], [[[7]]]]


def test_anno_type_makes_them_boxes(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]), typed=False)})
    assert rows(open_layer(LAYER % (1, "", "anno_type: BBOX"))) == [[0, 1, 0, 0, 0, 1, 1, 0]]


def test_leveldb_holds_them_as_well(tmp_path: Any, open_layer: Any) -> None:
    plyvel = pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")
    with closing(plyvel.DB(str(tmp_path / "db"), create_if_missing=True)) as database:
        database.put(b"a", record((1, [ALL])))
    assert rows(open_layer((LAYER % (1, "", "")).replace("LMDB", "LEVELDB"))) == [[0, 1, 0, 0, 0, 1, 1, 0]]


# ------------------------------------------------------------------ what becomes of boxes


def test_boxes_are_cut_off_at_the_image_and_empty_ones_dropped(write: Any, open_layer: Any) -> None:
    boxes = [(-0.5, 0.25, 0.5, 2.0), (1.0, 0.0, 2.0, 1.0), (0.5, 0.5, 0.5, 0.75), (0.75, 0.0, 0.5, 1.0)]
    write({"a": record((1, boxes), (2, [(-1.0, -1.0, 0.0, 0.5)]))})
    assert rows(open_layer(LAYER % (1, "", ""))) == [[0, 1, 0, 0, 0.25, 0.5, 1, 0]]


def test_a_test_crop_takes_boxes_with_it(write: Any, open_layer: Any) -> None:
    # The middle 4 of 8 columns, all 4 rows: x from 0.25 to 0.75.
    write({"a": record((1, [LEFT, RIGHT, (0.375, 0.25, 0.5, 0.5)]))})
    source = open_layer(LAYER % (1, "crop_size: 4", ""))
    assert source.shapes[0] == (1, 3, 4, 4)
    assert rows(source) == [[0, 1, 1, 0.5, 0, 1, 0.5, 0], [0, 1, 2, 0.25, 0.25, 0.5, 0.5, 0]]


@pytest.mark.parametrize(
    ("constraint", "kept"),
    [
        ("", [0, 1, 2]),
        # Centres at 0.5, 0.8125 and 0.25; the crop reaches from 0.25 to 0.75, ends included.
        ("emit_constraint { }", [0, 2]),
        ("emit_constraint { emit_type: CENTER }", [0, 2]),
        # Shares within the crop: 1, 0.0625 / 0.25, and 0.125 / 0.25.
        ("emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.3 }", [0, 2]),
        ("emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.5 }", [0]),
        ("emit_constraint { emit_type: MIN_OVERLAP }", [0, 1, 2]),
    ],
)
def test_emit_constraint_decides_by_centre_or_share(
    constraint: str, kept: list[int], write: Any, open_layer: Any
) -> None:
    boxes = [(0.25, 0.0, 0.75, 1.0), (0.6875, 0.0, 0.9375, 1.0), (0.125, 0.0, 0.375, 1.0)]
    write({"a": record((1, boxes))})
    found = rows(open_layer(LAYER % (1, f"crop_size: 4 {constraint}", "")))
    assert [row[2] for row in found] == kept


def test_mirrored_images_have_mirrored_boxes(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [LEFT]))})
    source = open_layer(LAYER % (40, "mirror: true", ""))
    images, boxes = source.next()
    turned = (images == np.moveaxis(PIXELS[:, ::-1], 2, 0)).all(axis=(1, 2, 3))
    assert 5 < turned.sum() < 35
    for image in range(40):
        x = [0.75, 1.0] if turned[image] else [0.0, 0.25]
        assert boxes[0, 0, image].tolist() == [image, 1, 0, x[0], 0.25, x[1], 0.75, 0]


def test_a_warped_image_keeps_its_boxes(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [LEFT])), "b": record((1, [RIGHT]), image=PIXELS[:3, :5])})
    source = open_layer(LAYER % (2, "resize_param { height: 16 width: 16 interp_mode: CUBIC } mean_value: 100", ""))
    assert source.shapes[0] == (2, 3, 16, 16)
    images, boxes = source.next()
    for image, pixels in zip(images, (PIXELS, PIXELS[:3, :5]), strict=True):
        resized = cv2.resize(np.ascontiguousarray(pixels), (16, 16), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_array_equal(image, np.moveaxis(resized, 2, 0).astype(np.float32) - 100)
    assert boxes[0, 0].tolist() == [[0, 1, 0, 0, 0.25, 0.25, 0.75, 0], [1, 1, 0, 0.5, 0, 1, 0.5, 0]]


def test_padding_moves_boxes(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [LEFT, ALL])), "b": record((1, [LEFT]), image=PIXELS.transpose(1, 0, 2))})
    source = open_layer(LAYER % (2, "resize_param { height: 8 width: 8 resize_mode: FIT_LARGE_SIZE_AND_PAD }", ""))
    images, boxes = source.next()
    assert (images[0][:, [0, 1, 6, 7]] == 0).all()
    np.testing.assert_array_equal(images[0][:, 2:6], np.moveaxis(PIXELS, 2, 0))
    assert boxes[0, 0].tolist() == [
        [0, 1, 0, 0, 0.375, 0.25, 0.625, 0],
        [0, 1, 1, 0, 0.25, 1, 0.75, 0],
        [1, 1, 0, 0.25, 0.25, 0.375, 0.75, 0],
    ]


FIT_SMALL = "resize_param { height: 8 width: 8 resize_mode: FIT_SMALL_SIZE %s }"


def test_fit_small_size_gives_each_image_its_own_size(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [LEFT])), "b": record((1, [RIGHT]), image=PIXELS[:, :6])})
    source = open_layer(LAYER % (1, FIT_SMALL % "", ""))
    assert source.shapes[0] == (1, 3, 8, 16)
    first, second = source.next(), source.next()
    assert first[0].shape == (1, 3, 8, 16)
    assert second[0].shape == (1, 3, 8, 12)
    assert first[1][0, 0].tolist() == [[0, 1, 0, 0, 0.25, 0.25, 0.75, 0]]
    assert second[1][0, 0].tolist() == [[0, 1, 0, 0.5, 0, 1, 0.5, 0]]


def test_with_scales_boxes_are_parts_of_them(write: Any, open_layer: Any) -> None:
    # The image becomes 8x16: a box of a quarter of its width is half of 8.
    write({"a": record((1, [LEFT]))})
    source = open_layer(LAYER % (1, FIT_SMALL % "height_scale: 4 width_scale: 8", ""))
    assert rows(source) == [[0, 1, 0, 0, 0.5, 0.5, 1.5, 0]]


def test_scales_larger_than_what_is_shown_are_refused(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [LEFT]))})
    source = open_layer(LAYER % (1, FIT_SMALL % "height_scale: 9 width_scale: 8", ""))
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == (
        'db: key "a": the visible part of the image is 8x16, but height_scale and width_scale are 9 and 8. '
        "They must not be larger."
    )


# ------------------------------------------------------------------ augmentation

AUGMENTED = [
    ("distort_param { brightness_prob: 0.5 brightness_delta: 32 }", "", "distort_param"),
    ("expand_param { prob: 0.5 max_expand_ratio: 4 }", "", "expand_param"),
    ("noise_param { inverse: true }", "", "noise_param"),
    ("", "batch_sampler { sampler { min_scale: 0.3 } max_sample: 1 }", "batch_sampler"),
    ("", "batch_sampler { } batch_sampler { sample_constraint { min_jaccard_overlap: 0.1 } }", "batch_sampler"),
    (
        "distort_param { hue_prob: 1 }",
        "batch_sampler { sampler { min_scale: 0.4 max_scale: 0.5 } }",
        "distort_param, batch_sampler",
    ),
]


@pytest.mark.parametrize(("transform", "annotated", "names"), AUGMENTED)
def test_augmentation_is_refused_in_the_test_phase(
    transform: str, annotated: str, names: str, write: Any, open_layer: Any
) -> None:
    write({"a": record()})
    with pytest.raises(LayerError) as caught:
        open_layer(LAYER % (1, transform, annotated))
    assert str(caught.value) == (
        f"{names} would change the images at random in the TEST phase. "
        "Remove the augmentation from this layer; it is meant for the TRAIN phase."
    )


@pytest.mark.parametrize(("transform", "annotated", "names"), AUGMENTED)
def test_in_the_train_phase_it_changes_images_by_the_seed(
    transform: str, annotated: str, names: str, write: Any, open_layer: Any
) -> None:
    write({key: record((1, [LEFT, ALL])) for key in "abc"})
    text = LAYER % (3, f"resize_param {{ height: 8 width: 8 }} mirror: true {transform}", annotated)
    batches = []
    for seed in (1, 1, 2):
        source = open_layer(text, TRAIN, seed=seed)
        assert source.shapes[0] == (3, 3, 8, 8)
        batches.append([source.next() for _ in range(2)])
    for (images, boxes), (again, boxes_again) in zip(*batches[:2], strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(boxes, boxes_again)
    assert any(not np.array_equal(ours[0], theirs[0]) for ours, theirs in zip(batches[0], batches[2], strict=True))
    assert not np.array_equal(batches[0][0][0], batches[0][1][0])


def a_square(at: tuple[int, int], size: int = 16, extent: int = 40, value: int = 255) -> tuple[Any, Box]:
    """A dark image with a bright square, and its box."""
    image = np.full((extent, extent, 3), 10, np.uint8)
    image[at[0] : at[0] + size, at[1] : at[1] + size] = value
    return image, (at[1] / extent, at[0] / extent, (at[1] + size) / extent, (at[0] + size) / extent)


@pytest.mark.parametrize(
    ("transform", "annotated"),
    [
        ("expand_param { max_expand_ratio: 3 } mean_value: 30", ""),
        ("", "batch_sampler { sampler { min_scale: 0.4 max_scale: 0.9 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } }"),
        (
            "expand_param { max_expand_ratio: 2 } emit_constraint { emit_type: CENTER } mirror: true",
            "batch_sampler { sampler { min_scale: 0.3 } sample_constraint { min_object_coverage: 0.9 } }",
        ),
        ("distort_param { brightness_prob: 1 brightness_delta: 20 } mirror: true", ""),
        ("noise_param { gauss_blur: true } mirror: true", ""),
    ],
)
@pytest.mark.parametrize("png", [True, False])
def test_boxes_stay_around_their_objects(
    transform: str, annotated: str, png: bool, write: Any, open_layer: Any
) -> None:
    image, box = a_square((8, 15))
    write({"a": record((1, [box]), image=image if png else np.moveaxis(image, 2, 0), png=png)})
    text = LAYER % (30, f"resize_param {{ height: 80 width: 80 }} {transform}", annotated)
    images, boxes = open_layer(text, TRAIN, seed=3).next()
    seen = boxes[0, 0]
    assert len(seen) > 15
    for row in seen:
        bright = images[int(row[0])].mean(axis=0) > 120
        found = np.flatnonzero(bright.any(axis=0)), np.flatnonzero(bright.any(axis=1))
        ends = [found[0][0], found[1][0], found[0][-1] + 1, found[1][-1] + 1]
        np.testing.assert_allclose(row[3:7] * 80, ends, atol=6)  # crops end at whole pixels


def test_an_expansion_adds_a_border_of_the_mean(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]), image=np.full((3, 20, 20), 200, np.uint8), png=False)})
    text = "resize_param { height: 60 width: 60 } expand_param { max_expand_ratio: 4 } "
    means = "mean_value: 100 mean_value: 50 mean_value: 0.4"
    images, boxes = open_layer(LAYER % (20, text + means, ""), TRAIN, seed=1).next()
    sides = []
    for image, row in zip(images, boxes[0, 0], strict=True):
        inside = image[0] > 50
        if inside.mean() < 0.7:  # a narrow border is blurred by resizing
            np.testing.assert_allclose(np.median(image[:, ~inside], axis=1), [0, 0, -0.4], atol=1e-6)
        sides.append(row[5] - row[3])
        assert inside.mean() == pytest.approx(sides[-1] ** 2, abs=0.04)
    assert min(sides) < 0.4
    assert max(sides) > 0.6


def test_the_probability_of_an_expansion(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]))})
    text = "resize_param { height: 4 width: 4 } expand_param { prob: 0.25 max_expand_ratio: 4 }"
    boxes = open_layer(LAYER % (400, text, ""), TRAIN, seed=1).next()[1][0, 0]
    assert 70 < (boxes[:, 5] - boxes[:, 3] < 1).sum() < 130


def test_no_crop_meets_the_constraint_without_objects(write: Any, open_layer: Any) -> None:
    write({"a": record()})
    sampler = "batch_sampler { sampler { min_scale: 0.3 } sample_constraint { min_jaccard_overlap: 0.1 } }"
    source = open_layer(LAYER % (1, "resize_param { height: 4 width: 8 }", sampler), TRAIN)
    np.testing.assert_array_equal(source.next()[0][0], np.moveaxis(PIXELS, 2, 0))


def test_images_of_different_sizes_need_a_resize_param(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]))})
    sampler = "batch_sampler { sampler { min_scale: 0.3 } }"
    with pytest.raises(LayerError) as caught:
        open_layer(LAYER % (2, "", sampler), TRAIN)
    assert str(caught.value) == (
        "batch_sampler and expand_param give images of different sizes. Add a resize_param to transform_param."
    )
    assert open_layer(LAYER % (1, "", sampler), TRAIN).next()[0].shape[:2] == (1, 3)


@pytest.mark.parametrize(
    ("transform", "annotated", "said"),
    [
        ("distort_param { contrast_prob: 1 contrast_lower: 2 contrast_upper: 1 }", "", "contrast_lower 2"),
        ("distort_param { hue_prob: 1 hue_delta: -1 }", "", "distort_param.hue_delta must be 0 or more"),
        ("expand_param { max_expand_ratio: 2 } mean_file: 'm'", "", "expand_param cannot be combined with mean_file"),
        ("noise_param { convert_to_lab: true }", "", "noise_param.convert_to_lab is not supported"),
        ("noise_param { saltpepper: true }", "", "saltpepper_param needs a fraction from 0 to 1 and a value"),
        ("noise_param { jpeg: 101 }", "", "noise_param.jpeg is 101"),
        ("", "batch_sampler { sampler { min_scale: 0 } }", "min_scale 0 and max_scale 1"),
        ("", "batch_sampler { sampler { min_scale: 0.5 max_scale: 2 } }", "max_scale 2"),
        ("", "batch_sampler { sampler { min_scale: 0.5 min_aspect_ratio: 2 } }", "min_aspect_ratio 2"),
        ("", "batch_sampler { sampler { min_scale: 0.5 } max_trials: 10001 }", "max_trials 10001"),
    ],
)
def test_contradicting_settings_of_augmentation_are_refused(
    transform: str, annotated: str, said: str, write: Any, open_layer: Any
) -> None:
    write({"a": record()})
    with pytest.raises(LayerError) as caught:
        open_layer(LAYER % (1, transform, annotated), TRAIN)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        ("distort_param { hue_prob: 1 hue_delta: 1 }", "distort_param's hue needs 3 channels, but the image has 1"),
        ("noise_param { decolorize: true }", "noise_param's decolorize cannot be applied to an image of 1 channels"),
        ("noise_param { saltpepper: true saltpepper_param { fraction: 1 value: 1 value: 2 } }", "has 2 values for 1"),
        ("expand_param { max_expand_ratio: 1e9 }", "expand_param would expand the 4x8 image to"),
    ],
)
def test_an_image_that_does_not_fit_the_augmentation_is_named(
    transform: str, said: str, write: Any, open_layer: Any
) -> None:
    write({"a": record(image=PIXELS[..., 0])})
    source = open_layer(LAYER % (1, transform, ""), TRAIN)
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert said in str(caught.value)


def test_a_later_image_needs_as_many_mean_values(write: Any, open_layer: Any) -> None:
    write({"a": record(), "b": record(image=PIXELS[..., 0])})
    text = "expand_param { max_expand_ratio: 2 } mean_value: 1 mean_value: 2 mean_value: 3"
    source = open_layer(LAYER % (1, text, ""), TRAIN)
    source.next()
    with pytest.raises(RistrettoError, match=r'^db: key "b": transform_param has 3 mean_values for 1 channels'):
        source.next()


def test_records_of_floats_are_not_augmented(write: Any, open_layer: Any) -> None:
    write({"a": record(image=np.ones((3, 4, 4), np.float32), png=False)})
    text = "distort_param { brightness_prob: 1 }"
    with pytest.raises(RistrettoError) as caught:
        open_layer(LAYER % (1, text, ""), TRAIN)
    assert "the record has float_data, but augmentation needs images of bytes" in str(caught.value)


def jpeg(image: Any) -> Any:
    return cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("transform", "annotated", "times"),
    [
        ("", "", 0),
        ("", "batch_sampler { }", 1),  # as the test nets of MobileNet-SSD have it
        ("", "batch_sampler { max_sample: 1 max_trials: 1 }", 1),
        ("", "batch_sampler { max_sample: 0 }", 0),
        ("", "batch_sampler { use_original_image: false sampler { min_scale: 0.1 } }", 0),
        ("distort_param { brightness_delta: 32 }", "", 1),
        ("distort_param { }", "batch_sampler { }", 2),
        ("expand_param { prob: 0 max_expand_ratio: 2 }", "", 0),
        ("expand_param { max_expand_ratio: 1.005 }", "", 0),
    ],
)
@pytest.mark.parametrize("phase", [TEST, TRAIN])
def test_settings_that_draw_nothing_compress_the_image_again_as_in_the_original(
    transform: str,
    annotated: str,
    times: int,
    phase: int,
    write: Any,
    open_layer: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write({"a": record((1, [LEFT]))})
    images, boxes = open_layer(LAYER % (1, transform, annotated), phase).next()
    expected = PIXELS
    for _ in range(times):
        expected = jpeg(expected)
    np.testing.assert_array_equal(images[0], np.moveaxis(expected, 2, 0))
    assert boxes[0, 0].tolist() == [[0, 1, 0, 0, 0.25, 0.25, 0.75, 0]]
    assert caplog.messages == []


def test_raw_records_are_not_compressed(write: Any, open_layer: Any) -> None:
    planes = np.moveaxis(PIXELS, 2, 0)
    write({"a": record((1, [LEFT]), image=planes, png=False)})
    np.testing.assert_array_equal(open_layer(LAYER % (1, "", "batch_sampler { }")).next()[0][0], planes)


def test_a_whole_crop_drops_boxes_before_the_image_is_padded(write: Any, open_layer: Any) -> None:
    # Its centre lies outside of the image, but within the padding.
    write({"a": record((1, [(0.0, -0.5, 1.0, 0.25)]))})
    text = "resize_param { height: 8 width: 8 resize_mode: FIT_LARGE_SIZE_AND_PAD } emit_constraint { }"
    assert rows(open_layer(LAYER % (1, text, "batch_sampler { }"))) == [[-1] * 8]
    assert rows(open_layer(LAYER % (1, text, ""))) == [[0, 1, 0, 0, 0.25, 1, 0.375, 0]]


def test_an_expansion_that_does_not_expand_is_refused(write: Any, open_layer: Any) -> None:
    write({"a": record()})
    with pytest.raises(LayerError, match=r"^expand_param.max_expand_ratio is 1. It must be more than 1.$"):
        open_layer(LAYER % (1, "expand_param { }", ""), TRAIN)


# ------------------------------------------------------------------ what is wrong with it


def test_fit_small_size_needs_a_batch_size_of_1(write: Any, open_layer: Any) -> None:
    write({"a": record()})
    with pytest.raises(LayerError) as caught:
        open_layer(LAYER % (2, FIT_SMALL % "", ""))
    assert (
        str(caught.value)
        == "resize_mode FIT_SMALL_SIZE gives images of different sizes. Set batch_size to 1, or crop_size."
    )


def test_label_map_file_is_not_read(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL]))})
    assert len(rows(open_layer(LAYER % (1, "", 'label_map_file: "not/there"')))) == 1


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (b"\xff\xff", 'db: key "b": the record is not a valid AnnotatedDatum message'),
        (b"", 'db: key "b": the record has no datum'),
        (datum(np.ones((1, 2, 2))), 'db: key "b": the record has no datum'),
        (
            new("AnnotatedDatum", datum={"channels": 3}).SerializeToString(),
            'db: key "b": the record has 0 values for an image of 3x0x0',
        ),
        (
            new("AnnotatedDatum", datum={"encoded": True, "data": b"x"}).SerializeToString(),
            'db: key "b": the image cannot be decoded',
        ),
        (
            record(image=PIXELS[:3]),
            'db: key "b": the image is 3x3x8, but the first one is 3x4x8. '
            "Resize all images to the same size, or set crop_size.",
        ),
        (
            record((1, [ALL, (0.0, 0.5, float("nan"), 1.0)])),
            'db: key "b": box 2 of the record is (0, 0.5, nan, 1)',
        ),
        (
            record(typed=False),
            'db: key "b": the record has no annotation type, but the first one has. '
            "Set annotated_data_param { anno_type: BBOX }.",
        ),
    ],
)
def test_a_bad_record_is_named_by_its_key(second: bytes, says: str, write: Any, open_layer: Any) -> None:
    write({"a": record((1, [ALL])), "b": second})
    source = open_layer(LAYER % (2, "", ""))
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == says


def test_a_record_with_neither_boxes_nor_label_is_refused(write: Any, open_layer: Any) -> None:
    bare = new("AnnotatedDatum")
    bare.ParseFromString(record(typed=False))
    bare.datum.ClearField("label")
    write({"a": bare.SerializeToString()})
    source = open_layer(LAYER % (1, "", ""))
    with pytest.raises(RistrettoError, match=r'^db: key "a": the record has no boxes and no label$'):
        source.next()


def test_huge_boxes_stay_finite_without_a_warning(write: Any, open_layer: Any) -> None:
    write({"a": record((1, [(-3e38, -3e38, 3e38, 3e38)]))})
    for fit in ("WARP", "FIT_LARGE_SIZE_AND_PAD"):
        source = open_layer(LAYER % (1, f"resize_param {{ height: 8 width: 16 resize_mode: {fit} }}", ""))
        assert rows(source) == [[0, 1, 0, 0, 0, 1, 1, 0]]


FLOATS = st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0])
RECORDS = st.binary(max_size=200) | st.builds(
    lambda box, size, tail, cut: (
        new(
            "AnnotatedDatum",
            datum={"channels": 1, "height": size[0], "width": size[1], "data": bytes(abs(size[0] * size[1]) % 99)},
            type=0,
            annotation_group=[
                {"annotation": [{"bbox": dict(zip(("xmin", "ymin", "xmax", "ymax", "size"), box, strict=True))}]}
            ],
        ).SerializeToString()
        + tail
    )[:cut],
    st.tuples(*[FLOATS] * 5),
    st.tuples(*[st.integers(-2, 8) | st.sampled_from([2**31 - 1, -(2**31)])] * 2),
    st.binary(max_size=8),
    st.integers(0, 200) | st.none(),
)


@pytest.mark.parametrize(
    "transform",
    [
        "",
        "crop_size: 1 mirror: true emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.5 }",
        "resize_param { height: 4 width: 8 resize_mode: FIT_LARGE_SIZE_AND_PAD } emit_constraint { }",
        "resize_param { height: 4 width: 8 resize_mode: FIT_SMALL_SIZE height_scale: 2 width_scale: 2 }",
    ],
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=RECORDS)
def test_whatever_a_record_holds_a_batch_or_an_error_comes_of_it(
    transform: str, value: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_lmdb(tmp_path_factory.mktemp("db"), {"a": value})
    message = layer((LAYER % (1, transform, "batch_sampler { }")).replace('"db"', f'"{folder}"'))
    try:
        source = open_source(message, TEST)
    except RistrettoError:
        return
    try:
        images, labels = source.next()
        assert np.isfinite(images).all()
        assert labels.shape[-1] in (1, 8)
    except RistrettoError as error:
        assert str(error).startswith(f'{folder}: key "a": ')
    finally:
        source.close()
