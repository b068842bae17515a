#!/usr/bin/env bash
# Score LeNet in floating point, trimmed, and trimmed with fine-tuned weights. Settings are environment variables:
# see lenet.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/lenet.sh"

need_step "$float" "the trained net" 00_train.sh
need_step "$quantized" "the trimmed net" 01_quantize.sh
need_step "$finetuned" "the fine-tuned net" 02_finetune.sh

score() {  # WORDS NET WEIGHTS
  echo "$1:"
  "$RISTRETTO" test --model="$2" --weights="$3" --iterations="$ITERATIONS"
}
score "Floating point" "$MODEL" "$float"
score "Trimmed" "$quantized" "$float"
score "Trimmed and fine-tuned" "$quantized" "$finetuned"
