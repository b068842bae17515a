#!/usr/bin/env sh
# Finds bit widths for SqueezeNet in dynamic fixed point that lose at most 3 points of top-1 accuracy.
# Needs models/SqueezeNet/squeezenet_v1.0.caffemodel and the databases that models/SqueezeNet/train_val.prototxt names.
set -e
cd "$(dirname "$0")/../.."

./build/tools/ristretto quantize \
  --model=models/SqueezeNet/train_val.prototxt \
  --weights=models/SqueezeNet/squeezenet_v1.0.caffemodel \
  --model_quantized=models/SqueezeNet/RistrettoDemo/quantized.prototxt \
  --trimming_mode=dynamic_fixed_point --error_margin=3 \
  --iterations=2000 --gpu=0 "$@"
