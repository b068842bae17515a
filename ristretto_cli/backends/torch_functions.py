"""Functions whose gradients differ from torch's, as in Caffe, or are computed with less work than by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = Any  # torch may be missing where types are checked
_Function: Any = torch.autograd.Function


def learns(*tensors: Tensor) -> bool:
    """Whether a value needs a gradient."""
    return bool(torch.is_grad_enabled()) and any(tensor.requires_grad for tensor in tensors)


class Passing(_Function):  # type: ignore[misc]
    """The second argument, with the gradient of the first; within: only from its lower to its upper end, everywhere if
    None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, trimmed: Tensor, within: tuple[float, float] | None) -> Tensor:
        ctx.within = within
        ctx.save_for_backward(*(() if within is None else (x,)))
        return trimmed.view_as(trimmed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.within is not None:
            (x,) = ctx.saved_tensors
            low, high = ctx.within
            gradient = gradient * ((x >= low) & (x <= high))
        return gradient, None, None


class MappedGradient(_Function):  # type: ignore[misc]
    """The first argument; its gradient is the second argument, a function, of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.function = function
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.function(gradient), None


class Larger(_Function):  # type: ignore[misc]
    """max(a, b), whose gradient goes to one of them: of equals, to a."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(a >= b)
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (first,) = ctx.saved_tensors
        to_a = gradient * first
        return to_a.sum_to_size(ctx.shapes[0]), (gradient - to_a).sum_to_size(ctx.shapes[1])


class Root(_Function):  # type: ignore[misc]
    """sqrt(x), whose gradient is 0 where x is 0, instead of infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = torch.sqrt(x)
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return torch.where(root == 0, torch.zeros_like(root), gradient / (2 * root))


class AcrossChannels(_Function):  # type: ignore[misc]
    """Local response normalization: x * scale^-beta, scale = k + alpha / size * sum of squares over size channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        scale = _over_channels(x * x, size).mul_(alpha / size).add_(k)
        factor = scale.pow(-beta)
        ctx.settings = size, 2 * alpha * beta / size
        ctx.save_for_backward(x, scale, factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, scale, factor = ctx.saved_tensors
        size, share = ctx.settings
        direct = gradient * factor
        ratios = _over_channels((direct * x).div_(scale), size)
        return direct.sub_(ratios.mul_(x), alpha=share), None, None, None, None


@dataclass(frozen=True)
class Batch:
    """The source of a standardized batch: x (N, C, ...), mean and 1 / sqrt(variance + eps) of each channel, (C,)."""

    x: Tensor
    mean: Tensor
    factor: Tensor
    eps: float


class ScaledBatch(_Function):  # type: ignore[misc]
    """standardized * scale + shift for each channel. Gradients go directly to the source of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, standardized: Tensor, batch: Batch) -> Tensor:
        ctx.eps = batch.eps
        ctx.save_for_backward(x, scale, batch.mean, batch.factor)
        return torch.mul(standardized, scale).add_(shift)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, scale, mean, factor = ctx.saved_tensors
        to_x, to_scale, to_shift = torch.ops.aten.native_batch_norm_backward(
            gradient, x, scale.reshape(-1), None, None, mean, factor, True, ctx.eps, [True, True, True]
        )
        return to_x, to_scale.reshape(scale.shape), to_shift.reshape(scale.shape), None, None


class Derived(_Function):  # type: ignore[misc]
    """A value, (), with its gradients with respect to other values, which are given; None where there is none."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *others: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(None if each is None else gradient * each for each in ctx.gradients))


def _over_channels(x: Tensor, size: int) -> Tensor:
    """For each channel the sum over `size` channels around it. x (N, C, ...)."""
    total = x.clone()
    for distance in range(1, min(size // 2, x.shape[1] - 1) + 1):
        total[:, distance:] += x[:, :-distance]
        total[:, :-distance] += x[:, distance:]
    return total
