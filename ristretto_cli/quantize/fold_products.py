"""Folding of a scale and a shift per channel into the weights and biases of a convolution or an inner product."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.layers.convolution import Convolution
from ristretto_cli.layers.deconvolution import Deconvolution
from ristretto_cli.layers.filter_settings import FilterSettings
from ristretto_cli.layers.inner_product import InnerProduct
from ristretto_cli.layers.layer_type import LAYERS, ChannelAffine
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import AnyArray


class Product(ABC):
    """A layer that multiplies its bottom with weights and adds a bias, with its arrays in float64.

    arrays: the weights and, if it has one, the bias. settings: the LayerParameter's message that has bias_term.
    """

    settings: str

    def __init__(self, layer: Layer, arrays: Sequence[AnyArray]) -> None:
        self.layer = layer
        self.weight = arrays[0]
        self.bias = arrays[1] if len(arrays) > 1 else None

    @property
    def arrays(self) -> list[AnyArray]:
        """The weights and the bias, if there is one."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def fold_top(self, affine: ChannelAffine) -> Product:
        """The product whose top is the given function of this one's top. LayerError if there is none."""
        axis, outputs = self._outputs()
        scale, shift = _spread(affine, axis, outputs, f'the outputs of "{self.layer.name}"')
        bias = shift if self.bias is None else self.bias * scale + shift
        return self._with(self._scaled_outputs(scale), bias)

    def fold_bottom(self, affine: ChannelAffine) -> Product:
        """The product that gives for x what this one gives for the given function of x. LayerError if there is none."""
        axis, inputs = self._inputs(affine.axis)
        scale, shift = _spread(affine, axis, inputs, f'the inputs of "{self.layer.name}"')
        moved = self._moved_by(shift, axis) if shift.any() else 0.0
        bias = moved if self.bias is None else self.bias + moved
        return self._with(self._scaled_inputs(scale, axis), np.broadcast_to(bias, self._outputs()[1]))

    def _with(self, weight: AnyArray, bias: AnyArray) -> Product:
        keeps_none = self.bias is None and not np.any(bias)
        return type(self)(self.layer, [weight] if keeps_none else [weight, bias])

    @abstractmethod
    def _outputs(self) -> tuple[int, int]:
        """The axis of the outputs in the top, and their number."""

    @abstractmethod
    def _inputs(self, axis: int | None) -> tuple[int, int]:
        """The axis of the inputs in the bottom, where it may be `axis`, and its extent."""

    @abstractmethod
    def _scaled_outputs(self, scale: AnyArray) -> AnyArray:
        """The weights, those of each output times its scale."""

    @abstractmethod
    def _scaled_inputs(self, scale: AnyArray, axis: int) -> AnyArray:
        """The weights, those of each channel of the bottom, on this axis, times its scale."""

    @abstractmethod
    def _moved_by(self, shift: AnyArray, axis: int) -> AnyArray:
        """The change of each output if each channel of the bottom, on this axis, is shifted.

        LayerError if the places of the top differ in it.
        """


