#!/usr/bin/env bash
# demo.sh BIN: quantize the digits net, score it, fine-tune it and score it again, with the ristretto and python of the
# folder BIN. Without torch there, fine-tuning is left out.
set -euo pipefail

bin=${1:?usage: demo.sh BIN, the folder that holds ristretto and python}
bin=$(cd "$bin" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
export GLOG_minloglevel=${GLOG_minloglevel-1}  # 0 shows every batch

if [[ ! -e digits_train_lmdb/data.mdb || ! -e digits_test_lmdb/data.mdb ]]; then
  echo "== Writing the handwritten digits as Caffe databases"
  "$bin/python" make_lmdb.py
fi

echo "== Trimming a small LeNet to few bits, as few as cost at most 3 percentage points each; fine-tuning follows: writes quantized.prototxt"
"$bin/ristretto" quantize --model train_val.prototxt --weights digits.caffemodel --model_quantized quantized.prototxt \
  --trimming_mode dynamic_fixed_point --bit_widths 16,8,4 --iterations 10 --error_margin 3 --nohold_margin --fl_layer original

score() {  # WEIGHTS
  "$bin/ristretto" test --model quantized.prototxt --weights "$1" --iterations 10
}

echo "== Scoring the quantized net on all 360 test images"
score digits.caffemodel

if ! "$bin/python" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("torch") is None)'; then
  echo "== There is no torch here, so the quantized net is not fine-tuned: pip install 'ristretto-cli[train]'"
  exit
fi

echo "== Fine-tuning the quantized net, some seconds: writes digits_finetuned_iter_1000.caffemodel"
"$bin/ristretto" train --solver solver_finetune.prototxt --weights digits.caffemodel --trim_activations --threads 1

echo "== Scoring the fine-tuned net on all 360 test images"
score digits_finetuned_iter_1000.caffemodel
