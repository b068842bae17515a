from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.database import endless
from ristretto_cli.sources.open import DataLayers

from .conftest import datum, encoded, layer, write_lmdb

LMDB = 'type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: %d }'


def image(value: int, shape: tuple[int, int, int] = (1, 2, 2)) -> Any:
    return np.full(shape, value, np.uint8)


def numbered(count: int) -> dict[str, bytes]:
    """Records of which number i has the value i everywhere and the label 10 i."""
    return {f"{i:04}": datum(image(i), 10 * i) for i in range(count)}


def test_records_come_in_the_order_of_their_keys_and_start_again_at_the_end(write: Any, open_layer: Any) -> None:
    write({"b": datum(image(2), 20), "a": datum(image(1), 10), "c": datum(image(3), 30)})
    source = open_layer(LMDB % 2)
    assert source.shapes == ((2, 1, 2, 2), (2,))
    batches = [source.next() for _ in range(3)]
    assert [labels.tolist() for _, labels in batches] == [[10, 20], [30, 10], [20, 30]]
    assert [images[:, 0, 0, 0].tolist() for images, _ in batches] == [[1, 2], [3, 1], [2, 3]]
    assert batches[0][0].dtype == batches[0][1].dtype == np.float32


def test_a_batch_may_be_larger_than_the_database(write: Any, open_layer: Any) -> None:
    write(numbered(2))
    assert open_layer(LMDB % 5).next()[1].tolist() == [0, 10, 0, 10, 0]


def test_images_of_data_ristretto_are_rounded_down_and_labels_are_not(write: Any, open_layer: Any) -> None:
    write({f"{i}": datum(image(value), value) for i, value in enumerate((3, 10, 255))})
    text = (
        (LMDB % 3).replace("Data", "DataRistretto", 1)
        + """
        transform_param { scale: 0.25 }
        quantization_param { bw_layer_data: 6 fl_layer_data: 1 is_sign_data: 0 }"""
    )
    images, labels = open_layer(text).next()
    assert images[:, 0, 0, 0].tolist() == [0.5, 2.5, 31.5]  # of 0.75, 2.5, 63.75
    assert images.dtype == np.float32
    assert labels.tolist() == [3, 10, 255]


def test_one_top_has_no_labels(write: Any, open_layer: Any) -> None:
    write(numbered(2))
    source = open_layer((LMDB % 2).replace('top: "label"', ""))
    assert source.shapes == ((2, 1, 2, 2),)
    assert len(source.next()) == 1


def test_a_record_without_a_label_has_label_0(write: Any, open_layer: Any) -> None:
    write({"a": datum(image(1)), "b": datum(image(1), 7)})
    assert open_layer(LMDB % 2).next()[1].tolist() == [0, 7]


def test_float_records_and_byte_records_mix(write: Any, open_layer: Any) -> None:
    write({"a": datum(np.full((1, 1, 2), -0.5, np.float32)), "b": datum(image(200, (1, 1, 2)))})
    assert open_layer(LMDB % 2).next()[0].ravel().tolist() == [-0.5, -0.5, 200, 200]


def test_bytes_win_over_floats_in_one_record(write: Any, open_layer: Any) -> None:
    both = new("Datum", channels=1, height=1, width=2, data=b"\x01\x02", float_data=[5, 6])
    write({"a": both.SerializeToString()})
    assert open_layer(LMDB % 1).next()[0].ravel().tolist() == [1, 2]


COLOURS = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)  # one row of two pixels, blue green red


def test_encoded_images_keep_the_channels_they_have(write: Any, open_layer: Any) -> None:
    write({"a": encoded(COLOURS, 3), "b": encoded(COLOURS + 1)})
    images, labels = open_layer(LMDB % 2).next()
    assert images[0].tolist() == [[[10, 40]], [[20, 50]], [[30, 60]]]
    assert images[1, :, 0, 0].tolist() == [11, 21, 31]
    assert labels.tolist() == [3, 0]


