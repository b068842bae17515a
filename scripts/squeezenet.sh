# Read by the scripts beside it: where things lie, and a word when something is missing.
# shellcheck shell=bash
#
#   MODEL       the net                                  models/squeezenet_v1.0/train_val.prototxt
#   WEIGHTS     its caffemodel                           models/squeezenet_v1.0/squeezenet_v1.0.caffemodel
#   QUANTIZED   the quantized net                        quantized.prototxt beside MODEL
#   DATA        the folder with the ImageNet databases   models/squeezenet_v1.0
#   ITERATIONS  batches to score                         2000, all 50,000 validation images
#   RISTRETTO   the command                              the one on the PATH, or of .venv
#
# Exit code 66: a file or folder is missing; 69: the command is missing.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

stop() {  # CODE WORDS
  echo "$(basename "$0"): $2" >&2
  exit "$1"
}

absolute() {  # PATH, because the command runs in another folder
  case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}

MODEL=$(absolute "${MODEL:-$repo/models/squeezenet_v1.0/train_val.prototxt}")
WEIGHTS=$(absolute "${WEIGHTS:-$repo/models/squeezenet_v1.0/squeezenet_v1.0.caffemodel}")
QUANTIZED=$(absolute "${QUANTIZED:-$(dirname "$MODEL")/quantized.prototxt}")
DATA=$(absolute "${DATA:-$repo/models/squeezenet_v1.0}")
ITERATIONS=${ITERATIONS:-2000}

if [[ -z ${RISTRETTO:-} ]]; then
  RISTRETTO=ristretto
  command -v ristretto >/dev/null || RISTRETTO=$repo/.venv/bin/ristretto
fi
case $RISTRETTO in */*) RISTRETTO=$(absolute "$RISTRETTO") ;; esac
command -v "$RISTRETTO" >/dev/null ||
  stop 69 "there is no command $RISTRETTO. Install it (pip install . in the repository), or set RISTRETTO to it."

need_file() {  # PATH VARIABLE WHAT
  [[ -f $1 ]] || stop 66 "$3 is not there: $1. Set $2 to it; models/squeezenet_v1.0/readme.md says where it comes from."
}

need_database() {  # NAME, of those that the repository's own net reads
  grep -qsF "\"$1\"" "$MODEL" || return 0
  [[ -e $DATA/$1 ]] ||
    stop 66 "the database $1 is not there: $DATA/$1. Set DATA to the folder that holds it; models/squeezenet_v1.0/readme.md says how to make it."
}

need_file "$MODEL" MODEL "the net"
need_file "$WEIGHTS" WEIGHTS "the caffemodel"
[[ -d $DATA ]] || stop 66 "the folder of the databases is not there: $DATA. Set DATA to it."
need_database ilsvrc12_val_lmdb
