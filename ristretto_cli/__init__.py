"""Ristretto: trims trained Caffe networks to few bits."""

__version__ = "0.1.0"
