#!/usr/bin/env bash
# Score the quantized SqueezeNet that 00_quantize_squeezenet.sh wrote; with WEIGHTS set to fine-tuned ones, those.
# Settings are environment variables: see squeezenet.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=squeezenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/squeezenet.sh"

[[ -f $QUANTIZED ]] ||
  stop 66 "the quantized net is not there: $QUANTIZED. Run 00_quantize_squeezenet.sh first, or set QUANTIZED to it."
cd "$DATA" # the net names its databases relative to the working folder
exec "$RISTRETTO" test --model="$QUANTIZED" --weights="$WEIGHTS" --iterations="$ITERATIONS"
