"""What nets are fed."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.data_loader import DataLoader

DATA = """
    layer { name: "d" type: "Data" top: "data" top: "label"
            data_param { source: "db" backend: LMDB batch_size: 2 } }
"""
INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }'


def three_records(workshop: Any) -> None:
    workshop.database("db", np.zeros((3, 1, 1, 1), np.uint8), [7, 8, 9])


def labels(feeds: DataLoader, batches: int) -> list[list[float]]:
    return [feeds.next()["label"].tolist() for _ in range(batches)]


def test_batches_wrap_around_at_the_end_of_the_data(workshop: Any) -> None:
    three_records(workshop)
    with DataLoader(workshop.load(DATA)) as feeds:
        assert labels(feeds, 3) == [[7, 8], [9, 7], [8, 9]]


def test_every_net_starts_at_the_first_record(workshop: Any) -> None:
    three_records(workshop)
    net = workshop.load(DATA)
    for _ in range(2):
        with DataLoader(net) as feeds:
            assert labels(feeds, 1) == [[7, 8]]


def test_every_data_layer_of_a_net_is_read(workshop: Any) -> None:
    three_records(workshop)
    other = DATA.replace('"d"', '"e"').replace('"data"', '"data2"').replace('"label"', '"label2"')
    with DataLoader(workshop.load(DATA + other.replace("batch_size: 2", "batch_size: 1"))) as feeds:
        feeds.next()
        batch = feeds.next()
    assert batch["label"].tolist() == [9, 7]
    assert batch["label2"].tolist() == [8]


def test_an_input_layer_gets_what_is_given_in_every_batch(workshop: Any) -> None:
    given = {"x": np.array([[1, 2, 3]], np.float32)}
    with DataLoader(workshop.load(INPUT), given=given) as feeds:
        assert [feeds.next()["x"].tolist() for _ in range(2)] == [[[1, 2, 3]], [[1, 2, 3]]]


def test_an_input_layer_without_arrays_asks_for_them(workshop: Any) -> None:
    with pytest.raises(RistrettoError) as refused:
        DataLoader(workshop.load(INPUT))
    assert str(refused.value).endswith(
        'layer "i" (Input): there is no data for x. '
        "Use `ristretto forward --input=x.npz`, or replace it with a data layer such as Data or ImageData."
    )


def test_a_single_top_of_a_data_layer_can_be_given(workshop: Any) -> None:
    three_records(workshop)
    images = np.full((2, 1, 1, 1), 5, np.float32)
    with DataLoader(workshop.load(DATA), given={"data": images}) as feeds:
        batch = feeds.next()
    assert batch["data"].ravel().tolist() == [5, 5]
    assert batch["label"].tolist() == [7, 8]


def test_a_data_layer_all_of_whose_tops_are_given_is_not_opened(workshop: Any) -> None:
    three_records(workshop)
    net = workshop.load(DATA)
    shutil.rmtree(Path("db"))
    given = {"data": np.zeros((2, 1, 1, 1), np.float32), "label": np.array([1, 0], np.float32)}
    with DataLoader(net, given=given) as feeds:
        assert feeds.next()["label"].tolist() == [1, 0]


def test_a_given_blob_of_another_shape_is_refused(workshop: Any) -> None:
    net = workshop.load(INPUT)
    with pytest.raises(RistrettoError) as refused:
        DataLoader(net, given={"x": np.zeros((3, 1), np.float32)})
    assert str(refused.value) == ('input "x" has shape 3x1; expected 1x3. For another size use --input_shape x=3,1.')


def test_a_source_that_cannot_be_opened_leaves_none_open(workshop: Any) -> None:
    three_records(workshop)
    workshop.database("gone", np.zeros((1, 1, 1, 1), np.uint8))
    second = DATA.replace('"d"', '"e"').replace('"data"', '"data2"').replace('"label"', '"label2"')
    net = workshop.load(DATA + second.replace('"db"', '"gone"'))
    shutil.rmtree(Path("gone"))
    before = threading.active_count()
    with pytest.raises(RistrettoError, match="gone"):
        DataLoader(net)
    assert threading.active_count() == before
