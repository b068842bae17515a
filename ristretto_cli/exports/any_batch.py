"""ONNX models for any number of images, from models for two numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import numpy_helper

from ristretto_cli.backends.onnx_model import ModelProto
from ristretto_cli.errors import RistrettoError

_BATCHES = 1009, 1013  # no other extents of a net


def with_any_batch(make: Callable[[int], ModelProto], file: str) -> ModelProto:
    """The model that `make` gives for any number of images; they may differ only in extents of this number.

    RistrettoError for nodes that depend on it in another way.
    """
    one, other = (make(batch) for batch in _BATCHES)
    shapes = {node.input[1]: node for node in one.graph.node if node.op_type == "Reshape"}
    same = len(one.graph.node) == len(other.graph.node) and all(
        a == b for a, b in zip(one.graph.node, other.graph.node, strict=False)
    )
    if not same or len(one.graph.initializer) != len(other.graph.initializer):
        raise _depends("the net", file)
    for a, b in zip(one.graph.initializer, other.graph.initializer, strict=True):
        if a == b:
            continue
        readers = [node for node in one.graph.node if a.name in node.input]
        if a.name not in shapes or any(node.op_type != "Reshape" for node in readers):
            raise _depends(f'the node "{readers[0].name}"' if readers else "the net", file)
        extents = numpy_helper.to_array(a)
        free = extents != numpy_helper.to_array(b)
        if free.sum() != 1 or (extents == 0).any():
            raise _depends(f'the node "{shapes[a.name].name}"', file)
        a.CopyFrom(numpy_helper.from_array(np.where(free, -1, extents), a.name))
    for values, others in ((one.graph.input, other.graph.input), (one.graph.output, other.graph.output)):
        for value, differing in zip(values, others, strict=True):
            _free_extents(value, differing)
    return one


def _free_extents(value: Any, other: Any) -> None:
    """Declare the extents that differ as variable: N for the number of images, unknown for others."""
    for a, b in zip(value.type.tensor_type.shape.dim, other.type.tensor_type.shape.dim, strict=True):
        if (a.dim_value, b.dim_value) == _BATCHES:
            a.dim_param = "N"
        elif a.dim_value != b.dim_value:
            a.ClearField("dim_value")


def _depends(what: str, file: str) -> RistrettoError:
    return RistrettoError(f"{what} depends on the number of images", where=file, hint="Use --batch=N for one number.")
