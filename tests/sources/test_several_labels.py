"""Labels of several values, as detectors of faces need them: a class, a box of 4, landmarks of 10 numbers an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.data_loader import DataLoader

ROWS = 3
IMAGES = np.arange(ROWS * 3 * 2 * 2, dtype=np.float32).reshape(ROWS, 3, 2, 2)
LABEL = np.array([1, 0, -1], np.float32)
BOX = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4) / 8
LANDMARKS = -np.arange(ROWS * 10, dtype=np.float32).reshape(ROWS, 10) / 4


def test_hdf5_data_has_a_top_for_each_label_of_its_own_length(workshop: Any) -> None:
    with h5py.File("rows.h5", "w") as rows:
        for name, values in {"data": IMAGES, "label": LABEL, "bbox": BOX, "landmarks": LANDMARKS}.items():
            rows[name] = values
    Path("rows.txt").write_text("rows.h5\n")
    net = workshop.load("""
        layer { name: "d" type: "HDF5Data" top: "data" top: "label" top: "bbox" top: "landmarks"
                hdf5_data_param { source: "rows.txt" batch_size: 2 } }
        layer { name: "twice" type: "Power" bottom: "bbox" top: "twice" power_param { scale: 2 } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "bbox" bottom: "twice" top: "loss" }
    """)
    assert {blob.name: blob.shape for blob in net.inputs} == {
        "data": (2, 3, 2, 2),
        "label": (2,),
        "bbox": (2, 4),
        "landmarks": (2, 10),
    }
    with DataLoader(net) as feeds:
        batch, again = feeds.next(), feeds.next()
    assert batch["label"].tolist() == [1, 0]
    np.testing.assert_array_equal(batch["bbox"], BOX[:2])
    np.testing.assert_array_equal(again["landmarks"], LANDMARKS[[2, 0]])
    # half the squares of 0/8 ... 7/8, over a batch of 2
    assert OnePass(net, rng=np.random.default_rng(0)).run(batch)["loss"] == pytest.approx(140 / 64 / 4)


def test_a_second_data_layer_brings_labels_in_the_float_data_of_its_records(workshop: Any) -> None:
    workshop.database("images", IMAGES.astype(np.uint8), [1, 0, 2])
    workshop.database("boxes", BOX.reshape(ROWS, 4, 1, 1))
    net = workshop.load("""
        layer { name: "d" type: "Data" top: "data" top: "label"
                data_param { source: "images" backend: LMDB batch_size: 2 } }
        layer { name: "b" type: "Data" top: "bbox" data_param { source: "boxes" backend: LMDB batch_size: 2 } }
        layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
                inner_product_param { num_output: 4 weight_filler { type: "constant" } } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "bbox" top: "loss" }
    """)
    assert {blob.name: blob.shape for blob in net.inputs} == {
        "data": (2, 3, 2, 2),
        "label": (2,),
        "bbox": (2, 4, 1, 1),
    }
    with DataLoader(net) as feeds:
        batch, again = feeds.next(), feeds.next()
    np.testing.assert_array_equal(batch["bbox"][:, :, 0, 0], BOX[:2])
    np.testing.assert_array_equal(again["bbox"][:, :, 0, 0], BOX[[2, 0]])
    assert again["label"].tolist() == [2, 1]
    assert OnePass(net, rng=np.random.default_rng(0)).run(batch)["loss"] == pytest.approx(140 / 64 / 4)


LIST = 'type: "ImageData" top: "data" top: "label" image_data_param { source: "list.txt" batch_size: 1 }'


@pytest.mark.parametrize("line", ["gone.png 0 1 0.5", "gone.png 1 -2.5e1 3", "gone.png 0 .5 1"])
def test_a_list_of_several_labels_is_reported_where_they_come_from(line: str, tmp_path: Path, open_layer: Any) -> None:
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(RistrettoError) as caught:
        open_layer(LIST)
    assert str(caught.value) == (
        f"{line.rsplit(maxsplit=1)[0]}: the image cannot be read: No such file or directory. "
        "A line has one label, its last number; for several labels use HDF5Data, or Data with float_data."
    )


@pytest.mark.parametrize("line", ["gone.png 1", "gone 2a.png 1", "1 1"])
def test_another_missing_image_is_reported_without_it(line: str, tmp_path: Path, open_layer: Any) -> None:
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(RistrettoError, match=r"the image cannot be read: No such file or directory$"):
        open_layer(LIST)


def test_an_hdf5_file_instead_of_the_list_is_reported(tmp_path: Path, open_layer: Any) -> None:
    with h5py.File(tmp_path / "rows.h5", "w") as rows:
        rows["data"] = IMAGES
    with pytest.raises(RistrettoError) as caught:
        open_layer('type: "HDF5Data" top: "data" hdf5_data_param { source: "rows.h5" batch_size: 1 }')
    assert str(caught.value) == (
        "hdf5_data_param.source rows.h5 is an HDF5 file, not a list of such files. "
        "Use a text file that contains its name."
    )
