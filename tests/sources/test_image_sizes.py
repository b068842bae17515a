"""Images of different sizes: each is cropped by its own size; without a crop each batch has a size of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.errors import RistrettoError
from tests.sources.conftest import Opener, datum, encoded, mean_file, write_lmdb

SIZES = [(8, 12), (10, 8), (8, 8), (15, 9), (8, 11)]
COUNT = len(SIZES)
WRITERS = ["raw", "float", "encoded", "files", "annotated"]

Write = Callable[[str], tuple[str, list[Any]]]


def pixels() -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (3, *size), np.uint8) for size in SIZES]


@pytest.fixture
def write(tmp_path: Path, open_layer: Opener) -> Write:
    """Writes images of different sizes; returns the layer's text, to be filled in with its settings, and the images."""

    def write_it(kind: str) -> tuple[str, list[Any]]:
        images = pixels()
        if kind == "files":
            for i, image in enumerate(images):
                cv2.imwrite(str(tmp_path / f"{i}.png"), image.transpose(1, 2, 0))
            (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(COUNT)))
            text = 'type: "ImageData" top: "d" top: "l" image_data_param { source: "list.txt" batch_size: %d }'
            return text + " transform_param { %s }", images
        if kind == "float":
            images = [image.astype(np.float32) / 3 for image in images]
        records = [encoded(image.transpose(1, 2, 0), i) if kind == "encoded" else datum(image, i)
                   for i, image in enumerate(images)]  # fmt: skip
        if kind == "annotated":
            parsed = [new("Datum").FromString(record) for record in records]
            records = [new("AnnotatedDatum", datum=each).SerializeToString() for each in parsed]
        write_lmdb(tmp_path / "db", {f"{i:04}": record for i, record in enumerate(records)})
        kind = "AnnotatedData" if kind == "annotated" else "Data"
        text = f'type: "{kind}" top: "d" top: "l" data_param {{ source: "db" backend: LMDB batch_size: %d }}'
        return text + " transform_param { %s }", images

    return write_it


def centre(image: Any, size: int) -> Any:
    top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
    return image[:, top : top + size, left : left + size]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("batch", [1, 2, COUNT])
def test_each_image_is_cropped_by_its_own_size(kind: str, batch: int, write: Write, open_layer: Opener) -> None:
    text, images = write(kind)
    source = open_layer(text % (batch, "crop_size: 7"))
    expected = [centre(image, 7).astype(np.float32) for image in images]
    found, labels = zip(*(source.next() for _ in range(COUNT)), strict=True)
    assert source.shapes[0] == found[0].shape == (batch, 3, 7, 7)
    turns = [i % COUNT for i in range(batch * COUNT)]
    assert np.concatenate(found).tobytes() == np.stack([expected[i] for i in turns]).tobytes()
    assert np.concatenate(labels).ravel().tolist() == turns


@pytest.mark.parametrize("kind", WRITERS)
def test_means_scale_and_mirror_apply_to_each_crop(kind: str, write: Write, open_layer: Opener) -> None:
    text, images = write(kind)
    settings = "crop_size: 6 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 mirror: true"
    found = open_layer(text % (COUNT, settings)).next()[0]
    mean = np.float32([104, 117, 123]).reshape(3, 1, 1)
    mirrored = 0
    for image, array in zip(images, found, strict=True):
        plain = (centre(image, 6).astype(np.float32) - mean) * np.float32(0.5)
        is_mirrored = array.tobytes() == np.ascontiguousarray(plain[..., ::-1]).tobytes()
        assert is_mirrored or array.tobytes() == plain.tobytes()
        mirrored += is_mirrored
    assert 0 < mirrored < COUNT


def places(image: Any, crop: Any) -> list[tuple[int, int]]:
    """Where a crop may be from."""
    size = crop.shape[1]
    rows, columns = (extent - size + 1 for extent in image.shape[1:])
    return [
        (top, left)
        for top in range(rows)
        for left in range(columns)
        if np.array_equal(image[:, top : top + size, left : left + size].astype(np.float32), crop)
    ]


@pytest.mark.parametrize("kind", WRITERS)
def test_training_crops_each_image_at_a_random_place_in_it(kind: str, write: Write, open_layer: Opener) -> None:
    text, images = write(kind)
    batches = [[open_layer(text % (COUNT, "crop_size: 6"), TRAIN, seed=seed)] * 40 for seed in (5, 5, 6)]
    found = [[source.next()[0] for source in each] for each in batches]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    for i, image in enumerate(images):
        seen = {place for batch in found[0] for place in places(image, batch[i])}
        for axis in (0, 1):
            reached = {place[axis] for place in seen}
            assert reached == set(range(image.shape[axis + 1] - 5))


