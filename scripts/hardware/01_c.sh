#!/usr/bin/env bash
# The quantized net as C: export it, with the integers of IMAGES images, and run its test program on them. Arguments go
# to `ristretto export`; settings are environment variables: see hardware.sh. Without a C compiler it is not run.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=hardware.sh
source "$(dirname "${BASH_SOURCE[0]}")/hardware.sh"

need_quantized
"$RISTRETTO" export --format=c --model="$quantized" --weights="$WEIGHTS" --output="$OUT/c" --vectors="$IMAGES" "$@"
if ! command -v make >/dev/null || ! command -v "${CC:-cc}" >/dev/null; then
  echo "not run: there is no make or no C compiler (${CC:-cc})"
  exit
fi
make -s -C "$OUT/c" CC="${CC:-cc}" # builds and runs it
