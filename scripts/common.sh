# Read by the scripts here and in lenet/: the command, paths, and solver files that fit a place.
# shellcheck shell=bash
#
#   RISTRETTO   the command   the one on the PATH, or of .venv
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

need_file() {  # PATH VARIABLE WHAT README
  [[ -f $1 ]] || stop 66 "$3 is not there: $1. Set $2 to it; $4 says where it comes from."
}

need_data() {  # NAME README, a database in DATA
  [[ -e $DATA/$1 ]] ||
    stop 66 "the database $1 is not there: $DATA/$1. Set DATA to the folder that holds it; $2 says how to make it."
}

quoted() {  # TEXT, as a string of a prototxt
  local text=${1//\\/\\\\}
  echo "\"${text//\"/\\\"}\""
}

solver_for() {  # SOLVER NET PREFIX ITERATIONS: SOLVER with its net, snapshot_prefix and test_iter replaced, on stdout
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    case $line in
      net:*) echo "net: $(quoted "$2")" ;;
      snapshot_prefix:*) echo "snapshot_prefix: $(quoted "$3")" ;;
      test_iter:*) echo "test_iter: $4" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <"$1"
}

if [[ -z ${RISTRETTO:-} ]]; then
  RISTRETTO=ristretto
  command -v ristretto >/dev/null || RISTRETTO=$repo/.venv/bin/ristretto
fi
case $RISTRETTO in */*) RISTRETTO=$(absolute "$RISTRETTO") ;; esac
command -v "$RISTRETTO" >/dev/null ||
  stop 69 "there is no command $RISTRETTO. Install it (pip install . in the repository), or set RISTRETTO to it."
