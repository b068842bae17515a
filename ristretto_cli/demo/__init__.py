"""The example of handwritten digits. The files in `digits` are links to those in models/digits, so that packages have
them."""
