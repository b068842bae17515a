#!/usr/bin/env sh
# Scores the fine-tuned SqueezeNet in dynamic fixed point on the validation set.
set -e
cd "$(dirname "$0")/../.."

./build/tools/caffe test \
  --model=models/SqueezeNet/RistrettoDemo/quantized.prototxt \
  --weights=models/SqueezeNet/RistrettoDemo/squeezenet_finetuned.caffemodel \
  --iterations=2000 --gpu=0 "$@"
