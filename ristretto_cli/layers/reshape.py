"""Reshape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, Shape, V, show

_MAX_AXES = 32  # of a blob in Caffe


@layer_type("Reshape")
class Reshape(LayerType):
    """The bottom, in the same memory, reshaped: `num_axes` axes from `axis` on are replaced by those of `shape`.

    num_axes -1 means all to the end; a negative axis counts from the end. A dim of 0 keeps the
    bottom's extent there, -1 (once) is inferred.
    """

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        (x,) = bottoms
        return [ops.reshape(x, _target(x.shape, layer.message.reshape_param))]


def _target(shape: Shape, param: Message) -> Shape:
    start, stop = _replaced(shape, param)
    dims = list(param.shape.dim)
    if len(shape) - (stop - start) + len(dims) > _MAX_AXES:
        raise LayerError(f"the top would have more than {_MAX_AXES} axes", hint="Use fewer dims.")
    if dims.count(-1) > 1 or any(dim < -1 for dim in dims):
        raise LayerError(
            f"the dims {', '.join(map(str, dims))} are not a shape",
            hint="Use positive extents, 0 to keep the bottom's, and -1 at most once.",
        )
    for place, dim in enumerate(dims, start):
        if dim == 0:
            if place >= len(shape):
                raise LayerError(
                    f"dim 0 keeps the bottom's extent on axis {place}, but its shape is {show(shape)}",
                    hint="Use the extent itself, or -1.",
                )
            dims[place - start] = shape[place]
    if -1 in dims:
        rest = prod(shape[:start]) * prod(dim for dim in dims if dim != -1) * prod(shape[stop:])
        if rest == 0 or prod(shape) % rest != 0:
            raise LayerError(
                f"no extent for dim -1 fits: {prod(shape)} values (shape {show(shape)}) do not divide by {rest}",
                hint="Use other dims.",
            )
        dims[dims.index(-1)] = prod(shape) // rest
    target = (*shape[:start], *dims, *shape[stop:])
    if prod(target) != prod(shape):
        raise LayerError(
            f"{prod(shape)} values (shape {show(shape)}) do not fill the shape {show(target)}",
            hint="Use dims with the same product, or -1 for one of them.",
        )
    return target


def _replaced(shape: Shape, param: Message) -> tuple[int, int]:
    """The first axis to replace, and the one after the last."""
    axes = len(shape)
    start = param.axis if param.axis >= 0 else param.axis + axes + 1
    if not 0 <= start <= axes:
        raise LayerError(
            f"axis {param.axis} is out of range for a bottom of shape {show(shape)}",
            hint=f"Use a number from {-axes - 1} to {axes}.",
        )
    if param.num_axes < -1:
        raise LayerError(f"num_axes is {param.num_axes}", hint="Use 0 or more, or -1 for all axes to the end.")
    stop = axes if param.num_axes == -1 else start + param.num_axes
    if stop > axes:
        raise LayerError(
            f"{param.num_axes} axes from axis {start} on extend past the end of the bottom's shape {show(shape)}",
            hint=f"Set num_axes to at most {axes - start}, or to -1 for all axes to the end.",
        )
    return start, stop
