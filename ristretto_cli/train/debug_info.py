"""debug_info: the magnitudes of values and gradients, layer by layer, in the format of Caffe's log.

Each number is a mean of absolute values. A blob that several layers read has one gradient, the sum of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ristretto_cli.net.forward import Run, computed_tops
from ristretto_cli.net.ir import Layer, Net, in_graph
from ristretto_cli.scoring.scores import number

Tensor: TypeAlias = Any  # torch may be missing where types are checked


def keep_gradients(run: Run[Any]) -> None:
    """Make torch keep the gradients of the layers' bottoms, for backward_lines."""
    for values in run.inputs:
        for value in values:
            if value.requires_grad and not value.is_leaf:
                value.retain_grad()


def forward_lines(net: Net, run: Run[Any], params: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each layer's tops and parameters, in the order of the pass. params: by Param.key."""
    for layer, tops in zip(net.layers, run.outputs, strict=True):
        for blob, value in zip(computed_tops(layer, tops), tops, strict=True):
            yield f"    [Forward] Layer {layer.name}, top blob {blob.name} data: {_magnitude(value)}"
        for i, param in enumerate(layer.params):
            size = _magnitude(params[param.key])
            yield f"    [Forward] Layer {layer.name}, param blob {_name(layer, i)} data: {size}"


def backward_lines(net: Net, run: Run[Any], params: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each layer's bottoms and parameters that have a gradient, last layer first, and a
    final line for all parameters."""
    for layer, bottoms in reversed(list(zip(net.layers, run.inputs, strict=True))):
        for blob, value in zip(in_graph(layer.bottoms), bottoms, strict=True):
            if value.requires_grad and value.grad is not None:
                yield f"    [Backward] Layer {layer.name}, bottom blob {blob.name} diff: {_magnitude(value.grad)}"
        for i, param in enumerate(layer.params):
            if params[param.key].grad is not None:
                yield f"    [Backward] Layer {layer.name}, param blob {i} diff: {_magnitude(params[param.key].grad)}"
    data = [value.detach() for value in params.values()]
    diffs = [value.grad for value in params.values() if value.grad is not None]
    yield (
        f"    [Backward] All net params (data, diff): L1 norm = ({_norm(data, 1)}, {_norm(diffs, 1)}); "
        f"L2 norm = ({_norm(data, 2)}, {_norm(diffs, 2)})"
    )


def _magnitude(value: Tensor) -> str:
    return number(float(value.detach().abs().mean()))


def _norm(values: list[Tensor], order: int) -> str:
    total = sum(float(value.abs().pow(order).sum()) for value in values)
    return number(math.sqrt(total) if order == 2 else total)


def _name(layer: Layer, index: int) -> str:
    """The label of a parameter in Caffe's log: the name that it is shared by, or else its number."""
    specs = layer.message.param
    return str(specs[index].name) if index < len(specs) and specs[index].name else str(index)
