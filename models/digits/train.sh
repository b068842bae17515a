#!/usr/bin/env bash
# train.sh BIN: how digits.caffemodel was made, with the ristretto and python of the folder BIN. Needs torch.
# Takes some seconds on one core. The same torch gives the same weights on the same machine; on others the last
# bits, and with them the accuracy by an image or two, may differ.
set -euo pipefail

bin=${1:?usage: train.sh BIN, the folder that holds ristretto and python}
bin=$(cd "$bin" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ ! -e digits_train_lmdb/data.mdb || ! -e digits_test_lmdb/data.mdb ]]; then
  "$bin/python" make_lmdb.py
fi
"$bin/ristretto" train --solver solver.prototxt --threads 1
mv digits_iter_1500.caffemodel digits.caffemodel
rm digits_iter_1500.solverstate
