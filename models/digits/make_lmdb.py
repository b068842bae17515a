"""Write the handwritten digits as two Caffe databases: digits_train_lmdb, digits_test_lmdb.

Every fifth image (numbers 0, 5, 10, ...) is for testing: 360 of 1,797; the others are for training. The
databases come beside this file, or in the folder named as the only argument; older ones are replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ristretto_cli.demo.databases import write_databases

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    for line in write_databases(HERE / "digits.npz", Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(line)
