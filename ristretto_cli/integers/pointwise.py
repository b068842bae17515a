"""Functions of the elements of a place and of constants of its channels, such as BatchNorm and PReLU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.integers.program import Function
from ristretto_cli.integers.values import Constant, Integers, Pointwise, Value
from ristretto_cli.ops import AnyArray, Ops, Shape, V

Operation: TypeAlias = Callable[..., Any]  # of a backend and its values


def is_per_channel(shape: Shape, whole: Shape) -> bool:
    """Whether an operand of this shape has one number for all elements, or one for each channel, axis 1."""
    if len(shape) > len(whole):
        return False
    full = (*(1,) * (len(whole) - len(shape)), *shape)
    return all(n == 1 or axis == 1 for axis, n in enumerate(full))


def operation(name: str) -> Operation:
    """The operation of this name, on any backend."""
    return lambda ops, *operands: getattr(ops, name)(*operands)


def function_of(value: Value) -> Function:
    """The function of one place that a value is; a Constant is one that ignores its argument."""
    if isinstance(value, Constant):
        array = value.array
        return lambda ops, x: ops.constant(array)
    if isinstance(value, Pointwise):
        return value.function
    return lambda ops, x: x


def of_rank(value: Pointwise, shape: Shape) -> Function:
    """The function of a Pointwise for values with the number of axes of another shape."""
    inner, before = value.function, len(value.shape)

    def function(ops: Ops[V], x: V) -> V:
        # The axes after the channels as one, and as many of extent 1 as there were.
        spatial = (math.prod(x.shape[2:]), *(1,) * (before - 3)) if before > 2 else ()
        found = inner(ops, ops.reshape(x, (*x.shape[:2], *spatial)))
        return ops.reshape(found, (*found.shape[:2], *x.shape[2:]))

    return function


def affine_of(name: str, operands: Sequence[Value]) -> tuple[AnyArray | None, AnyArray | None]:
    """The scale and the shift of an operation on a place and a constant; None if it is not affine."""
    nothing = None, None
    if len(operands) != 2 or name not in ("add", "sub", "mul", "div"):
        return nothing
    a, b = operands
    if isinstance(b, Constant) and isinstance(a, (Integers, Pointwise)):
        inner, constant, swapped = a, b, False
    elif isinstance(a, Constant) and isinstance(b, (Integers, Pointwise)) and name != "div":
        inner, constant, swapped = b, a, True
    else:
        return nothing
    scale: AnyArray | None = np.ones(1)
    shift: AnyArray | None = np.zeros(1)
    if isinstance(inner, Pointwise):
        scale, shift = inner.scale, inner.shift
    if scale is None or shift is None:
        return nothing
    number = constant.array.astype(np.float64).ravel()
    with np.errstate(all="ignore"):
        if name == "mul":
            scale, shift = scale * number, shift * number
        elif name == "div":
            scale, shift = scale / number, shift / number
        elif name == "add":
            shift = shift + number
        else:
            scale, shift = (-scale, number - shift) if swapped else (scale, shift - number)
    finite = np.isfinite(scale).all() and np.isfinite(shift).all()
    return (scale, shift) if finite else nothing
