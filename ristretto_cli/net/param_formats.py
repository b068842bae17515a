"""Quantization of parameters: their number formats, from a layer's quantization_param, and their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.weights import release_pages
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array

_CHUNK = 2**16  # elements that are quantized at a time


@dataclass(frozen=True)
class ParamFormat:
    """The format of one parameter of a layer, and its rounding."""

    number_format: NumberFormat
    rounding: Rounding


def param_formats(layer: Layer, in_training: Rounding = Rounding.STOCHASTIC) -> tuple[ParamFormat | None, ...]:
    """The format of each parameter of a layer; None for those that are not quantized.

    in_training: the rounding in phase TRAIN, which overrides the layer's rounding_scheme.
    """
    if not layer.params or not LAYERS.get(layer.type).quantized:  # data layers are not among LAYERS
        return (None,) * len(layer.params)
    formats = LAYERS.get(layer.type).formats(layer.message)
    rounding = formats.rounding if layer.phase == TEST else in_training
    weights = formats.weights
    if weights is not None:
        weights = weights.with_filters_on(LAYERS.get(layer.type).filter_axis(layer.message))
    number_formats = [weights if i == 0 else formats.bias for i in range(len(layer.params))]
    return tuple(None if each is None else ParamFormat(each, rounding) for each in number_formats)


def shared_formats(net: Net, in_training: Rounding = Rounding.STOCHASTIC) -> dict[str, ParamFormat | None]:
    """The format of each parameter, by Param.key; None if it has none, or if layers that share it have several."""
    formats: dict[str, list[ParamFormat | None]] = {}
    for layer in net.layers:
        for param, param_format in zip(layer.params, param_formats(layer, in_training), strict=True):
            formats.setdefault(param.key, []).append(param_format)
    return {
        key: None if any(other != first for other in others) else first for key, (first, *others) in formats.items()
    }


class ParamQuantizer:
    """Quantizes parameters of a net.

    Stochastic rounding draws one seed from rng. The random numbers of a parameter depend only on that seed and on the
    parameter's key, not on the order of the layers or on other random parts of the net. So all layers that share a
    parameter round it alike, and the same net with the same state of rng gets the same values.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._seed: int | None = None

    def quantize(self, key: str, array: Array, param_format: ParamFormat) -> Array:
        """The array of the parameter with this Param.key, quantized."""
        if not param_format.number_format.elementwise:
            return param_format.number_format.quantize(numpy_ops(self._rng), array, param_format.rounding)
        # Chunks that fit the CPU's cache give the same result and need less memory.
        ops = numpy_ops(self._random_numbers(key) if param_format.rounding is Rounding.STOCHASTIC else self._rng)
        number_format = param_format.number_format.fitted(array)
        flat, quantized = array.reshape(-1), np.empty(array.size, np.float32)
        for start in range(0, array.size, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            quantized[chunk] = number_format.quantize(ops, flat[chunk], param_format.rounding)
        if array.size > _CHUNK:
            release_pages(array)
        return quantized.reshape(array.shape)

    def _random_numbers(self, key: str) -> np.random.Generator:
        if self._seed is None:
            self._seed = int(self._rng.integers(2**63))
        return np.random.default_rng([self._seed, *key.encode(errors="surrogatepass")])


def params_in_use(net: Net, *, rng: np.random.Generator) -> Iterator[tuple[Layer, int, Array]]:
    """Each parameter of each layer, as used in a forward pass: the layer, the index, the array.

    A parameter shared by several layers occurs once for each of them, quantized as in that layer. rng: for
    stochastic rounding.
    """
    quantizer = ParamQuantizer(rng)
    for layer in net.layers:
        for i, (param, param_format) in enumerate(zip(layer.params, param_formats(layer), strict=True)):
            array = net.weights[param.key].reshape(param.shape)
            yield layer, i, array if param_format is None else quantizer.quantize(param.key, array, param_format)