@pytest.mark.parametrize("kind", WRITERS)
def test_with_a_batch_of_one_each_image_keeps_its_size(kind: str, write: Write, open_layer: Opener) -> None:
    text, images = write(kind)
    source = open_layer(text % (1, "mean_value: 1"))
    assert source.shapes[0] == (1, *images[0].shape)
    for image in (*images, images[0]):
        assert source.next()[0].tobytes() == (image.astype(np.float32) - 1)[None].tobytes()


def test_batches_of_one_size_each_may_differ(open_layer: Opener, tmp_path: Path) -> None:
    images = [np.full((1, *size), i) for i, size in enumerate([(2, 3), (2, 3), (4, 2), (4, 2)])]
    write_lmdb(tmp_path / "db", {f"{i}": datum(image) for i, image in enumerate(images)})
    source = open_layer('type: "Data" top: "d" data_param { source: "db" backend: LMDB batch_size: 2 }')
    for pair in (images[:2], images[2:], images[:2]):
        assert np.array_equal(source.next()[0], np.stack(pair))


@pytest.mark.parametrize(
    ("kind", "where", "hint"),
    [
        ("raw", 'db: key "0001"', "Resize all images to the same size, or set crop_size."),
        ("encoded", 'db: key "0001"', "Resize all images to the same size, or set crop_size."),
        ("files", "1.png", "Set new_height and new_width, or set crop_size."),
    ],
)
def test_two_sizes_in_a_batch_are_an_error(kind: str, where: str, hint: str, write: Write, open_layer: Opener) -> None:
    source = open_layer(write(kind)[0] % (2, ""))
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == f"{where}: the image is 3x10x8, but the first one is 3x8x12. {hint}"


@pytest.mark.parametrize(("kind", "where"), [("raw", 'db: key "0001"'), ("files", "1.png")])
@pytest.mark.parametrize("batch", [1, 2])
def test_an_image_smaller_than_the_crop_is_named(
    kind: str, where: str, batch: int, write: Write, open_layer: Opener
) -> None:
    source = open_layer(write(kind)[0] % (batch, "crop_h: 8 crop_w: 9"), TEST)
    with pytest.raises(RistrettoError) as caught:
        [source.next() for _ in range(2)]
    assert str(caught.value) == f"{where}: crop_h 8, crop_w 9 is larger than the image, 10x8"


@pytest.mark.parametrize(("kind", "where"), [("raw", 'db: key "0001"'), ("encoded", 'db: key "0001"')])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_mean_image_needs_images_of_its_size(
    kind: str, where: str, batch: int, write: Write, open_layer: Opener, tmp_path: Path
) -> None:
    text, images = write(kind)
    mean_file(tmp_path / "mean.binaryproto", np.ones(images[0].shape))
    source = open_layer(text % (batch, 'crop_size: 6 mean_file: "mean.binaryproto"'))
    with pytest.raises(RistrettoError) as caught:
        [source.next() for _ in range(2)]
    assert str(caught.value) == f"{where}: mean_file mean.binaryproto is 3x8x12, but the image is 3x10x8"


def test_gray_images_among_coloured_ones_need_force_color(write: Write, open_layer: Opener, tmp_path: Path) -> None:
    _, images = write("raw")
    gray = np.arange(90, dtype=np.uint8).reshape(9, 10)
    write_lmdb(tmp_path / "mixed", {"a": encoded(images[0].transpose(1, 2, 0)), "b": encoded(gray)})
    text = 'type: "Data" top: "d" data_param { source: "mixed" backend: LMDB batch_size: 2 } transform_param { %s }'
    with pytest.raises(RistrettoError) as caught:
        open_layer(text % "crop_size: 8").next()
    assert str(caught.value) == (
        'mixed: key "b": the image is 1x9x10, but the first one is 3x8x12. '
        "Set force_color: true (or force_gray: true) in transform_param if images are encoded; otherwise convert all "
        "images to gray or all to color."
    )
    expected = [centre(images[0], 8), centre(np.stack([gray] * 3), 8)]
    assert np.array_equal(open_layer(text % "crop_size: 8 force_color: true").next()[0], np.stack(expected))
