#!/usr/bin/env bash
# Fine-tune the trimmed LeNet, its activations trimmed as well. Arguments go to `ristretto train`; settings are
# environment variables: see lenet.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/lenet.sh"

need_step "$float" "the trained net" 00_train.sh
need_step "$quantized" "the trimmed net" 01_quantize.sh
solver_for "$lenet/solver_finetune.prototxt" "$quantized" "$OUT/lenet_finetuned" "$ITERATIONS" \
  >"$OUT/lenet_finetuned.solver"
exec "$RISTRETTO" train --solver="$OUT/lenet_finetuned.solver" --weights="$float" --trim_activations "$@"
