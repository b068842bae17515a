"""Blobs of a net to databases and .npz files, on the net of two classes of tests/conftest.py.

Its ten images are the pixels (200, 50) and (50, 200) in turn, in batches of five, scaled by 1/256; the features
`fc` are the pixels themselves.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.datasets.features import extract_features
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.build import NetState
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.net_files import load_net

from ..conftest import LABELS, NET
from .conftest import backend_or_skip, datums, records

HIGH_LOW, LOW_HIGH = [200 / 256, 50 / 256], [50 / 256, 200 / 256]


@pytest.fixture
def net(two_classes: Any) -> Net:
    two_classes()
    return load("net.prototxt")


def load(model: str) -> Net:
    return load_net(model, "net.caffemodel", NetState(), rng=np.random.default_rng(0))


def extract(net: Net, *targets: tuple[str, str], batches: int = 2, backend: Backend = Backend.LMDB) -> Any:
    return extract_features(net, targets, batches, backend, rng=np.random.default_rng(0))


@pytest.mark.parametrize("name", ["lmdb", "leveldb"])
def test_a_database_has_a_float_record_for_each_image(net: Net, name: str) -> None:
    backend = backend_or_skip(name)
    assert extract(net, ("fc", "features"), backend=backend) == [(10, 2)]
    found = datums("features", backend)
    assert list(found) == [f"{i:010d}" for i in range(10)]
    assert [list(datum.float_data) for datum in found.values()] == [HIGH_LOW, LOW_HIGH] * 5


def test_a_record_is_written_as_caffe_writes_it(net: Net) -> None:
    extract(net, ("label", "labels"), batches=1)
    # channels 1, height 1, width 1, float_data: a tag and four bytes a value
    head = bytes([0x08, 1, 0x10, 1, 0x18, 1])
    one, zero = bytes([0x35, 0, 0, 0x80, 0x3F]), bytes([0x35, 0, 0, 0, 0])
    assert list(records("labels").values()) == [head + (one if label else zero) for label in LABELS[:5]]


def test_a_record_has_the_shape_of_one_image(net: Net) -> None:
    extract(net, ("conv", "maps"), ("fc", "flat"), batches=1)
    shapes = [
        {(datum.channels, datum.height, datum.width) for datum in datums(name).values()} for name in ("maps", "flat")
    ]
    assert shapes == [{(2, 1, 1)}, {(2, 1, 1)}]


def test_an_npz_has_all_rows_in_one_array(net: Net) -> None:
    assert extract(net, ("fc", "a.npz"), ("data", "b.npz"), batches=3) == [(15, 2), (15, 2, 1, 1)]
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert (a.files, b.files) == (["fc"], ["data"])
        # The third batch is the first one again.
        assert a["fc"].dtype == np.float32
        assert a["fc"].tolist() == [HIGH_LOW, LOW_HIGH] * 5 + [HIGH_LOW, LOW_HIGH, HIGH_LOW, LOW_HIGH, HIGH_LOW]
        np.testing.assert_array_equal(b["data"].reshape(15, 2), a["fc"])


def test_a_blob_without_axes_gives_a_row_a_batch(net: Net) -> None:
    assert extract(net, ("accuracy", "a.npz"), ("accuracy", "db")) == [(2,), (2,)]
    with np.load("a.npz") as a:
        assert a["accuracy"].tolist() == [np.float32(0.8)] * 2
    assert [list(datum.float_data) for datum in datums("db").values()] == [[np.float32(0.8)]] * 2


def test_a_blob_is_taken_as_the_whole_net_leaves_it(net: Net, workshop: Any) -> None:
    doubled = 'layer { name: "p" type: "Power" bottom: "conv" top: "conv" power_param { scale: 2 } }'
    before_fc = '    layer { name: "fc"'
    assert NET.count(before_fc) == 1
    extract(load(workshop.net(NET.replace(before_fc, doubled + before_fc))), ("conv", "a.npz"), batches=1)
    with np.load("a.npz") as a:
        assert a["conv"][0].ravel().tolist() == [400 / 256, 100 / 256]


def test_the_log_is_caffes(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with caplog.at_level(logging.INFO, "ristretto"):
        extract(net, ("fc", "a.npz"), ("conv", "db"), batches=201)
    assert caplog.messages == [
        "Opening dataset a.npz",
        "Opening dataset db",
        "Opened lmdb db",
        "Extracting Features",
        "Extracted features of 1000 query images for feature blob conv",
        "Extracted features of 1005 query images for feature blob fc",
        "Extracted features of 1005 query images for feature blob conv",
        "Successfully extracted the features!",
    ]


def test_all_that_is_wrong_is_reported_before_any_work(net: Net) -> None:
    before = sorted(Path().iterdir())
    targets = [("fcc", "a"), ("fc", "train_db"), ("fc", "b.npz"), ("conv", "./b.npz"), ("fc", "no/c.npz")]
    with pytest.raises(RistrettoError) as caught:
        extract(net, *targets)
    assert str(caught.value).splitlines() == [
        'net.prototxt: Unknown feature blob name "fcc" in the network. Did you mean fc?',
        "train_db: already exists. Remove it first, or choose another name.",
        "./b.npz: is given for two outputs",
        f"no/c.npz: the folder {Path.cwd() / 'no'} does not exist. Create it first.",
    ]
    assert sorted(Path().iterdir()) == before


def test_a_blob_of_five_axes_fits_only_an_npz(net: Net, workshop: Any) -> None:
    reshape = (
        'layer { name: "r" type: "Reshape" bottom: "fc" top: "r" reshape_param { shape { dim: [5, 1, 1, 1, 2] } } }'
    )
    five = load(workshop.net(NET + reshape))
    assert extract(five, ("r", "a.npz"), batches=1) == [(5, 1, 1, 1, 2)]
    with pytest.raises(
        RistrettoError, match=r'the blob "r" is 5x1x1x1x2, but the records of a database have four axes\.'
    ):
        extract(five, ("r", "db"))


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RistrettoError("a bad image")])
def test_nothing_stays_of_a_run_that_is_not_finished(net: Net, fault: BaseException) -> None:
    before = sorted(Path().iterdir())

    def stop(done: int, total: int, what: str) -> None:
        assert total == 4
        if done == 2:
            raise fault

    with pytest.raises(type(fault)):
        extract_features(
            net,
            [("fc", "a.npz"), ("conv", "db")],
            4,
            Backend.LMDB,
            rng=np.random.default_rng(0),
            on_batch=stop,
        )
    assert sorted(Path().iterdir()) == before
