"""Ristretto: trims trained Caffe networks to few bits."""

import os

__version__ = "0.1.0"

# A few bytes can announce an image of gigabytes. OpenCV reads its limit, 2**30 pixels, when it is loaded, so that
# this must come before any module that imports it.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
