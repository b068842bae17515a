"""HDF5Output."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS

FILE = 'hdf5_output_param { file_name: "x.h5" }'


def test_it_reads_two_blobs_and_has_no_tops(bench):
    assert bench.run("HDF5Output", FILE, [[[1, 2]], [3]], tops=0) == []
    assert (LAYERS.get("HDF5Output").bottoms, LAYERS.get("HDF5Output").tops) == ((2, 2), (0, 0))


def test_it_writes_no_file(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench.run("HDF5Output", FILE, [[[1, 2]], [3]], tops=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        ("", [(2, 3), (2,)], "file_name is missing"),
        (FILE, [(2, 3), (3,)], "have shapes 2x3 and 3: the batches differ in size"),
        (FILE, [(2, 1, 1, 1, 1), (2,)], "at most 4 axes are allowed"),
    ],
)
def test_what_caffe_refuses_is_refused(bench, text, shapes, said):
    assert said in bench.refusal("HDF5Output", text, shapes, tops=0)


def test_a_number_without_axes_is_a_batch_of_one(bench):
    assert bench.run("HDF5Output", FILE, [5, [3]], tops=0) == []
