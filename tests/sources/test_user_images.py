"""Images of the user: files, preprocessing as by Caffe's Transformer, batches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import Shape
from ristretto_cli.sources.user_arrays import UserArray
from ristretto_cli.sources.user_images import ImageSettings, UserImages, image_files, mean_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(name: str, pixels: Any) -> str:
    """A PNG of pixels (H, W) or (H, W, 3), blue, green and red."""
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_bytes(cv2.imencode(".png", np.asarray(pixels, np.uint8))[1].tobytes())
    return name


def batch(shape: Shape, files: list[str], **settings: Any) -> Any:
    source = UserImages(ImageSettings(files, **settings), shape, "data")
    try:
        (found,) = source.next()
    finally:
        source.close()
    assert found.dtype == np.float32
    return found


def transformed(pixels: Any, swap: tuple[int, ...], raw_scale: float, mean: Any, input_scale: float) -> Any:
    """What the Transformer makes of an image (H, W, 3) of bytes, blue, green and red."""
    loaded = pixels[:, :, ::-1] / 255.0
    planes = loaded.transpose(2, 0, 1)[list(swap)]
    return (planes * raw_scale - mean) * input_scale


@pytest.mark.parametrize("swap", [(2, 1, 0), (0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("raw_scale", [255.0, 1.0, 2.0])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_the_steps_are_in_the_order_of_the_transformer(
    here: Path, swap: tuple[int, ...], raw_scale: float, per_pixel: bool
) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (2, 4, 3))
    mean = rng.uniform(0, raw_scale, (3, 2, 4) if per_pixel else (3,)).astype(np.float32)
    found = batch(
        (1, 3, 2, 4), [image("a.png", pixels)], channel_swap=swap, raw_scale=raw_scale, mean=mean, input_scale=0.5
    )
    expected = transformed(pixels, swap, raw_scale, mean if per_pixel else mean.reshape(3, 1, 1), 0.5)
    assert found[0] == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_by_default_pixels_are_bytes_in_the_order_blue_green_red(here: Path) -> None:
    assert batch((1, 3, 1, 1), [image("a.png", [[[10, 20, 30]]])]).ravel().tolist() == [10, 20, 30]
    assert batch((1, 1, 1, 2), [image("b.png", [[7, 9]])]).ravel().tolist() == [7, 9]


def test_the_centre_of_resized_images_is_cut_out(here: Path) -> None:
    name = image("a.png", np.arange(30).reshape(5, 6))
    assert batch((1, 1, 2, 3), [name], resize=(5, 6)).ravel().tolist() == [7, 8, 9, 13, 14, 15]
    wide = image("b.png", [[0, 100]])
    assert batch((1, 1, 1, 4), [wide]).ravel().tolist() == [0, 25, 75, 100]


def test_a_mean_image_may_have_the_size_before_or_after_cutting(here: Path) -> None:
    name = image("a.png", np.full((4, 4), 50))
    mean = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    centre = [[45, 44], [41, 40]]
    assert batch((1, 1, 2, 2), [name], resize=(4, 4), mean=mean)[0, 0].tolist() == centre
    assert batch((1, 1, 2, 2), [name], resize=(4, 4), mean=mean[:, 1:3, 1:3])[0, 0].tolist() == centre


def test_after_the_last_image_the_first_one_follows(here: Path) -> None:
    files = [image(f"{i}.png", [[i]]) for i in (1, 2, 3)]
    source = UserImages(ImageSettings(files), (2, 1, 1, 1), "data")
    assert [source.next()[0].ravel().tolist() for _ in range(4)] == [[1, 2], [3, 1], [2, 3], [1, 2]]
    arrays = UserArray(np.array([1, 2, 3], np.float32), (2,))
    assert [arrays.next()[0].tolist() for _ in range(3)] == [[1, 2], [3, 1], [2, 3]]
    assert UserArray(np.float32(5).reshape(()), ()).next()[0] == 5


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 2, 1, 1), {}, 'input "data" has 2 channels, but images have 1 or 3. Use --input.'),
        ((1, 1, 3, 3), {"resize": (2, 4)}, '--resize 2,4 is smaller than input "data", 3x3.'),
        ((1, 3, 1, 1), {"channel_swap": (0,)}, "--channel_swap 0 is not an order of 3 channels. 2,1,0 is"),
        ((1, 1, 1, 1), {"channel_swap": (2, 1, 0)}, "--channel_swap 2,1,0 is not an order of 1 channels. Omit it."),
        (
            (1, 1, 2, 2),
            {"mean": np.zeros((1, 3, 3), np.float32), "resize": (4, 5)},
            "--mean has the shape 1x3x3; expected 1 (a number per channel), 1x2x2 or, before cropping, 1x4x5.",
        ),
        ((1, 3, 2, 2), {"mean": np.zeros(2, np.float32)}, "--mean has the shape 2; expected 3 (a number per channel)"),
    ],
)
def test_settings_that_do_not_fit_the_input(shape: Shape, settings: Any, message: str) -> None:
    with pytest.raises(RistrettoError) as refused:
        UserImages(ImageSettings(["a.png"], **settings), shape, "data")
    assert message in str(refused.value)


def test_an_image_that_cannot_be_read_is_named(here: Path) -> None:
    Path("bad.png").write_text("text")
    with pytest.raises(RistrettoError, match=r"bad\.png: the image cannot be decoded"):
        batch((2, 1, 1, 1), [image("a.png", [[1]]), "bad.png"])
    with pytest.raises(RistrettoError, match=r"none\.png: the image cannot be read: No such file"):
        batch((1, 1, 1, 1), ["none.png"])


# --- files


def test_the_images_of_a_folder_are_sorted_with_those_of_subfolders(here: Path) -> None:
    for name in ("im/b.png", "im/a/z.JPG", "im/c.jpeg", "im/.hidden.png"):
        image(name, [[1]])
    (here / "im" / "list.txt").write_text("b.png 0\n")
    assert image_files("im") == ["im/a/z.JPG", "im/b.png", "im/c.jpeg"]
    assert image_files("im/b.png") == ["im/b.png"]


def test_a_list_may_have_labels_spaces_and_empty_lines(here: Path) -> None:
    for name in ("a.png", "b 1.png", "c.png 2"):
        image(name, [[1]])
    (here / "list.txt").write_text("a.png 17\r\n\nb 1.png\nc.png 2\nmissing.png 3\n")
    assert image_files("list.txt") == ["a.png", "b 1.png", "c.png 2", "missing.png"]


def test_names_in_a_list_may_be_relative_to_it(here: Path) -> None:
    image("set/im/a.png", [[1]])
    (here / "set" / "list.txt").write_text("im/a.png 1\nim/b.png 1\n")
    assert image_files("set/list.txt") == ["set/im/a.png", "set/im/b.png"]
    image("im/a.png", [[1]])
    assert image_files("set/list.txt") == ["im/a.png", "im/b.png"]


def test_where_there_are_no_images(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "list.txt").write_text("\n")
    (here / "other.txt").write_text("a.png 3\n")
    for path, message in (
        ("empty", "empty: the folder has no images."),
        ("list.txt", "list.txt: the list names no images"),
        ("other.txt", "other.txt: the first image of the list, a.png, does not exist. Names are relative to"),
        ("none", "--images none does not exist."),
    ):
        with pytest.raises(RistrettoError, match=re.escape(message)):
            image_files(path)


# --- means


def test_a_mean_is_numbers_or_a_file(here: Path) -> None:
    assert mean_of("104,117.5,-3").tolist() == [104, 117.5, -3]
    values = np.arange(6).reshape(1, 1, 2, 3)
    np.save("mean.npy", values)
    assert mean_of("mean.npy").tolist() == values[0].tolist()
    np.save("channels.npy", np.arange(3))
    assert mean_of("channels.npy").tolist() == [0, 1, 2]
    blob = new("BlobProto", num=1, channels=1, height=2, width=3, data=values.ravel().tolist())
    Path("mean.binaryproto").write_bytes(blob.SerializeToString())
    assert mean_of("mean.binaryproto").tolist() == values[0].tolist()


def test_a_mean_that_is_none(here: Path) -> None:
    np.save("flat.npy", np.zeros((2, 2)))
    np.savez("arrays.npz", a=np.zeros(2))
    Path("arrays.npz").rename("arrays.npy")
    Path("text.npy").write_text("text")
    for value, message in (
        ("mean.npy", "mean.npy: this file does not exist"),
        ("mean.binaryproto", "--mean mean.binaryproto does not exist"),
        ("flat.npy", "flat.npy: the mean is 2x2, not an image or a number per channel"),
        ("arrays.npy", "arrays.npy: not an .npy file, but an .npz file"),
        ("text.npy", "text.npy: not an .npy file of numbers. Write it with numpy.save."),
    ):
        with pytest.raises(RistrettoError, match=re.escape(message)):
            mean_of(value)
