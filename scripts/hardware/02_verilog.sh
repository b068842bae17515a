#!/usr/bin/env bash
# A layer of the quantized net in Verilog: export memories, with the integers of IMAGES images, and simulate
# dot_product.v on the last layer, whose outputs are compared with the exported ones. Arguments go to `ristretto export`;
# settings are environment variables: see hardware.sh. Without Icarus Verilog nothing is simulated.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=hardware.sh
source "$(dirname "${BASH_SOURCE[0]}")/hardware.sh"

need_quantized
"$RISTRETTO" export --format=mem --model="$quantized" --weights="$WEIGHTS" --output="$OUT/mem" \
  --vectors="$IMAGES" --per_line=4 "$@"
if ! command -v iverilog >/dev/null; then
  echo "not simulated: iverilog is not installed"
  exit
fi
cd "$OUT/mem" # the memories are named relative to it
iverilog -g2001 -Wall -I . -o "$OUT/dot_product" "$here/dot_product_tb.v" "$here/dot_product.v"
result=$(vvp -n "$OUT/dot_product")
echo "$result"
[[ $result == *": 0 differ" ]] || stop 1 "the unit and the exported outputs differ"
