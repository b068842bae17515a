"""Corrections of quantized nets without labels, from calibration images: weights, biases and BatchNorm statistics."""
