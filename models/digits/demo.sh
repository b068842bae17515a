#!/usr/bin/env bash
# demo.sh BIN: quantize the digits net and score the result, with the ristretto and python of the folder BIN.
set -euo pipefail

bin=${1:?usage: demo.sh BIN, the folder that holds ristretto and python}
bin=$(cd "$bin" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
export GLOG_minloglevel=${GLOG_minloglevel-1}  # 0 shows every batch

if [[ ! -e digits_train_lmdb/data.mdb || ! -e digits_test_lmdb/data.mdb ]]; then
  echo "== Writing scikit-learn's handwritten digits as Caffe databases"
  "$bin/python" make_lmdb.py
fi

echo "== Trimming a small LeNet to few bits, as few as cost at most 2 points: writes quantized.prototxt"
"$bin/ristretto" quantize --model train_val.prototxt --weights digits.caffemodel \
  --model_quantized quantized.prototxt --trimming_mode dynamic_fixed_point --iterations 10 --error_margin 2

echo "== Scoring the quantized net on all 360 test images"
"$bin/ristretto" test --model quantized.prototxt --weights digits.caffemodel --iterations 10
