"""convolution_param, checked against a bottom: shared by Convolution and Deconvolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.axes import canonical_axis
from ristretto_cli.net.ir import ParamDef
from ristretto_cli.ops import ConvGeometry, Ops, Shape, V, show


@dataclass(frozen=True)
class FilterSettings:
    """A ConvolutionParameter for bottoms of one shape. kernel: one entry per spatial axis.

    before, after: padding in addition to geometry.pad, on one side of each axis only.

    axis: the channel axis; the axes before it are the batch, those after it are spatial.
    """

    axis: int
    channels: int
    num_output: int
    bias_term: bool
    kernel: Shape
    geometry: ConvGeometry
    before: Shape
    after: Shape

    @classmethod
    def of(cls, param: Message, bottoms: Sequence[Shape], *, depthwise: bool = False) -> FilterSettings:
        """depthwise: num_output and group default to the number of channels."""
        shape = bottoms[0]
        if any(other != shape for other in bottoms):
            raise LayerError(f"its bottoms have different shapes: {', '.join(map(show, bottoms))}")
        axis = canonical_axis(param.axis, shape)
        channels, axes = shape[axis], len(shape) - axis - 1
        num_output, group = param.num_output, param.group
        if depthwise:
            num_output = num_output if param.HasField("num_output") else channels
            group = group if param.HasField("group") else channels
        if num_output < 1:
            raise LayerError("num_output is missing", hint="Set the number of outputs, 1 or more.")
        if group < 1 or channels % group or num_output % group:
            raise LayerError(f"group {group} does not divide both {channels} channels and num_output {num_output}")
        if not param.kernel_size and not param.HasField("kernel_h") and not param.HasField("kernel_w"):
            raise LayerError("kernel_size is missing")
        pad, before, after = _padding(param, axes)
        return cls(
            axis=axis,
            channels=channels,
            num_output=num_output,
            bias_term=param.bias_term,
            kernel=_per_axis(param, "kernel_size", "kernel", axes, default=0, minimum=1),
            geometry=ConvGeometry(
                stride=_per_axis(param, "stride", "stride", axes, default=1, minimum=1),
                pad=pad,
                dilation=_per_axis(param, "dilation", "", axes, default=1, minimum=1),
                group=group,
            ),
            before=before,
            after=after,
        )

    def params(self, param: Message, *, deconvolution: bool) -> tuple[ParamDef, ...]:
        """The weights, and the bias if there is one."""
        outputs, inputs = self.num_output, self.channels
        if deconvolution:
            self.reject_one_sided()
            outputs, inputs = inputs, outputs
        weights = ParamDef((outputs, inputs // self.geometry.group, *self.kernel), param.weight_filler)
        return (weights, ParamDef((self.num_output,), param.bias_filler)) if self.bias_term else (weights,)

    def reject_one_sided(self) -> None:
        """LayerError if the padding of two sides differs, for callers that do not support it."""
        if any([*self.before, *self.after]):
            raise LayerError("pad_l and pad_r, pad_t and pad_b must be the same here", hint="Use pad instead.")

    def apply(self, ops: Ops[V], primitive: Callable[..., V], x: V, params: Sequence[V]) -> V:
        """ops.conv or ops.deconv on a bottom of any number of batch and spatial axes."""
        batch, spatial = x.shape[: self.axis], x.shape[self.axis + 1 :]
        weight = params[0]
        # Without spatial axes each blob is one point; the primitives need at least one axis.
        point, geometry = () if spatial else (1,), self.geometry
        if len(batch) != 1 or point:
            x = ops.reshape(x, (math.prod(batch), self.channels, *spatial, *point))
        if any([*self.before, *self.after]):
            x = ops.pad(x, [0, 0, *self.before], [0, 0, *self.after])
        if point:
            weight, geometry = ops.reshape(weight, (*weight.shape, 1)), ConvGeometry.dense(1, group=geometry.group)
        top = primitive(x, weight, params[1] if self.bias_term else None, geometry)
        if len(batch) != 1 or point:
            top = ops.reshape(top, (*batch, *top.shape[1 : 2 + len(spatial)]))
        return top


def _padding(param: Message, axes: int) -> tuple[Shape, Shape, Shape]:
    """The padding common to both sides of each axis, and the extra padding before and after."""
    given = one_sided(param)
    if given is None:
        return _per_axis(param, "pad", "pad", axes, default=0, minimum=0), (0,) * axes, (0,) * axes
    if param.pad or param.HasField("pad_h") or param.HasField("pad_w") or axes != 2:
        raise LayerError(
            "pad_l, pad_r, pad_t and pad_b exclude other pad settings and need 2 spatial axes",
            hint="Use only one of them.",
        )
    before, after = given
    both = tuple(min(pair) for pair in zip(before, after, strict=True))
    before, after = (tuple(n - p for n, p in zip(side, both, strict=True)) for side in (before, after))
    return both, before, after


def one_sided(param: Message) -> tuple[Shape, Shape] | None:
    """The padding above and left of an image, and below and right of it; None if not given per side."""
    if not any(param.HasField(side) for side in ("pad_t", "pad_l", "pad_b", "pad_r")):
        return None
    return (param.pad_t, param.pad_l), (param.pad_b, param.pad_r)


def _per_axis(param: Message, field: str, stem: str, axes: int, *, default: int, minimum: int) -> Shape:
    """A setting that is given once, once per spatial axis, or (with a stem) as stem_h and stem_w."""
    given: list[int] = list(getattr(param, field))
    if stem and (param.HasField(f"{stem}_h") or param.HasField(f"{stem}_w")):
        if given:
            raise LayerError(f"{field} cannot be combined with {stem}_h or {stem}_w", hint="Use only one of them.")
        if axes != 2:
            raise LayerError(f"{stem}_h and {stem}_w need 2 spatial axes; the bottom has {axes}")
        given = [getattr(param, f"{stem}_h"), getattr(param, f"{stem}_w")]
    if len(given) not in (0, 1, axes):
        raise LayerError(
            f"{field} is given {len(given)} times, but the bottom has {axes} spatial axes",
            hint="Set it once, or once per spatial axis.",
        )
    values = tuple(given) if len(given) == axes and axes else (given[0] if given else default,) * axes
    if any(value < minimum for value in values):
        raise LayerError(f"{field} must be at least {minimum}, not {', '.join(map(str, values))}")
    return values
