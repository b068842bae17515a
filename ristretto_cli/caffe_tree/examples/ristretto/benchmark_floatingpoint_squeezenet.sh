#!/usr/bin/env sh
# Scores SqueezeNet in 32-bit floating point on the validation set.
set -e
cd "$(dirname "$0")/../.."

./build/tools/caffe test \
  --model=models/SqueezeNet/train_val.prototxt \
  --weights=models/SqueezeNet/squeezenet_v1.0.caffemodel \
  --iterations=2000 --gpu=0 "$@"
