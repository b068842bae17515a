#!/usr/bin/env bash
# The digits net from floating point to C and to Verilog. Settings are environment variables: see hardware.sh. Example:
#   DATA=/data/digits OUT=/tmp/hardware scripts/hardware/all.sh
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

for step in 00_quantize 01_c 02_verilog; do
  echo "== $step"
  "$here/$step.sh"
done
