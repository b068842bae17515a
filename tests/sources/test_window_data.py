from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.windows import Box, place

from .conftest import mean_file

TEXT = """type: "WindowData" top: "data" top: "label"
    window_data_param { source: "list.txt" fg_fraction: 0.5 batch_size: %s } transform_param { crop_size: %s }"""
HEAD = "# 0\na.png\n3 4 6\n"
LIST = HEAD + "2\n3 0.8 1 1 2 2\n7 0.1 3 0 4 1\n"


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Writes list.txt and a.png, 4 high and 6 wide, of which pixel (y, x) is 10 y + x in blue, 100 more in red."""

    def write(listing: str = LIST) -> None:
        (tmp_path / "list.txt").write_text(listing, encoding="utf-8")
        blue = 10 * np.arange(4)[:, None] + np.arange(6)
        image = np.stack([blue, blue + 50, blue + 100], axis=2).astype(np.uint8)
        (tmp_path / "a.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())

    return write


def test_background_comes_first_and_objects_are_a_share_rounded_down(files: Any, open_layer: Any) -> None:
    files()
    source = open_layer(TEXT % (5, 2))
    assert source.shapes == ((5, 3, 2, 2), (5,))
    for phase in (TEST, TRAIN):
        images, labels = open_layer(TEXT % (5, 2), phase).next()
        assert images.dtype == labels.dtype == np.float32
        assert labels.tolist() == [0, 0, 0, 3, 3]
        assert images[0].tolist() == images[2].tolist() == [[[p + 3, p + 4], [p + 13, p + 14]] for p in (0, 50, 100)]
        assert images[3].tolist() == images[4].tolist() == [[[p + 11, p + 12], [p + 21, p + 22]] for p in (0, 50, 100)]


def test_windows_are_stretched_to_the_crop(files: Any, open_layer: Any) -> None:
    files(HEAD + "2  3 0.8 0 0 5 3  7 0.1 0 2 3 2")
    images = open_layer(TEXT % (2, 2)).next()[0]
    # 4 columns to 2: the means of 20, 21 and 22, 23 are rounded; 1 row to 2: the same
    assert images[0, 0].tolist() in ([[20, 22], [20, 22]], [[21, 23], [21, 23]])
    assert images[1, 0].tolist() == [[6, 9], [26, 29]]


def test_windows_between_the_thresholds_are_never_shown(files: Any, open_layer: Any) -> None:
    files(HEAD + "3  3 0.7 1 1 2 2  9 0.5 0 0 5 3  7 0.3 3 0 4 1  8 0.29 3 0 4 1".replace("3  3", "4  3"))
    text = (TEXT % (40, 2)).replace("source", "fg_threshold: 0.7 bg_threshold: 0.3 source")
    images, labels = open_layer(text).next()
    assert labels.tolist() == [0] * 20 + [3] * 20
    assert set(images[:20, 0, 0, 0].tolist()) == {3}


def test_all_windows_are_drawn_in_an_order_of_the_seed(files: Any, open_layer: Any) -> None:
    files(HEAD + "6  1 1 0 0 0 0  2 1 1 0 1 0  3 1 2 0 2 0  9 0 3 0 3 0  9 0 4 0 4 0  9 0 5 0 5 0")
    first, second = (open_layer(TEXT % (40, 1), seed=1) for _ in range(2))
    images, labels = first.next()
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert images[20:, 0, 0, 0].tolist() == (labels[20:] - 1).tolist()
    assert set(images[:20, 0, 0, 0].tolist()) == {3, 4, 5}
    np.testing.assert_array_equal(second.next()[0], images)
    assert first.next()[1].tolist() != labels.tolist()
    assert open_layer(TEXT % (40, 1), seed=2).next()[1].tolist() != labels.tolist()


def test_the_scale_of_window_data_param_counts_and_that_of_transform_param_does_not(
    files: Any, open_layer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    files()
    text = (TEXT % (2, 1)).replace("source", "scale: 0.5 mirror: true mean_file: 'gone' crop_size: 9 source")
    text = text.replace("crop_size: 1 ", "crop_size: 1 scale: 100 mean_value: 1 mean_value: 20 mean_value: 300 ")
    # the lower right window's corner pixels 3, 4, 13, 14 have the mean 8.5
    blue, green, red = open_layer(text).next()[0][0].ravel().tolist()
    assert blue in (3.5, 4)
    assert (green - blue, red - blue) == (15.5, -99.5)
    assert [record.getMessage() for record in caplog.records] == [
        f"window_data_param.{field} has no effect; set it in transform_param"
        for field in ("mean_file", "crop_size", "mirror")
    ] + ["transform_param.scale has no effect; set it in window_data_param"]


def test_one_mean_value_is_for_all_channels(files: Any, open_layer: Any) -> None:
    files()
    images = open_layer((TEXT % (2, 2)).replace("crop_size", "mean_value: 3 crop_size")).next()[0]
    assert images[0, :, 0, 0].tolist() == [0, 50, 100]


def test_the_middle_of_a_mean_file_by_its_width_is_subtracted(files: Any, open_layer: Any, tmp_path: Path) -> None:
    files()
    mean = np.zeros((3, 5, 6), np.float32)  # (6 - 2) / 2 = 2: rows and columns 2 and 3
    mean[0, 2, 2:4], mean[0, 3, 2:4] = (1, 2), (3, 4)
    mean_file(tmp_path / "mean", mean)
    images = open_layer((TEXT % (2, 2)).replace("crop_size", "mean_file: 'mean' crop_size")).next()[0]
    assert images[0, :2].tolist() == [[[2, 2], [10, 10]], [[53, 54], [63, 64]]]


def test_mirrored_windows_are_about_every_other_one(files: Any, open_layer: Any) -> None:
    files()
    images = open_layer((TEXT % (100, 2)).replace("crop_size", "mirror: true crop_size")).next()[0]
    rows = [tuple(row) for row in images[:, 0, 0].tolist()]
    assert {*rows[:50]} == {(3, 4), (4, 3)}
    assert {*rows[50:]} == {(11, 12), (12, 11)}
    assert 30 < sum(a > b for a, b in rows) < 70


def test_context_beyond_the_image_is_zero_after_mean_and_mirror(files: Any, open_layer: Any) -> None:
    # (0, 0)...(1, 1) with 1 pixel of context around it in a crop of 4 is (-1, -1)...(3, 3), 5 wide, of which
    # 4 are seen: in the crop 0.8 * 4 = 3.2 pixels, so 3, after 0.8, so 1.
    files(HEAD + "2  3 0.8 0 0 1 1  7 0.1 0 0 1 1")
    text = (TEXT % (100, 4)).replace("source", "context_pad: 1 source").replace("crop_size", "mirror: true crop_size")
    images = open_layer(text.replace("mirror", "mean_value: 200 mirror")).next()[0]
    seen = {tuple(map(tuple, (image[0] != 0).astype(int).tolist())) for image in images}
    assert seen == {
        ((0, 0, 0, 0), (0, 1, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1)),
        ((0, 0, 0, 0), (1, 1, 1, 0), (1, 1, 1, 0), (1, 1, 1, 0)),
    }


@pytest.mark.parametrize(
    ("box", "settings", "expected"),
    [
        # neither context nor square: as it is, stretched
        (Box(1, 2, 3, 3), {}, ((2, 4), (1, 4), 8, 8, 0, 0)),
        # 4 wide, 2 high in an image of 10x10: a square of 4 around (5, 4); its last corner is one too far, as in
        # Caffe, so 5 pixels are seen
        (Box(3, 3, 6, 4), {"square": True}, ((2, 7), (3, 8), 8, 8, 0, 0)),
        # crop 8, pad 2: twice the extent; (4, 4)...(5, 5) becomes (3, 3)...(7, 7)
        (Box(4, 4, 5, 5), {"pad": 2}, ((3, 8), (3, 8), 8, 8, 0, 0)),
        # the same at (9, 9): (8, 8)...(12, 12), of which 2 pixels of 5 are seen: 3.2 pixels of 8
        (Box(9, 9, 10, 10), {"pad": 2}, ((8, 10), (8, 10), 3, 3, 0, 0)),
        # mirrored, the 3 pixels beyond (4.8 of 8) come first
        (Box(9, 9, 10, 10), {"pad": 2, "mirror": True}, ((8, 10), (8, 10), 3, 3, 0, 5)),
        # halves go away from zero: 1 wide at 0, centre 0.5, half 0.5 * 2: round(-0.5) is -1, round(1.5) is 2
        (Box(0, 0, 0, 0), {"pad": 2}, ((0, 3), (0, 3), 6, 6, 2, 2)),
        # nothing to be seen
        (Box(3, 3, 10, 4), {}, None),
        (Box(-1, 3, 4, 4), {}, None),
        (Box(4, 3, 3, 4), {}, None),
        (Box(30, 3, 33, 4), {"pad": 2}, None),
        (Box(8, 3, -8, 3), {"pad": 2}, None),
        (Box(0, 0, 10**9, 10**9), {"pad": 2}, None),
    ],
)
def test_a_window_has_its_place_in_the_crop(box: Box, settings: dict[str, Any], expected: Any) -> None:
    assert place(box, 10, 10, 8, **{"pad": 0, "square": False, "mirror": False, **settings}) == expected


def test_root_folder_is_put_before_each_name(files: Any, open_layer: Any, tmp_path: Path) -> None:
    files(LIST.replace("a.png", "png"))
    assert open_layer((TEXT % (2, 2)).replace("source", 'root_folder: "a." source')).next()[1].tolist() == [0, 3]


def test_cached_images_are_read_once(files: Any, open_layer: Any, tmp_path: Path) -> None:
    files()
    plain, cached = (
        open_layer(TEXT % (2, 2)),
        open_layer((TEXT % (2, 2)).replace("source", "cache_images: true source")),
    )
    first = cached.next()[0]
    (tmp_path / "a.png").unlink()
    np.testing.assert_array_equal(cached.next()[0], first)
    with pytest.raises(RistrettoError, match=r"^a.png: the image cannot be read: No such file or directory$"):
        plain.next()


def test_a_no_break_space_belongs_to_a_name(files: Any, open_layer: Any, tmp_path: Path) -> None:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("names of files are not UTF-8 here")
    files(LIST.replace("a.png", "a\u00a0b.png"))
    (tmp_path / "a.png").rename(tmp_path / "a\u00a0b.png")
    assert open_layer(TEXT % (2, 2)).next()[1].tolist() == [0, 3]


def test_an_unknown_crop_mode_is_warned_of(files: Any, open_layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    files()
    open_layer((TEXT % (2, 2)).replace("source", 'crop_mode: "sqare" source'))
    assert caplog.messages == ['unknown window_data_param.crop_mode "sqare": windows are warped']


@pytest.mark.parametrize(
    ("listing", "says"),
    [
        ("", "window_data_param.source list.txt lists no images"),
        ("#0 a.png", 'list.txt:1: expected "#" before an image, found "#0"'),
        ("# x\na.png 3 4 6 0", 'list.txt:1: expected number, a number, found "x"'),
        (
            "# 0\na.png 3 4",
            "list.txt ends within the header of an image. Its format: # number file channels height width count.",
        ),
        ("#", "list.txt ends within the header of an image. Its format: # number file channels height width count."),
        (HEAD + "2 3 0.8 1 1 2 2 7 0.1 3 0 4", "list.txt ends within the windows of a.png: 2 are declared"),
        (HEAD + "2000000000", "list.txt ends within the windows of a.png: 2e+09 are declared"),
        (LIST.replace("3 0.8 1", "3 0.8 1.5"), 'list.txt:5: expected x1, a number, found "1.5"'),
        (LIST.replace("0.1", "nan"), 'list.txt:6: expected overlap, a number, found "nan"'),
        (LIST.replace("7 0.1", "99999999999 0.1"), 'list.txt:6: expected label, a number, found "99999999999"'),
        (LIST + "x", 'list.txt:7: expected "#" before an image, found "x"'),
        (
            LIST.replace("# 0", "# 1"),
            "list.txt:5: a window of image 1, but the list has 1 images. Number the images consecutively from 0.",
        ),
        (LIST.replace("0.1", "0.9"), "list.txt has no windows of background: none has an overlap below bg_threshold"),
        (LIST.replace("0.8", "0.4"), "list.txt has no windows of objects: none has an overlap of fg_threshold"),
        (
            LIST.replace("3 0.8", "0 0.8"),
            "list.txt:5: a window of an object has label 0. Labels of objects start at 1; 0 is the background.",
        ),
    ],
)
def test_bad_lists_are_reported_by_line(listing: str, says: str, files: Any, open_layer: Any) -> None:
    files(listing)
    with pytest.raises(RistrettoError) as caught:
        open_layer(TEXT % (2, 2))
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("crop_size: 2", "", "WindowData layers need transform_param.crop_size"),
        ("crop_size: 2", "crop_size: 40000", "transform_param.crop_size 40000 is too large"),
        ("source", "context_pad: 1 source", "context_pad 1 leaves nothing of crop_size 2"),
        ("0.5", "1.5", "window_data_param.fg_fraction is 1.5. It must be from 0 to 1."),
        ("0.5", "nan", "window_data_param.fg_fraction is nan. It must be from 0 to 1."),
        ("batch_size: 2", "", "window_data_param.batch_size is not set. Set it to 1 or more."),
        ("batch_size: 2", "batch_size: 999999999", "the batch has the shape 999999999x3x2x2, which is too large "),
        ("list.txt", "gone.txt", "window_data_param.source gone.txt does not exist. Relative "),
        ('top: "label"', "", "expected 2 tops, got 1"),
        ("crop_size", "mean_value: 1 mean_value: 2 crop_size", "transform_param has 2 mean_values. Set 1 or 3."),
        ("crop_size", "mean_value: 1 mean_file: 'm' crop_size", "transform_param has both mean_file and mean_value."),
        ("crop_size", "mean_file: 'small' crop_size", "mean_file small is 3x1x2, but the crop is 3x2x2"),
        ("crop_size", "mean_file: 'flat' crop_size", "mean_file flat is 3x2x6, but the crop is 3x2x2"),
        ("crop_size", "mean_file: 'gray' crop_size", "mean_file gray is 1x2x2, but the crop is 3x2x2"),
    ],
)
def test_bad_settings_are_reported_in_a_line(
    old: str, new: str, says: str, files: Any, open_layer: Any, tmp_path: Path
) -> None:
    files()
    for name, shape in (("small", (3, 1, 2)), ("flat", (3, 2, 6)), ("gray", (1, 2, 2))):
        mean_file(tmp_path / name, np.zeros(shape))
    with pytest.raises(RistrettoError) as caught:
        open_layer((TEXT % (2, 2)).replace(old, new))
    assert str(caught.value).startswith(says)


def test_a_window_outside_of_its_image_is_reported_by_its_line(files: Any, open_layer: Any) -> None:
    files(LIST.replace("1 1 2 2", "1 1 6 2"))
    source = open_layer(TEXT % (2, 2))
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == (
        "list.txt:5: window (1, 1, 6, 2) is outside of a.png, which is 6 wide and 4 high. "
        "Coordinates are x1 y1 x2 y2, starting at 0."
    )
