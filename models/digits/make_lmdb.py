"""Write scikit-learn's handwritten digits as two Caffe databases: digits_train_lmdb, digits_test_lmdb.

Every fifth image (numbers 0, 5, 10, ...) is for testing: 360 of 1,797; the others are for training. The
databases come beside this file, or in the folder named as the only argument; older ones are replaced.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lmdb
import numpy as np

from ristretto_cli.caffe_io.messages import new

MAP_BYTES = 16 << 20  # room enough; the larger file takes 0.15 MB
TEST_EVERY = 5


def split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The data as {"train" | "test": (images (N, 1, 8, 8) of uint8 0..16, labels (N,))}, in the order of the
    databases. SystemExit with a word where scikit-learn is missing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("make_lmdb.py: the digits come with scikit-learn: pip install 'ristretto-cli[demo]'")
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, np.newaxis]
    is_test = np.arange(len(images)) % TEST_EVERY == 0
    return {
        "train": (images[~is_test], digits.target[~is_test]),
        "test": (images[is_test], digits.target[is_test]),
    }


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """A fresh database in folder: a Datum for each image under its number in eight digits."""
    with lmdb.open(str(folder), map_size=MAP_BYTES) as env, env.begin(write=True) as transaction:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            channels, height, width = image.shape
            datum = new("Datum", channels=channels, height=height, width=width, data=image.tobytes(), label=int(label))
            transaction.put(b"%08d" % number, datum.SerializeToString(), append=True)


def main(destination: Path) -> None:
    for name, (images, labels) in split().items():
        final = destination / f"digits_{name}_lmdb"
        # Written elsewhere and moved, so that a run cut short never leaves half a database.
        with tempfile.TemporaryDirectory(dir=destination, prefix=".digits_") as scratch:
            fresh = Path(scratch) / "fresh"
            fresh.mkdir()
            write(fresh, images, labels)
            if final.exists():
                final.rename(Path(scratch) / "old")
            fresh.rename(final)
        print(f"{final.name}: {len(images)} images")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
