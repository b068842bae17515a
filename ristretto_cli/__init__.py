"""Ristretto: post-training quantization for trained Caffe networks."""

import os

__version__ = "0.1.0"

# A few bytes can declare an image of gigabytes. OpenCV reads its limit, 2**30 pixels, when it is loaded, so
# this must come before any module that imports it.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
