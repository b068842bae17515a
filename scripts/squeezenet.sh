# Read by the scripts beside it: where things lie, and a word when something is missing.
# shellcheck shell=bash
#
#   MODEL       the net                                  models/squeezenet_v1.0/train_val.prototxt
#   WEIGHTS     its caffemodel                           models/squeezenet_v1.0/squeezenet_v1.0.caffemodel
#   QUANTIZED   the quantized net                        quantized.prototxt beside MODEL
#   SOLVER      how it is fine-tuned                     models/squeezenet_v1.0/solver_finetune.prototxt
#   FINETUNED   how names of fine-tuned weights begin    squeezenet_finetuned beside QUANTIZED
#   SNAPSHOT    a .solverstate to go on from             none: fine-tuning begins with WEIGHTS
#   DATA        the folder with the ImageNet databases   models/squeezenet_v1.0
#   ITERATIONS  batches to score                         2000, all 50,000 validation images
#   RISTRETTO   the command                              the one on the PATH, or of .venv
#
# Exit code 66: a file or folder is missing; 69: the command is missing.

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MODEL=$(absolute "${MODEL:-$repo/models/squeezenet_v1.0/train_val.prototxt}")
WEIGHTS=$(absolute "${WEIGHTS:-$repo/models/squeezenet_v1.0/squeezenet_v1.0.caffemodel}")
QUANTIZED=$(absolute "${QUANTIZED:-$(dirname "$MODEL")/quantized.prototxt}")
SOLVER=$(absolute "${SOLVER:-$repo/models/squeezenet_v1.0/solver_finetune.prototxt}")
FINETUNED=$(absolute "${FINETUNED:-$(dirname "$QUANTIZED")/squeezenet_finetuned}")
DATA=$(absolute "${DATA:-$repo/models/squeezenet_v1.0}")
ITERATIONS=${ITERATIONS:-2000}
readme=models/squeezenet_v1.0/readme.md

need_database() {  # NAME, of those that the repository's own net reads
  grep -qsF "\"$1\"" "$MODEL" || return 0
  need_data "$1" "$readme"
}

need_quantized() {
  [[ -f $QUANTIZED ]] ||
    stop 66 "the quantized net is not there: $QUANTIZED. Run 00_quantize_squeezenet.sh first, or set QUANTIZED to it."
}

need_file "$MODEL" MODEL "the net" "$readme"
need_file "$WEIGHTS" WEIGHTS "the caffemodel" "$readme"
[[ -d $DATA ]] || stop 66 "the folder of the databases is not there: $DATA. Set DATA to it."
need_database ilsvrc12_val_lmdb