def test_a_gray_png_has_one_channel(write: Any, open_layer: Any) -> None:
    write({"a": encoded(COLOURS[..., 0])})
    assert open_layer(LMDB % 1).next()[0].tolist() == [[[[10, 40]]]]


def test_shapes_are_read_without_leaving_the_database_open(write: Any, tmp_path: Path) -> None:
    write(numbered(2))
    message = layer((LMDB % 3).replace('"db"', f'"{tmp_path}/db"'))
    assert DataLayers().shapes(message, TEST) == ((3, 1, 2, 2), (3,))
    write(numbered(3))  # LMDB would refuse to open it twice


def test_force_color_and_force_gray_decide_on_the_channels_of_encoded_images(write: Any, open_layer: Any) -> None:
    write({"a": encoded(COLOURS[..., 0]), "b": encoded(COLOURS)})
    images = open_layer(LMDB % 2 + " transform_param { force_color: true }").next()[0]
    assert images[:, :, 0, 1].tolist() == [[40, 40, 40], [40, 50, 60]]
    images = open_layer(LMDB % 2 + " transform_param { force_gray: true }").next()[0]
    assert images.shape == (2, 1, 1, 2)
    assert images[0, 0, 0].tolist() == [10, 40]


def test_many_encoded_images_keep_their_order(write: Any, open_layer: Any) -> None:
    write({f"{i:04}": encoded(np.full((3, 3), i, np.uint8), i) for i in range(100)})
    images, labels = open_layer(LMDB % 100).next()
    assert images[:, 0, 1, 1].tolist() == labels.tolist() == list(range(100))


def test_with_batch_size_1_each_image_has_its_own_size(write: Any, open_layer: Any) -> None:
    write({"a": datum(image(1)), "b": datum(image(2, (1, 1, 3)))})
    source = open_layer(LMDB % 1)
    assert source.shapes == ((1, 1, 2, 2), (1,))
    assert [source.next()[0].shape for _ in range(3)] == [(1, 1, 2, 2), (1, 1, 1, 3), (1, 1, 2, 2)]


def test_rand_skip_has_no_effect_as_in_the_original(write: Any, open_layer: Any) -> None:
    write(numbered(10))
    text = (LMDB % 1).replace("backend", "rand_skip: 4 backend")
    assert {int(open_layer(text, TRAIN, seed=seed).next()[1][0]) for seed in range(10)} == {0}


