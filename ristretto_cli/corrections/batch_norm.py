"""BatchNorm as a correction: it takes the biases of the layer in front, and matches the float net's statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ristretto_cli.corrections.linear_layers import linear_layer
from ristretto_cli.layers.batch_norm import BatchNorm, stored_statistics, uses_stored
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import AnyArray, Array


@dataclass
class ChannelStatistics:
    """The mean and the variance of each channel over all batches. channels are axis 1."""

    count: int = 0
    total: AnyArray | float = 0.0
    squares: AnyArray | float = 0.0

    def add(self, values: Array) -> None:
        """Add a batch (N, C, ...)."""
        flat = values.reshape(*values.shape[:2], -1).astype(np.float64)
        self.count += flat.shape[0] * flat.shape[2]
        self.total = self.total + flat.sum((0, 2))
        self.squares = self.squares + np.einsum("nci,nci->c", flat, flat)

    @property
    def mean(self) -> AnyArray:
        """(C,)"""
        return np.asarray(self.total) / self.count

    @property
    def variance(self) -> AnyArray:
        """(C,)"""
        return np.maximum(np.asarray(self.squares) / self.count - np.square(self.mean), 0.0)


def is_batch_norm(layer: Layer) -> bool:
    """Whether a layer is a BatchNorm that uses its stored statistics."""
    return not layer.is_source and isinstance(LAYERS.get(layer.type), BatchNorm) and uses_stored(layer)


def normalizes(net: Net, index: int) -> int | None:
    """The position of the BatchNorm that alone reads the only top of product `index`; None if there is none.

    There is none either if the outputs of the product are not on axis 1, the channels of a BatchNorm.
    """
    layer = net.layers[index]
    linear = linear_layer(layer)
    if len(layer.tops) != 1 or linear is None or linear.output_axis != 1:
        return None
    (top,), found = layer.tops, None
    for i, reader in enumerate(net.layers[index + 1 :], index + 1):
        if any(blob.storage == top.storage for blob in reader.bottoms):
            if found is not None or not is_batch_norm(reader):
                return None
            found = i
            if reader.tops[0].storage == top.storage:
                return found  # in place: later readers see the normalized values
    if found is None or any(blob.storage == top.storage for blob in net.outputs):
        return None
    return found


def as_params(mean: AnyArray, variance: AnyArray) -> list[Array]:
    """The parameters of a BatchNorm with this mean and variance."""
    return [mean.astype(np.float32), variance.astype(np.float32), np.ones(1, np.float32)]


def matched(
    params: Sequence[Array], eps: float, float_bottom: ChannelStatistics, bottom: ChannelStatistics
) -> list[Array]:
    """The parameters that give each channel of the top the float net's mean and deviation.

    params: the float net's. float_bottom, bottom: of the float and of the quantized net.
    """
    mean, variance = stored_statistics(params)
    wanted_scale = 1 / np.sqrt(np.maximum(variance + eps, 1e-30))
    wanted_mean = (float_bottom.mean - mean) * wanted_scale
    wanted_deviation = np.sqrt(float_bottom.variance) * wanted_scale
    found = np.sqrt(bottom.variance)
    live = (found > 0) & (wanted_deviation > 0)
    scale = np.where(live, wanted_deviation / np.where(live, found, 1.0), wanted_scale)
    # sqrt(variance + eps) of a stored variance has eps as its least value.
    scale = np.minimum(scale, 1 / np.sqrt(eps)) if eps > 0 else scale
    return as_params(bottom.mean - wanted_mean / scale, np.maximum(1 / np.square(scale) - eps, 0.0))


def absorb_biases(net: Net) -> dict[str, Array]:
    """Parameters, by Param.key, with which biases in front of a BatchNorm are 0, and its mean takes them.

    Biases stay if they, or the parameters of the BatchNorm, are shared.
    """
    changed: dict[str, Array] = {}
    uses = Counter(param.key for layer in net.layers for param in layer.params)
    for i, layer in enumerate(net.layers):
        if layer.is_source or linear_layer(layer) is None or len(layer.params) < 2:
            continue
        found = normalizes(net, i)
        if found is None:
            continue
        reader, bias = net.layers[found], layer.params[1]
        if uses[bias.key] > 1 or any(uses[param.key] > 1 for param in reader.params):
            continue
        mean, variance = stored_statistics([net.weights[param.key] for param in reader.params])
        values = net.weights[bias.key].astype(np.float64).ravel()
        if values.shape != mean.shape or not values.any():
            continue
        changed[bias.key] = np.zeros(bias.shape, np.float32)
        new = as_params(mean - values, variance)
        changed.update((param.key, array.reshape(param.shape)) for param, array in zip(reader.params, new, strict=True))
    return changed
