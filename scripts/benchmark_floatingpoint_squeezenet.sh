#!/usr/bin/env bash
# Score SqueezeNet as it is, in 32-bit floating point.
# Settings are environment variables: see squeezenet.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=squeezenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/squeezenet.sh"

cd "$DATA" # the net names its databases relative to the working folder
exec "$RISTRETTO" test --model="$MODEL" --weights="$WEIGHTS" --iterations="$ITERATIONS"