def test_reading_goes_around_the_end() -> None:
    class Three:
        def records(self) -> Any:
            return iter([(b"0", b""), (b"1", b""), (b"2", b"")])

        def close(self) -> None: ...

    records = endless(Three())
    assert [int(next(records)[0]) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_two_sources_read_one_database_at_the_same_time(write: Any, open_layer: Any) -> None:
    write(numbered(3))
    first, second = open_layer(LMDB % 1), open_layer(LMDB % 2)
    assert first.next()[1].tolist() == [0]
    assert second.next()[1].tolist() == [0, 10]
    first.close()
    first.close()
    assert second.next()[1].tolist() == [20, 0]
    third = open_layer(LMDB % 1)
    second.close()
    assert third.next()[1].tolist() == [0]


def test_reading_leaves_no_trace_in_the_folder(write: Any, open_layer: Any) -> None:
    folder = write(numbered(3))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.chmod(0o555)
    source = open_layer(LMDB % 2)
    source.next()
    source.close()
    folder.chmod(0o755)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_settings_of_the_old_format_have_no_effect_and_are_named(
    write: Any, open_layer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write(numbered(2))
    text = (LMDB % 1).replace("backend", "scale: 0.5 crop_size: 1 backend")
    assert open_layer(text).next()[0].shape == (1, 1, 2, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "data_param.scale has no effect; set it in transform_param",
        "data_param.crop_size has no effect; set it in transform_param",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LMDB % 0, "data_param.batch_size is 0. Set it to 1 or more."),
        ((LMDB % 1).replace("batch_size: 1", ""), "data_param.batch_size is not set. Set it to 1 or more."),
        ((LMDB % 1).replace('source: "db"', ""), "data_param.source is not set"),
        (
            (LMDB % 1).replace('"db"', '"gone"'),
            "data_param.source gone does not exist. Relative paths start at the current folder.",
        ),
        ((LMDB % 1).replace('"db"', '"/gone"'), "data_param.source /gone does not exist"),
        (
            (LMDB % 1).replace('"db"', '"db/data.mdb"'),
            "data_param.source db/data.mdb is not a folder. Use the folder of the database.",
        ),
        ((LMDB % 1).replace('"db"', '"."'), ". is not an LMDB database: no data.mdb in it"),
        ((LMDB % 1).replace("LMDB", "LEVELDB"), "db is an LMDB database, not LevelDB. Set backend: LMDB."),
        (LMDB % 1 + ' top: "more"', "expected 1 or 2 tops, got 3"),
        (LMDB % 1 + " transform_param { crop_size: 3 }", "crop_size 3 is larger than the image, 2x2"),
        (
            LMDB % 1_000_000_000,
            "the batch has the shape 1000000000x1x2x2, which is too large for a blob",
        ),
    ],
)
def test_bad_settings_are_reported_in_a_line(text: str, says: str, write: Any, open_layer: Any) -> None:
    write(numbered(1))
    with pytest.raises(RistrettoError) as caught:
        open_layer(text)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (b"\xff\xff", 'db: key "b": the record is not a valid Datum message'),
        (datum(image(1))[:-1], 'db: key "b": the record is not a valid Datum message'),
        (
            datum(image(1, (1, 2, 3))),
            'db: key "b": the image is 1x2x3, but the first one is 1x2x2. '
            "Resize all images to the same size, or set crop_size.",
        ),
        (
            new("Datum", channels=1, height=2, width=2, data=b"123").SerializeToString(),
            'db: key "b": the record has 3 values for an image of 1x2x2',
        ),
        (b"", 'db: key "b": the record has 0 values for an image of 0x0x0'),
        (
            new("Datum", channels=-1, height=-2, width=2, data=b"1234").SerializeToString(),
            'db: key "b": the record has 4 values for an image of -1x-2x2',
        ),
        (
            new("Datum", data=b"no picture", encoded=True).SerializeToString(),
            'db: key "b": the image cannot be decoded',
        ),
        (new("Datum", encoded=True).SerializeToString(), 'db: key "b": the image cannot be decoded'),
        (encoded(np.zeros((2, 2), np.uint16)), 'db: key "b": the image has uint16 pixels, not 8 bits'),
    ],
)
def test_a_bad_record_is_named_by_its_key(second: bytes, says: str, write: Any, open_layer: Any) -> None:
    write({"a": datum(image(1)), "b": second})
    source = open_layer(LMDB % 2)
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == says


def test_a_bad_first_record_is_named_by_its_key(write: Any, open_layer: Any) -> None:
    write({"\n": b"\xff"})
    with pytest.raises(RistrettoError, match=r'^db: key " ": the record is not a valid Datum message$'):
        open_layer(LMDB % 1)


def test_a_later_image_smaller_than_the_crop_is_named_by_its_key(write: Any, open_layer: Any) -> None:
    write({"a": datum(image(1)), "b": datum(image(1, (1, 1, 2)))})
    source = open_layer(LMDB % 1 + " transform_param { crop_size: 2 }")
    source.next()
    with pytest.raises(RistrettoError) as caught:
        source.next()
    assert str(caught.value) == 'db: key "b": crop_size 2 is larger than the image, 1x2'


def test_an_empty_database_is_refused(write: Any, open_layer: Any) -> None:
    write({})
    with pytest.raises(RistrettoError, match=r"^the database db is empty$"):
        open_layer(LMDB % 1)


