"""The databases of the digits: LMDB folders as Caffe's tools write them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ristretto_cli.datasets.datum import plain_datum
from ristretto_cli.datasets.new_database import Backend, new_database

_TEST_EVERY = 5


def write_databases(archive: Path, destination: Path) -> Iterator[str]:
    """Write digits_train_lmdb and digits_test_lmdb to a folder, and yield a line for each; older ones are replaced.

    archive: an .npz with `images` (N, H, W) of uint8 and `labels` (N,). Every fifth image (numbers 0, 5, 10, ...) is
    for testing. RistrettoError if the databases cannot be written.
    """
    with np.load(archive) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    is_test = np.arange(len(images)) % _TEST_EVERY == 0
    for name, chosen in (("digits_train_lmdb", ~is_test), ("digits_test_lmdb", is_test)):
        # An interrupted run leaves the older database.
        with tempfile.TemporaryDirectory(dir=destination, prefix=".digits_") as scratch:
            fresh, final = Path(scratch) / name, destination / name
            with new_database(str(fresh), Backend.LMDB) as database:
                for number, (image, label) in enumerate(zip(images[chosen], labels[chosen], strict=True)):
                    record = plain_datum(image.tobytes(), (1, *image.shape), int(label))
                    database.put(b"%08d" % number, record)
            if final.exists():
                final.rename(Path(scratch) / "old")
            fresh.rename(final)
        yield f"{name}: {int(chosen.sum())} images"
