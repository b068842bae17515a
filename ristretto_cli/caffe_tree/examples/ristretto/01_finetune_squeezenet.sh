#!/usr/bin/env sh
# Fine-tunes the net that 00_quantize_squeezenet.sh wrote. Snapshots: models/SqueezeNet/RistrettoDemo/
# squeezenet_finetuned_iter_N.caffemodel; 02_benchmark_fixedpoint_squeezenet.sh scores squeezenet_finetuned.caffemodel,
# so rename the one to keep.
set -e
cd "$(dirname "$0")/../.."

./build/tools/caffe train \
  --solver=models/SqueezeNet/RistrettoDemo/solver_finetune.prototxt \
  --weights=models/SqueezeNet/squeezenet_v1.0.caffemodel "$@"
