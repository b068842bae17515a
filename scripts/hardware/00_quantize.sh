#!/usr/bin/env bash
# Quantize the digits net: weights and activations of 8 bits. Arguments go to `ristretto quantize`; settings are
# environment variables: see hardware.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=hardware.sh
source "$(dirname "${BASH_SOURCE[0]}")/hardware.sh"

exec "$RISTRETTO" quantize --model="$MODEL" --weights="$WEIGHTS" --model_quantized="$quantized" \
  --trimming_mode=dynamic_fixed_point --bw=conv_params=8,fc_params=8,layer=8 --noscore "$@"