class _Filters(Product):
    settings = "convolution_param"

    @property
    def _filters(self) -> FilterSettings:
        depthwise = bool(getattr(LAYERS.get(self.layer.type), "depthwise", False))
        shapes = [blob.shape for blob in self.layer.bottoms]
        return FilterSettings.of(self.layer.message.convolution_param, shapes, depthwise=depthwise)

    def _outputs(self) -> tuple[int, int]:
        return self._filters.axis, self._filters.num_output

    def _inputs(self, axis: int | None) -> tuple[int, int]:
        return self._filters.axis, self._filters.channels

    def _by_group(self, scale: AnyArray) -> AnyArray:
        """Numbers for all channels as (group, channels of the group)."""
        return scale.reshape(self._filters.geometry.group, -1)

    def _grouped(self) -> AnyArray:
        """The weights (group, first axis, second axis, kernel)."""
        group = self._filters.geometry.group
        return self.weight.reshape(group, self.weight.shape[0] // group, self.weight.shape[1], -1)


class _Convolution(_Filters):
    def _scaled_outputs(self, scale: AnyArray) -> AnyArray:
        return (self._grouped() * self._by_group(scale)[:, :, None, None]).reshape(self.weight.shape)

    def _scaled_inputs(self, scale: AnyArray, axis: int) -> AnyArray:
        return (self._grouped() * self._by_group(scale)[:, None, :, None]).reshape(self.weight.shape)

    def _moved_by(self, shift: AnyArray, axis: int) -> AnyArray:
        filters = self._filters
        if any([*filters.geometry.pad, *filters.before, *filters.after]):
            raise LayerError(f'"{self.layer.name}" pads its bottom with zeros, which the layer would shift')
        moved: AnyArray = (self._grouped() * self._by_group(shift)[:, None, :, None]).sum((2, 3)).ravel()
        return moved


class _Deconvolution(_Filters):
    # The weights are (C, num_output / group, *kernel).
    def _scaled_outputs(self, scale: AnyArray) -> AnyArray:
        return (self._grouped() * self._by_group(scale)[:, None, :, None]).reshape(self.weight.shape)

    def _scaled_inputs(self, scale: AnyArray, axis: int) -> AnyArray:
        return (self._grouped() * self._by_group(scale)[:, :, None, None]).reshape(self.weight.shape)

    def _moved_by(self, shift: AnyArray, axis: int) -> AnyArray:
        raise LayerError(f'a shift of its bottom has different effects on the places of the top of "{self.layer.name}"')


class _InnerProduct(Product):
    settings = "inner_product_param"

    @property
    def _axis(self) -> int:
        return canonical_axis(self.layer.message.inner_product_param.axis, self.layer.bottoms[0].shape)

    @property
    def _transpose(self) -> bool:
        return bool(self.layer.message.inner_product_param.transpose)

    def _outputs(self) -> tuple[int, int]:
        return self._axis, int(self.layer.message.inner_product_param.num_output)

    def _inputs(self, axis: int | None) -> tuple[int, int]:
        shape = self.layer.bottoms[0].shape
        axis = self._axis if axis is None else axis
        if axis < self._axis:
            raise LayerError(f'its channels are not among the inputs of "{self.layer.name}"')
        return axis, shape[axis]

    def _rows(self) -> AnyArray:
        """The weights (N, K)."""
        return self.weight.T if self._transpose else self.weight

    def _as_stored(self, rows: AnyArray) -> AnyArray:
        return rows.T if self._transpose else rows

    def _per_input(self, numbers: AnyArray, axis: int) -> AnyArray:
        """One number for each of the K inputs, from one for each channel."""
        shape = self.layer.bottoms[0].shape
        after = math.prod(shape[axis + 1 :])
        before = math.prod(shape[self._axis : axis])
        return np.tile(np.repeat(numbers, after), before)

    def _scaled_outputs(self, scale: AnyArray) -> AnyArray:
        return self._as_stored(self._rows() * scale[:, None])

    def _scaled_inputs(self, scale: AnyArray, axis: int) -> AnyArray:
        return self._as_stored(self._rows() * self._per_input(scale, axis))

    def _moved_by(self, shift: AnyArray, axis: int) -> AnyArray:
        moved: AnyArray = self._rows() @ self._per_input(shift, axis)
        return moved


def product_of(layer: Layer, arrays: Sequence[AnyArray]) -> Product | None:
    """The product that a layer computes; None if its type is not a product."""
    layer_type = LAYERS.get(layer.type)
    for known, product in ((Convolution, _Convolution), (Deconvolution, _Deconvolution), (InnerProduct, _InnerProduct)):
        if isinstance(layer_type, known):
            return product(layer, arrays)
    return None


def _spread(affine: ChannelAffine, axis: int, count: int, what: str) -> tuple[AnyArray, AnyArray]:
    """The scale and the shift of each of `count` channels on an axis. LayerError if they are for another axis."""
    if affine.axis not in (None, axis):
        raise LayerError(f"its channels are not {what}: they are on axis {affine.axis}, not {axis}")
    return np.broadcast_to(affine.scale, count), np.broadcast_to(affine.shift, count)