@pytest.mark.parametrize("content", [b"", b"x" * 10000])
def test_a_file_that_is_no_lmdb_is_refused(content: bytes, tmp_path: Path, open_layer: Any) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(content)
    with pytest.raises(RistrettoError, match=r"^db cannot be read as LMDB: "):
        open_layer(LMDB % 1)


def test_a_cut_off_database_is_refused_before_it_is_read(write: Any, open_layer: Any) -> None:
    file = write(numbered(200)) / "data.mdb"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2])
    with pytest.raises(RistrettoError, match=rf"^db is truncated: data.mdb has {size // 2} of {size} bytes$"):
        open_layer(LMDB % 1)


def test_a_database_that_failed_to_open_can_be_opened_later(write: Any, open_layer: Any, tmp_path: Path) -> None:
    write({"a": b"\xff"})
    with pytest.raises(RistrettoError):
        open_layer(LMDB % 1)
    write_lmdb(tmp_path / "db", {"a": datum(image(4))})
    assert open_layer(LMDB % 1).next()[0][0, 0, 0, 0] == 4


class TestLevelDb:
    TEXT = (LMDB % 2).replace("backend: LMDB", "")  # LevelDB is the default

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        plyvel = pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")
        for value in (2, 1, 3):  # three sessions: records in tables and in the log
            database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
            database.put(b"%d" % value, datum(image(value), value))
            database.close()
        return tmp_path / "db"

    def test_records_come_in_order_and_the_folder_stays_as_it_was(self, folder: Path, open_layer: Any) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        source = open_layer(self.TEXT)
        assert [source.next()[1].tolist() for _ in range(2)] == [[1, 2], [3, 1]]
        source.close()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("compression", ["snappy", None])
    def test_tables_logs_overwritten_and_deleted_records(
        self, compression: str | None, tmp_path: Path, open_layer: Any
    ) -> None:
        plyvel = pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")
        options = {"create_if_missing": True, "compression": compression, "write_buffer_size": 1 << 16}
        with closing(plyvel.DB(str(tmp_path / "db"), **options)) as database:
            for i in np.random.default_rng(0).permutation(1000).tolist():
                database.put(b"%04d" % i, datum(image(i % 256, (1, 16, 16)), i))
            for i in range(0, 1000, 10):
                database.delete(b"%04d" % i)
                database.put(b"%04d" % (i + 1), datum(image(7, (1, 16, 16)), -i))
        assert {path.suffix for path in (tmp_path / "db").iterdir()} >= {".ldb", ".log"}
        source = open_layer(self.TEXT.replace("batch_size: 2", "batch_size: 900"))
        images, labels = source.next()
        kept = [i for i in range(1000) if i % 10]
        assert labels.tolist() == [1 - i if i % 10 == 1 else i for i in kept]
        assert images[:, 0, 9, 9].tolist() == [7 if i % 10 == 1 else i % 256 for i in kept]
        assert source.next()[1].tolist() == labels.tolist()

    def test_a_folder_that_is_no_leveldb_is_refused(self, tmp_path: Path, open_layer: Any) -> None:
        pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")
        (tmp_path / "db").mkdir()
        with pytest.raises(RistrettoError, match=r"^db cannot be read as LevelDB: "):
            open_layer(self.TEXT)

    def test_lmdb_as_backend_of_a_leveldb_is_reported(self, folder: Path, open_layer: Any) -> None:
        with pytest.raises(RistrettoError) as caught:
            open_layer(LMDB % 1)
        assert str(caught.value) == "db is a LevelDB database, not LMDB. Set backend: LEVELDB."

    def test_without_plyvel_the_extra_is_named(
        self, tmp_path: Path, open_layer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "db").mkdir()
        monkeypatch.setitem(sys.modules, "plyvel", None)
        with pytest.raises(RistrettoError) as caught:
            open_layer(self.TEXT)
        assert str(caught.value) == "db: reading LevelDB needs plyvel. pip install 'ristretto-cli[leveldb]'"
