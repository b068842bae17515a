#!/usr/bin/env bash
# LeNet on MNIST, the whole cycle: train from scratch, quantize, fine-tune, score. Settings are environment
# variables: see lenet.sh. Example:
#   DATA=/data/mnist OUT=/tmp/lenet scripts/lenet/all.sh
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

for step in 00_train 01_quantize 02_finetune 03_score; do
  echo "== $step"
  "$here/$step.sh"
done
