"""From pixels to the integers of a program's inputs: what transform_param does, without floating point."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from ristretto_cli.integers.compiler import Compiled
from ristretto_cli.integers.interpreter import quantized
from ristretto_cli.integers.program import Input
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import AnyArray
from ristretto_cli.sources.transform import Transform, read_mean

_PIXELS = 256
_WITH_PIXELS = ("Data", "ImageData", "AnnotatedData")


@dataclass(frozen=True)
class PixelTable:
    """For each channel and pixel value, the integer: int64 (C, 256)."""

    entries: AnyArray


@dataclass(frozen=True)
class PixelOffsets:
    """saturate(factor * pixel + offset), with an offset for each position: int64 (C, H, W)."""

    factor: int
    offsets: AnyArray


def pixel_inputs(compiled: Compiled) -> dict[str, PixelTable | PixelOffsets]:
    """For each input that reads pixels, by place, what makes its integers of them; exact, or omitted.

    Crops and mirrors only choose pixels; they are left to the caller.
    """
    layers = {top.name: layer for layer in compiled.net.layers if layer.is_source for top in layer.tops[:1]}
    found: dict[str, PixelTable | PixelOffsets] = {}
    for each in compiled.program.inputs:
        layer = layers.get(each.blob)
        if layer is None or layer.type not in _WITH_PIXELS or len(each.place.shape) != 3:
            continue
        table = _of(layer, each)
        if table is not None:
            found[each.place.name] = table
    return found


def _of(layer: Layer, to: Input) -> PixelTable | PixelOffsets | None:
    param = deepcopy(layer.message.transform_param)
    has_mean = param.HasField("mean_file")
    for field in ("crop_size", "crop_h", "crop_w", "mirror", "resize_param"):
        param.ClearField(field)
    channels = to.place.shape[0]
    if not has_mean:
        pixels = np.broadcast_to(np.arange(_PIXELS, dtype=np.uint8).reshape(-1, 1, 1, 1), (_PIXELS, channels, 1, 1))
        numbers = Transform(param, layer.phase, np.random.default_rng(0))(pixels)
        return PixelTable(quantized(numbers, to)[..., 0, 0].T.astype(np.int64))
    factor = float(param.scale) * 2.0**to.place.frac_bits
    if factor != int(factor):
        return None
    whole = Transform(layer.message.transform_param, layer.phase, np.random.default_rng(0))
    mean = read_mean(param.mean_file).shape
    if whole.shape(mean) != to.place.shape:
        return None
    zeros = whole(np.zeros((1, *mean), np.uint8))[0].astype(np.float64)
    offsets = np.rint(np.ldexp(zeros, to.place.frac_bits)).astype(np.int64)
    for pixel in range(_PIXELS):
        numbers = whole(np.full((1, *mean), pixel, np.uint8))
        ours = (int(factor) * pixel + offsets).clip(to.place.low, to.place.high)
        if (quantized(numbers, to)[0] != ours).any():
            return None
    return PixelOffsets(int(factor), offsets)
