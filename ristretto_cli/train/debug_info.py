"""debug_info: how large values and gradients are, layer by layer, in the lines that Caffe logs for it.

Each number is a mean of absolute values. A blob that several layers read has one gradient here, the sum of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Layer, Net, in_graph
from ristretto_cli.scoring.scores import number

Tensor: TypeAlias = Any  # torch may be missing where types are checked


def keep_gradients(run: Run[Any]) -> None:
    """Have torch keep the gradients of what layers read, which backward_lines tells."""
    for values in run.inputs:
        for value in values:
            if value.requires_grad and not value.is_leaf:
                value.retain_grad()


def forward_lines(net: Net, run: Run[Any], params: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each layer's tops and parameters, in the order of the pass. params: by Param.key."""
    for layer, tops in zip(net.layers, run.outputs, strict=True):
        for blob, value in zip(in_graph(layer.tops), tops, strict=True):
            yield f"    [Forward] Layer {layer.name}, top blob {blob.name} data: {_size(value)}"
        for i, param in enumerate(layer.params):
            yield f"    [Forward] Layer {layer.name}, param blob {_name(layer, i)} data: {_size(params[param.key])}"


def backward_lines(net: Net, run: Run[Any], params: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each layer's bottoms and parameters that have a gradient, last layer first, then one for all
    parameters together."""
    for layer, bottoms in reversed(list(zip(net.layers, run.inputs, strict=True))):
        for blob, value in zip(in_graph(layer.bottoms), bottoms, strict=True):
            if value.requires_grad and value.grad is not None:
                yield f"    [Backward] Layer {layer.name}, bottom blob {blob.name} diff: {_size(value.grad)}"
        for i, param in enumerate(layer.params):
            if params[param.key].grad is not None:
                yield f"    [Backward] Layer {layer.name}, param blob {i} diff: {_size(params[param.key].grad)}"
    data = [value.detach() for value in params.values()]
    diffs = [value.grad for value in params.values() if value.grad is not None]
    yield (
        f"    [Backward] All net params (data, diff): L1 norm = ({_norm(data, 1)}, {_norm(diffs, 1)}); "
        f"L2 norm = ({_norm(data, 2)}, {_norm(diffs, 2)})"
    )


def _size(value: Tensor) -> str:
    return number(float(value.detach().abs().mean()))


def _norm(values: list[Tensor], order: int) -> str:
    total = sum(float(value.abs().pow(order).sum()) for value in values)
    return number(math.sqrt(total) if order == 2 else total)


def _name(layer: Layer, index: int) -> str:
    """A parameter as Caffe shows it: by the name it is shared by, else by its number."""
    specs = layer.message.param
    return str(specs[index].name) if index < len(specs) and specs[index].name else str(index)
