#!/usr/bin/env bash
# Quantize SqueezeNet to dynamic fixed point, giving up at most ERROR_MARGIN (3) points of top-1 accuracy.
# Settings are environment variables: see squeezenet.sh. Example:
#   DATA=/data/imagenet WEIGHTS=~/squeezenet.caffemodel ITERATIONS=100 scripts/00_quantize_squeezenet.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=squeezenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/squeezenet.sh"

need_database ilsvrc12_train_lmdb
cd "$DATA" # the net names its databases relative to the working folder
exec "$RISTRETTO" quantize --model="$MODEL" --weights="$WEIGHTS" --model_quantized="$QUANTIZED" \
  --trimming_mode=dynamic_fixed_point --iterations="$ITERATIONS" --error_margin="${ERROR_MARGIN:-3}"
