# Read by the scripts beside it: where things lie, and a word when something is missing.
# shellcheck shell=bash
#
#   DATA          the folder with the MNIST databases    models/lenet
#   OUT           the folder of all that is written      models/lenet
#   MODEL         the net                                models/lenet/train_val.prototxt
#   ITERATIONS    batches to score                       100, all 10,000 test images
#   ERROR_MARGIN  points that quantizing may cost        3
#   RISTRETTO     the command                            the one on the PATH, or of .venv
#
# Exit code 66: a file or folder is missing; 69: the command is missing.

# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

lenet=$repo/models/lenet
readme=models/lenet/readme.md
DATA=$(absolute "${DATA:-$lenet}")
OUT=$(absolute "${OUT:-$lenet}")
MODEL=$(absolute "${MODEL:-$lenet/train_val.prototxt}")
ITERATIONS=${ITERATIONS:-100}
ERROR_MARGIN=${ERROR_MARGIN:-3}

# What the steps hand on. Iterations are those of the solvers.
float=$OUT/lenet_float_iter_10000.caffemodel
quantized=$OUT/quantized.prototxt
finetuned=$OUT/lenet_finetuned_iter_3000.caffemodel

need_step() {  # PATH WHAT SCRIPT
  [[ -f $1 ]] || stop 66 "$2 is not there: $1. Run $3 first, with the same OUT."
}

need_file "$MODEL" MODEL "the net" "$readme"
[[ -d $DATA ]] || stop 66 "the folder of the databases is not there: $DATA. Set DATA to it."
need_data mnist_train_lmdb "$readme"
need_data mnist_test_lmdb "$readme"
mkdir -p "$OUT"
cd "$DATA" # the net names its databases relative to the working folder
