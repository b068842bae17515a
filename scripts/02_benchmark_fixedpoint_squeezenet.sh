#!/usr/bin/env bash
# Score the quantized SqueezeNet that 00_quantize_squeezenet.sh wrote; with WEIGHTS set to those of
# 01_finetune_squeezenet.sh, as it is fine-tuned.
# Settings are environment variables: see squeezenet.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=squeezenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/squeezenet.sh"

need_quantized
cd "$DATA" # the net names its databases relative to the working folder
exec "$RISTRETTO" test --model="$QUANTIZED" --weights="$WEIGHTS" --iterations="$ITERATIONS"
