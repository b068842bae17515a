#!/usr/bin/env bash
# Train LeNet on MNIST from scratch. Arguments go to `ristretto train`; settings are environment variables: lenet.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/lenet.sh"

solver_for "$lenet/solver.prototxt" "$MODEL" "$OUT/lenet_float" "$ITERATIONS" >"$OUT/lenet_float.solver"
exec "$RISTRETTO" train --solver="$OUT/lenet_float.solver" "$@"
