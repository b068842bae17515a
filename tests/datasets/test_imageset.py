"""Lists of images to databases."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ristretto_cli.datasets.imageset import ConversionOptions, Converted, ListedImage, convert_imageset, read_list
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.database import Lmdb

from .conftest import datums, records

RED, BLUE = [0, 0, 255], [255, 0, 0]  # OpenCV's order


def convert(how: ConversionOptions = ConversionOptions(), **more: Any) -> Converted:  # noqa: B008 - it is frozen
    return convert_imageset("images/", "list.txt", "db", Backend.LMDB, how, **more)


# --- records


def test_a_record_has_planes_in_blue_green_red_and_is_written_as_caffe_writes_it(pictures: Any) -> None:
    pictures({"a.png": [[RED, BLUE]]})
    assert convert() == Converted(1, 0)
    # channels 3, height 1, width 2, data of 6 bytes, label 0, encoded false
    expected = bytes([0x08, 3, 0x10, 1, 0x18, 2, 0x22, 6, 0, 255, 0, 0, 255, 0, 0x28, 0, 0x38, 0])
    assert records("db") == {"00000000_a.png": expected}


def test_gray_records_have_one_channel(pictures: Any) -> None:
    pictures({"a.png": [[10, 20]]})
    convert(ConversionOptions(gray=True))
    (datum,) = datums("db").values()
    assert (datum.channels, datum.height, datum.width, datum.data) == (1, 1, 2, bytes([10, 20]))


def test_images_are_stretched_to_height_and_width(pictures: Any) -> None:
    pictures({"a.png": np.full((4, 4), 7)})
    convert(ConversionOptions(size=(2, 3)))
    (datum,) = datums("db").values()
    assert (datum.height, datum.width, datum.data) == (2, 3, bytes([7] * 18))


def test_encoded_files_are_stored_as_they_are(pictures: Any) -> None:
    pictures({"a.png": [[1, 2]], "b.jpg": [[3, 4]], "c.jpeg": [[5]]})
    convert(ConversionOptions(encoded=True))
    for (key, datum), name in zip(datums("db").items(), ("a.png", "b.jpg", "c.jpeg"), strict=True):
        assert key.endswith(name)
        assert datum.data == Path("images", name).read_bytes()
        assert (datum.encoded, datum.HasField("channels")) == (True, False)


def test_a_file_of_another_format_is_encoded_again(pictures: Any) -> None:
    pictures({"a.bmp": [[1, 2]]})
    convert(ConversionOptions(encode_type="png"))
    (datum,) = datums("db").values()
    assert datum.data[:4] == b"\x89PNG"
    assert cv2.imdecode(np.frombuffer(datum.data, np.uint8), -1).tolist() == [[[1] * 3, [2] * 3]]


def test_jpg_also_means_files_named_jpeg_but_not_the_other_way_round(pictures: Any) -> None:
    pictures({"a.jpeg": np.zeros((8, 8)), "b.jpg": np.zeros((8, 8))})
    Path("images/b.jpg").write_bytes(Path("images/b.jpg").read_bytes() + b"after the end")
    convert(ConversionOptions(encode_type="jpeg"))
    a, b = datums("db").values()
    assert a.data == Path("images/a.jpeg").read_bytes()
    assert b.data != Path("images/b.jpg").read_bytes()


def test_encoded_and_resized_images_are_encoded_after_the_resizing(pictures: Any) -> None:
    pictures({"a.png": np.full((4, 4), 9)})
    convert(ConversionOptions(encoded=True, size=(2, 3)))
    (datum,) = datums("db").values()
    assert cv2.imdecode(np.frombuffer(datum.data, np.uint8), 0).tolist() == [[9, 9, 9]] * 2


def test_a_name_without_a_format_is_reported_and_refused(pictures: Any, caplog: pytest.LogCaptureFixture) -> None:
    pictures({"a.png": [[1]]})
    Path("images/a.png").rename("images/a")
    Path("list.txt").write_text("a 0\n")
    with pytest.raises(RistrettoError, match=r'^images/a: an image cannot be encoded as "a"\. Set --encode_type'):
        convert(ConversionOptions(encoded=True))
    assert "Failed to guess the encoding of 'a'" in caplog.messages
    assert not Path("db").exists()


# --- lists


def test_names_may_hold_spaces_and_labels_signs(here: Path) -> None:
    Path("list.txt").write_bytes(b"a b.png 12\r\nc  d.png -3\nx.png 7abc  \n\xff.png 2147483647")
    assert read_list("list.txt") == [
        ListedImage(0, b"a b.png", 12),
        ListedImage(1, b"c  d.png", -3),
        ListedImage(2, b"x.png", 7),
        ListedImage(3, b"\xff.png", 2147483647),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_name(here: Path) -> None:
    Path("list.txt").write_bytes(b"\xef\xbb\xbfa.png 1\nb.png 2\n")
    assert [entry.name for entry in read_list("list.txt")] == [b"a.png", b"b.png"]
    Path("list.txt").write_text("a.png 1\n", encoding="utf-16")
    with pytest.raises(RistrettoError, match=r"^list.txt: the text is UTF-16, by its byte order mark\. "):
        read_list("list.txt")


def test_blank_lines_are_left_out_but_count_in_the_keys(pictures: Any) -> None:
    pictures({"a.png": [[1]], "b.png": [[2]]})
    Path("list.txt").write_text("a.png 0\n\nb.png 1\n\n")
    assert convert() == Converted(2, 0)
    assert list(records("db")) == ["00000000_a.png", "00000002_b.png"]


def test_every_bad_line_is_reported(here: Path) -> None:
    Path("list.txt").write_text("a.png 1\nb.png\nc.png\t1\n 4\nd.png x\ne.png 4294967296\nf.png 11111111111\n")
    with pytest.raises(RistrettoError) as caught:
        read_list("list.txt")
    no_label = "no label after the last space. Expected: file label."
    assert str(caught.value).splitlines() == [
        *(f"list.txt:{line}: {no_label}" for line in (2, 3, 4, 5)),
        "list.txt:6: the label or the name is invalid. Expected: file label.",
        f"list.txt:7: {no_label}",
    ]


def test_of_many_bad_lines_twenty_are_reported(here: Path) -> None:
    Path("list.txt").write_text("a.png\n" * 1000)
    with pytest.raises(RistrettoError) as caught:
        read_list("list.txt")
    reported = str(caught.value).splitlines()
    assert (len(reported), reported[-1]) == (21, "list.txt: and 980 more lines like these")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_refused(here: Path, text: str) -> None:
    Path("list.txt").write_text(text)
    with pytest.raises(RistrettoError, match=r"^list\.txt: the list contains no images$"):
        convert()
    assert not Path("db").exists()


def test_a_shuffled_list_is_numbered_in_its_new_order(pictures: Any) -> None:
    pictures({f"{i}.png": [[i]] for i in range(20)})
    convert(rng=np.random.default_rng(0))
    found = datums("db")
    assert [key[:9] for key in found] == [f"{i:08d}_" for i in range(20)]
    labels = [datum.label for datum in found.values()]
    assert labels != sorted(labels)
    assert sorted(labels) == list(range(20))
    assert [key[9:] for key in found] == [f"{label}.png" for label in labels]
    assert [datum.data[0] for datum in found.values()] == labels


def test_names_of_any_bytes_come_through(pictures: Any) -> None:
    pictures({"a.png": [[5]]})
    os.rename(b"images/a.png", b"images/\xe9.png")  # noqa: PTH104 - not UTF-8
    Path("list.txt").write_bytes(b"\xe9.png 3\n")
    convert()
    database = Lmdb(Path("db"))
    assert [key for key, _ in database.records()] == [b"00000000_\xe9.png"]
    database.close()


# --- images that cannot be read


def test_images_that_cannot_be_read_are_logged_and_left_out(pictures: Any, caplog: pytest.LogCaptureFixture) -> None:
    pictures({"a.png": [[1]], "b.png": [[2]]})
    Path("images/text.png").write_text("this is not an image")
    Path("images/empty.png").touch()
    os.mkfifo("images/pipe.png")  # reading it would never end
    names = ["a.png", "gone.png", "text.png", "empty.png", "pipe.png", ".", "a/x", "b.png"]
    Path("list.txt").write_text("".join(f"{name} 1\n" for name in names))
    with caplog.at_level(logging.INFO, "ristretto"):
        assert convert() == Converted(2, 6)
    assert list(records("db")) == ["00000000_a.png", "00000007_b.png"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    unreadable = ("gone.png", "text.png", "empty.png", "pipe.png", ".", "a/x")
    assert errors == [f"Could not open or find file images/{name}" for name in unreadable]
    assert caplog.messages[-2:] == ["Processed 2 files.", "6 of 8 images could not be read and are skipped."]


def test_a_folder_without_its_slash_is_guessed(pictures: Any, here: Path) -> None:
    pictures({"a.png": [[1]]})
    with pytest.raises(RistrettoError) as caught:
        convert_imageset("images", "list.txt", "db", Backend.LMDB, ConversionOptions())
    assert str(caught.value) == (
        "list.txt: none of the 1 images can be read. Should ROOTFOLDER be images/? "
        "ROOTFOLDER is prepended to names unchanged."
    )
    assert sorted(path.name for path in here.iterdir()) == ["images", "list.txt"]


def test_a_list_of_several_labels_is_reported_where_they_come_from(
    pictures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pictures({"a.png": [[1]]})
    several = "for several labels use HDF5Data, or Data with float_data."
    Path("list.txt").write_text("a.png 0 1 0.5\na.png 1 -2.5e1 3\n")
    with pytest.raises(RistrettoError) as caught:
        convert()
    assert str(caught.value) == (
        f"list.txt: none of the 2 images can be read. A line has one label, its last number; {several}"
    )
    Path("list.txt").write_text("a.png 0 1\na.png 1\n")
    assert convert() == Converted(1, 1)
    assert caplog.messages[-1].endswith(several)


def test_check_size_refuses_another_size(pictures: Any, here: Path) -> None:
    pictures({"a.png": np.zeros((3, 4)), "b.png": np.zeros((4, 3))})
    assert convert() == Converted(2, 0)
    for how in (ConversionOptions(check_size=True), ConversionOptions(check_size=True, encoded=True)):
        with pytest.raises(RistrettoError, match=r"^images/b\.png: the image is 4x3x3, but the first one is 3x4x3\."):
            convert_imageset("images/", "list.txt", "other", Backend.LMDB, how)
    assert sorted(path.name for path in here.iterdir()) == ["db", "images", "list.txt"]


@pytest.mark.parametrize("kind", ["nope", ".", "\0"])
def test_an_encode_type_that_opencv_does_not_know_is_refused_before_any_work(here: Path, kind: str) -> None:
    with pytest.raises(RistrettoError, match=r"^--encode_type: images cannot be encoded as "):
        convert_imageset("images/", "there is no list", "db", Backend.LMDB, ConversionOptions(encode_type=kind))


def test_progress_is_reported_image_by_image_and_files_by_the_thousand(
    pictures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pictures({"a.png": [[1]]})
    Path("list.txt").write_text("a.png 1\n" * 2001)
    reported: list[tuple[int, int, str]] = []
    with caplog.at_level(logging.INFO, "ristretto"):
        convert(on_image=lambda *of: reported.append(of))
    assert reported == [(i, 2001, "images") for i in range(1, 2002)]
    assert caplog.messages == [
        "A total of 2001 images.",
        "Opened lmdb db",
        "Processed 1000 files.",
        "Processed 2000 files.",
        "Processed 2001 files.",
    ]
