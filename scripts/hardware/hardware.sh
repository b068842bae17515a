# Read by the scripts beside it: paths and settings, and what is said when something is missing.
# shellcheck shell=bash
#
#   DATA        the folder with the databases of digits   models/digits
#   OUT         the folder of all that is written         models/digits/hardware
#   MODEL       the net                                   models/digits/train_val.prototxt
#   WEIGHTS     its weights                               models/digits/digits.caffemodel
#   IMAGES      images to check                           36
#   RISTRETTO   the command                               the one on the PATH, or of .venv
#
# Exit code 66: a file or folder is missing; 69: the command is missing.

# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

digits=$repo/models/digits
readme=models/digits/readme.md
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DATA=$(absolute "${DATA:-$digits}")
OUT=$(absolute "${OUT:-$digits/hardware}")
MODEL=$(absolute "${MODEL:-$digits/train_val.prototxt}")
WEIGHTS=$(absolute "${WEIGHTS:-$digits/digits.caffemodel}")
IMAGES=${IMAGES:-36}
quantized=$OUT/quantized.prototxt

need_quantized() {
  [[ -f $quantized ]] || stop 66 "the quantized net is not there: $quantized. Run 00_quantize.sh first, with the same OUT."
}

need_file "$MODEL" MODEL "the net" "$readme"
need_file "$WEIGHTS" WEIGHTS "the caffemodel" "$readme"
[[ -d $DATA ]] || stop 66 "the folder of the databases is not there: $DATA. Set DATA to it."
need_data digits_train_lmdb "$readme"
need_data digits_test_lmdb "$readme"
mkdir -p "$OUT"
cd "$DATA" # the net names its databases relative to the working folder
