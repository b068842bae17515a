"""Quantization of parameters: their number formats from a layer's quantization_param, and their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.weights import let_go
from ristretto_cli.formats.number_format import NumberFormat, Rounding, trims_of
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array

_PART = 2**16  # elements that are quantized at a time


@dataclass(frozen=True)
class ParamTrim:
    """The format of one parameter of a layer, and its rounding."""

    number_format: NumberFormat
    rounding: Rounding


def param_trims(layer: Layer, in_training: Rounding = Rounding.STOCHASTIC) -> tuple[ParamTrim | None, ...]:
    """How a layer quantizes each of its parameters, None for those used unchanged.

    in_training: the rounding in phase TRAIN, which overrides the layer's rounding_scheme.
    """
    if not layer.params or not LAYERS.get(layer.type).trims:  # data layers are not among LAYERS
        return (None,) * len(layer.params)
    trims = trims_of(layer.message.quantization_param)
    rounding = trims.rounding if layer.phase == TEST else in_training
    formats = [trims.weights if i == 0 else trims.bias for i in range(len(layer.params))]
    return tuple(None if each is None else ParamTrim(each, rounding) for each in formats)


class ParamTrimmer:
    """Quantizes the parameters of a net.

    Stochastic rounding draws one seed from rng. The random numbers of a parameter depend only on that seed and on the
    parameter's key: not on the order of the layers, nor on other random parts of the net. So all layers that
    share a parameter round it alike, and the same net with the same state of rng gets the same values.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._seed: int | None = None

    def trim(self, key: str, array: Array, trim: ParamTrim) -> Array:
        """The array of the parameter with this Param.key, quantized."""
        # Formats are element-wise: parts that fit a cache give the same result and save memory.
        ops = numpy_ops(self._random_numbers(key) if trim.rounding is Rounding.STOCHASTIC else self._rng)
        flat, trimmed = array.reshape(-1), np.empty(array.size, np.float32)
        for start in range(0, array.size, _PART):
            part = slice(start, start + _PART)
            trimmed[part] = trim.number_format.trim(ops, flat[part], trim.rounding)
        if array.size > _PART:
            let_go(array)
        return trimmed.reshape(array.shape)

    def _random_numbers(self, key: str) -> np.random.Generator:
        if self._seed is None:
            self._seed = int(self._rng.integers(2**63))
        return np.random.default_rng([self._seed, *key.encode(errors="surrogatepass")])


def params_in_use(net: Net, *, rng: np.random.Generator) -> Iterator[tuple[Layer, int, Array]]:
    """Each parameter of each layer, as used in a forward pass: the layer, the index, the array.

    A parameter shared by several layers occurs once for each of them, quantized as in that layer. rng: for
    stochastic rounding.
    """
    trimmer = ParamTrimmer(rng)
    for layer in net.layers:
        for i, (param, trim) in enumerate(zip(layer.params, param_trims(layer), strict=True)):
            array = net.weights[param.key].reshape(param.shape)
            yield layer, i, array if trim is None else trimmer.trim(param.key, array, trim)
