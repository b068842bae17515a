"""Fillers: initial values of parameters and contents of DummyData blobs, from a FillerParameter."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod, sqrt
from typing import TypeAlias

import numpy as np

from ristretto_cli.caffe_io.messages import Message, enum_name
from ristretto_cli.errors import LayerError, did_you_mean
from ristretto_cli.ops import Array, Shape

Filler: TypeAlias = Callable[[Message, Shape, np.random.Generator], Array]


def fill(filler: Message, shape: Shape, *, rng: np.random.Generator) -> Array:
    """An array of that shape, filled according to the FillerParameter; LayerError as in check_filler."""
    check_filler(filler, shape)
    return FILLERS[filler.type](filler, shape, rng)


def check_filler(filler: Message, shape: Shape) -> None:
    """LayerError for an unknown type, settings out of range, or a shape that the type cannot fill."""
    kind = filler.type
    if kind not in FILLERS:
        known = f"Known: {', '.join(FILLERS)}."
        raise LayerError(f'unknown filler "{kind}"', hint=did_you_mean(kind, FILLERS) or known)
    if prod(shape) < 1:
        raise LayerError(f"filler {kind} cannot fill an empty blob, of shape {shape}")
    if kind == "uniform" and not filler.min <= filler.max:
        raise LayerError(f"filler uniform has min {filler.min:g} above max {filler.max:g}")
    if kind == "gaussian" and not filler.std > 0:
        raise LayerError(f"filler gaussian has std {filler.std:g}", hint="It must be positive.")
    if kind == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise LayerError(f"filler bilinear cannot fill the shape {shape}", hint="It needs (N, C, K, K).")
    if filler.sparse == -1:
        return
    if kind != "gaussian":
        raise LayerError(f"filler {kind} cannot be sparse", hint="Only gaussian can.")
    outputs = shape[0] if shape else 0
    if not 0 <= filler.sparse <= outputs:
        raise LayerError(f"filler gaussian has sparse {filler.sparse}, but {outputs} outputs")


def _constant(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    return np.full(shape, filler.value, np.float32)


def _uniform(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    return _between(filler.min, filler.max, shape, rng)


def _gaussian(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    values = _normal(filler.std, shape, rng)
    values += np.float32(filler.mean)
    if filler.sparse != -1:
        # Caffe divides by the number of outputs, although its comments say inputs per output.
        values *= rng.random(shape, np.float32) < filler.sparse / shape[0]
    return values


def _positive_unitball(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    rows = rng.random((shape[0] if shape else 1, prod(shape[1:])), np.float32)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows.reshape(shape)


def _xavier(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    limit = sqrt(3 / _fan(filler, shape))
    return _between(-limit, limit, shape, rng)


def _msra(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    return _normal(sqrt(2 / _fan(filler, shape)), shape, rng)


def _bilinear(filler: Message, shape: Shape, rng: np.random.Generator) -> Array:
    size = shape[3]
    half = np.float32(ceil(size / 2))
    centre = np.float32((size - 1) / (2 * half))
    # As in Caffe: positions in float32, the product in float64.
    away = np.abs(np.arange(size, dtype=np.float32) / half - centre).astype(np.float64)
    values = np.empty(shape, np.float32)
    values[:] = np.outer(1 - away, 1 - away)
    return values


def _fan(filler: Message, shape: Shape) -> float:
    """Fan-in or fan-out as Caffe computes it: the size divided by one axis, for every layer type."""
    fan_in = prod(shape[1:])
    fan_out = prod(shape) // shape[1] if len(shape) > 1 else prod(shape)
    norm = enum_name(filler, "variance_norm")
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[norm]


def _between(low: float, high: float, shape: Shape, rng: np.random.Generator) -> Array:
    values = rng.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _normal(std: float, shape: Shape, rng: np.random.Generator) -> Array:
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(std)
    return values


FILLERS: dict[str, Filler] = {
    "constant": _constant,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "uniform": _uniform,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
