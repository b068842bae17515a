#!/usr/bin/env bash
# Fine-tune the quantized SqueezeNet that 00_quantize_squeezenet.sh wrote, as Ristretto's demo does. Arguments go to
# `ristretto train`: --gpu=0, --trim_activations ... Settings are environment variables: see squeezenet.sh.
# ^C saves and ends; with SNAPSHOT set to the squeezenet_finetuned_iter_N.solverstate, it goes on from there.
# With WEIGHTS set to a squeezenet_finetuned_iter_N.caffemodel, 02_benchmark_fixedpoint_squeezenet.sh scores it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=squeezenet.sh
source "$(dirname "${BASH_SOURCE[0]}")/squeezenet.sh"

need_database ilsvrc12_train_lmdb
need_quantized
need_file "$SOLVER" SOLVER "the solver" "$readme"
begin=(--weights="$WEIGHTS")
[[ -z ${SNAPSHOT:-} ]] || begin=(--snapshot="$(absolute "$SNAPSHOT")") # it comes with weights of its own

# The solver with the paths of this run; it stays, because going on from a snapshot needs it as well.
solver_for "$SOLVER" "$QUANTIZED" "$FINETUNED" "$ITERATIONS" >"$FINETUNED.solver"
cd "$DATA" # the net names its databases relative to the working folder
exec "$RISTRETTO" train --solver="$FINETUNED.solver" "${begin[@]}" "$@"
