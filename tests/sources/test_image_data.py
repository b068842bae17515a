from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.errors import RistrettoError

TEXT = 'type: "ImageData" top: "data" top: "label" image_data_param { source: "list.txt" %s }'


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Writes images, each of one value, and list.txt."""

    def write(listing: str, images: dict[str, Any]) -> None:
        (tmp_path / "list.txt").write_text(listing)
        for name, image in images.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(cv2.imencode(".png", np.asarray(image, np.uint8))[1].tobytes())

    return write


def plain(value: int, height: int = 2, width: int = 3) -> Any:
    return np.full((height, width), value, np.uint8)


def test_the_last_space_separates_the_label(files: Any, open_layer: Any) -> None:
    files("a  b.png -3\r\nc.png 12\n\n", {"a  b.png": plain(1), "c.png": plain(2)})
    source = open_layer(TEXT % "batch_size: 3")
    assert source.shapes == ((3, 3, 2, 3), (3,))
    images, labels = source.next()
    assert labels.tolist() == [-3, 12, -3]
    assert images[:, 2, 1, 2].tolist() == [1, 2, 1]


def test_a_byte_order_mark_is_no_part_of_the_first_name(files: Any, open_layer: Any) -> None:
    files("\ufeffa.png 3\n", {"a.png": plain(1)})
    assert open_layer(TEXT % "batch_size: 1").next()[1].tolist() == [3]


def test_in_a_list_without_labels_each_label_is_0(
    files: Any, open_layer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    files("7.png\n\nb.png\r\n", {"7.png": plain(7), "b.png": plain(9)})
    images, labels = open_layer(TEXT % "batch_size: 2").next()
    assert images[:, 0, 0, 0].tolist() == [7, 9]
    assert labels.tolist() == [0, 0]
    assert caplog.messages == [
        "list.txt has no labels: the label of each image is 0.",
        "Caffe takes the number at the beginning of a name for its label, such as 7 for 7.png.",
    ]


def test_names_without_numbers_need_no_second_warning(
    files: Any, open_layer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    files("a7.png\n0.png\n", {"a7.png": plain(7), "0.png": plain(9)})
    open_layer(TEXT % "batch_size: 2").next()
    assert caplog.messages == ["list.txt has no labels: the label of each image is 0."]


def test_fractions_of_labels_are_warned_of(files: Any, open_layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    files("a.png 1.5\n", {"a.png": plain(7)})
    assert open_layer(TEXT % "").next()[1].tolist() == [1]
    assert "list.txt:1: the label 1.5 becomes 1: labels of a list are whole numbers." in caplog.text


def test_a_byte_order_mark_of_a_list_is_skipped(files: Any, open_layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    files("\ufeffa.png 1\n", {"a.png": plain(7)})
    assert open_layer(TEXT % "").next()[1].tolist() == [1]
    assert "begins with a byte order mark" in caplog.text


def test_root_folder_is_put_before_each_name(files: Any, open_layer: Any) -> None:
    files("1.png 0", {"sub/img1.png": plain(9)})
    assert open_layer(TEXT % 'root_folder: "sub/img"').next()[0][0, 0, 0, 0] == 9


def test_is_color_decides_on_the_channels(files: Any, open_layer: Any) -> None:
    files("a.png 0", {"a.png": [[[10, 20, 30]]]})
    assert open_layer(TEXT % "").next()[0][0, :, 0, 0].tolist() == [10, 20, 30]
    # 0.114 blue + 0.587 green + 0.299 red = 21.85, which readers of PNG round or cut off
    gray = open_layer(TEXT % "is_color: false").next()[0]
    assert gray.shape == (1, 1, 1, 1)
    assert gray[0, 0, 0, 0] in (21, 22)


def test_images_are_resized_before_they_are_cropped(files: Any, open_layer: Any) -> None:
    files("a.png 0\nb.png 1", {"a.png": [[0, 100]], "b.png": plain(7, 5, 9)})
    source = open_layer(TEXT % "new_height: 1 new_width: 4 is_color: false batch_size: 2")
    images = source.next()[0]
    assert images[0, 0, 0].tolist() == [0, 25, 75, 100]
    assert images[1, 0, 0].tolist() == [7, 7, 7, 7]
    text = TEXT % "new_height: 2 new_width: 4 is_color: false"
    assert open_layer(text + " transform_param { crop_size: 2 }").next()[0][0, 0].tolist() == [[25, 75]] * 2


def test_shuffle_gives_every_image_once_a_turn_in_orders_of_the_seed(files: Any, open_layer: Any) -> None:
    files("".join(f"{i}.png {i}\n" for i in range(20)), {f"{i}.png": plain(i) for i in range(20)})

    def turns(seed: int) -> list[list[float]]:
        source = open_layer(TEXT % "shuffle: true batch_size: 20", TRAIN, seed=seed)
        batches = [source.next() for _ in range(2)]
        for images, labels in batches:
            assert images[:, 0, 0, 0].tolist() == labels.tolist()
        return [labels.tolist() for _, labels in batches]

    first, second = turns(1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first != list(range(20))
    assert turns(1) == [first, second]
    assert turns(2)[0] != first


def test_rand_skip_starts_after_the_first_images(files: Any, open_layer: Any) -> None:
    files("".join(f"{i}.png {i}\n" for i in range(5)), {f"{i}.png": plain(i) for i in range(5)})
    starts = {int(open_layer(TEXT % "rand_skip: 3", TEST, seed=s).next()[1][0]) for s in range(30)}
    assert starts == {0, 1, 2}


def test_with_batch_size_1_each_image_has_its_own_size(files: Any, open_layer: Any) -> None:
    files("a.png 0\nb.png 1", {"a.png": plain(1), "b.png": plain(2, 4, 4)})
    source = open_layer(TEXT % "")
    assert [source.next()[0].shape for _ in range(3)] == [(1, 3, 2, 3), (1, 3, 4, 4), (1, 3, 2, 3)]


@pytest.mark.parametrize(
    ("settings", "listing", "says"),
    [
        ("", "gone.png 0", "gone.png: the image cannot be read: No such file or directory"),
        ("", "list.txt 0", "list.txt: the image cannot be decoded"),
        ("", "a.png 0\na.png", "list.txt:2: no label after the last space. Expected: file label."),
        ("", "a.png x", "list.txt:1: no label after the last space. Expected: file label."),
        ("", "a.png 99999999999", "list.txt:1: the label 99999999999 does not fit into 32 bits. Expected: file label."),
        ("", " 3", "list.txt:1: no label after the last space. Expected: file label."),
        ("", "\n", "image_data_param.source list.txt lists no images"),
        ("batch_size: 0", "a.png 0", "image_data_param.batch_size is 0. Set it to 1 or more."),
        ("new_width: 3", "a.png 0", "image_data_param sets only one of new_height and new_width. Set both."),
        (
            "new_width: 4000000000 new_height: 1",
            "a.png 0",
            "image_data_param: an image of 1x4000000000 is too large",
        ),
    ],
)
def test_bad_settings_are_reported_in_a_line(
    settings: str, listing: str, says: str, files: Any, open_layer: Any
) -> None:
    files(listing, {"a.png": plain(1)})
    with pytest.raises(RistrettoError) as caught:
        open_layer(TEXT % settings)
    assert str(caught.value) == says


def test_skipping_all_images_is_refused(files: Any, open_layer: Any) -> None:
    files("a.png 0", {"a.png": plain(1)})
    with pytest.raises(RistrettoError, match=r"^rand_skip skips \d+ of 1 images. Reduce rand_skip.$"):
        open_layer(TEXT % "rand_skip: 1000000")


def test_a_missing_list_and_a_folder_as_list_are_refused(tmp_path: Path, open_layer: Any) -> None:
    with pytest.raises(RistrettoError, match=r"^image_data_param.source list.txt does not exist. Relative "):
        open_layer(TEXT % "")
    (tmp_path / "list.txt").mkdir()
    with pytest.raises(RistrettoError, match=r"source list.txt cannot be read: Is a directory$"):
        open_layer(TEXT % "")


def test_a_second_size_in_a_batch_is_reported_by_its_file(files: Any, open_layer: Any) -> None:
    files("a.png 0\nb.png 1", {"a.png": plain(1), "b.png": plain(2, 4, 4)})
    source = open_layer(TEXT % "batch_size: 2")
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == (
        "b.png: the image is 3x4x4, but the first one is 3x2x3. Set new_height and new_width, or set crop_size."
    )
