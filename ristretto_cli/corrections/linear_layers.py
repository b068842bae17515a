"""Convolution and InnerProduct as matrix products: the inputs that the weights of an output are multiplied with."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

import numpy as np

from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.inner_product import InnerProduct
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import AnyArray, Array

PLACES = 32  # of the outputs of an image that are sampled


class LinearLayer(ABC):
    """A layer whose output at each place is a matrix, the weights, times a vector of inputs, plus a bias."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    @property
    @abstractmethod
    def output_axis(self) -> int:
        """The axis of the top with its outputs."""

    @abstractmethod
    def matrices(self, weights: AnyArray) -> AnyArray:
        """The weights (G, O, D): for each of G groups of channels those of O outputs for D inputs, as float64."""

    @abstractmethod
    def as_stored(self, matrices: AnyArray) -> Array:
        """The weights in their shape, from (G, O, D)."""

    @abstractmethod
    def rows(self, bottom: Array, rng: np.random.Generator) -> AnyArray:
        """The inputs (G, N, D) of N sampled outputs, at most PLACES of each image. bottom: a batch of its input."""


class _Filters(LinearLayer):
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        depthwise = bool(getattr(LAYERS.get(layer.type), "depthwise", False))
        shapes = [blob.shape for blob in layer.bottoms]
        self._settings = FilterSettings.of(layer.message.convolution_param, shapes, depthwise=depthwise)

    @property
    def output_axis(self) -> int:
        return self._settings.axis

    def matrices(self, weights: AnyArray) -> AnyArray:
        group = self._settings.geometry.group
        return weights.astype(np.float64).reshape(group, weights.shape[0] // group, -1)

    def as_stored(self, matrices: AnyArray) -> Array:
        return matrices.astype(np.float32).reshape(self.layer.params[0].shape)

    def rows(self, bottom: Array, rng: np.random.Generator) -> AnyArray:
        settings, geometry = self._settings, self._settings.geometry
        spatial = bottom.shape[settings.axis + 1 :]
        images = bottom.reshape(-1, settings.channels, *spatial)
        before = [p + b for p, b in zip(geometry.pad, settings.before, strict=True)]
        after = [p + a for p, a in zip(geometry.pad, settings.after, strict=True)]
        padded = np.pad(images, [(0, 0), (0, 0), *zip(before, after, strict=True)])
        reach = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, settings.kernel, strict=True)]
        extents = [(p - r) // s + 1 for p, r, s in zip(padded.shape[2:], reach, geometry.stride, strict=True)]
        outputs = math.prod(extents)
        count = min(PLACES, outputs)
        # Other places for each image.
        chosen = rng.random((len(images), outputs), np.float32).argpartition(count - 1, axis=1)[:, :count]
        places = np.unravel_index(chosen, extents) if extents else ()
        number = np.arange(len(images))[:, None]
        taps = []
        for offset in itertools.product(*map(range, settings.kernel)):
            index = [
                place * s + o * d
                for place, s, o, d in zip(places, geometry.stride, offset, geometry.dilation, strict=True)
            ]
            place_of_each = (number, *index)
            taps.append(padded.transpose(0, *range(2, padded.ndim), 1)[place_of_each])  # (images, count, C)
        found = np.stack(taps, -1).reshape(len(images) * count, geometry.group, -1)
        return np.ascontiguousarray(found.transpose(1, 0, 2))


class _InnerProduct(LinearLayer):
    @property
    def _transpose(self) -> bool:
        return bool(self.layer.message.inner_product_param.transpose)

    @property
    def output_axis(self) -> int:
        return canonical_axis(self.layer.message.inner_product_param.axis, self.layer.bottoms[0].shape)

    def matrices(self, weights: AnyArray) -> AnyArray:
        rows = weights.T if self._transpose else weights
        return rows.astype(np.float64)[None]

    def as_stored(self, matrices: AnyArray) -> Array:
        rows = matrices[0].T if self._transpose else matrices[0]
        return np.ascontiguousarray(rows, np.float32)

    def rows(self, bottom: Array, rng: np.random.Generator) -> AnyArray:
        axis = canonical_axis(self.layer.message.inner_product_param.axis, bottom.shape)
        return bottom.reshape(math.prod(bottom.shape[:axis]), -1)[None]


def linear_layer(layer: Layer) -> LinearLayer | None:
    """The layer as a matrix product; None if it is none."""
    layer_type = LAYERS.get(layer.type)
    if isinstance(layer_type, Convolution):
        return _Filters(layer)
    return _InnerProduct(layer) if isinstance(layer_type, InnerProduct) else None
