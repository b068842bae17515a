#!/usr/bin/env bash
# Trim LeNet to as few bits as cost at most ERROR_MARGIN points each for weights and activations. What all of them
# cost together is more; fine-tuning is to regain it. Arguments go to `ristretto quantize`; settings are environment
# variables: see lenet.sh. The paper's widths, for example:
#   scripts/lenet/01_quantize.sh --bw conv_params=2,fc_params=2,layer=4 --fl_params mse
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/lenet.sh"

need_step "$float" "the trained net" 00_train.sh
exec "$RISTRETTO" quantize --model="$MODEL" --weights="$float" --model_quantized="$quantized" \
  --trimming_mode=dynamic_fixed_point --iterations="$ITERATIONS" --error_margin="$ERROR_MARGIN" "$@"
