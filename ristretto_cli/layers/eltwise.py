"""Eltwise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ristretto_cli.caffe_io.messages import enum_name
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("Eltwise")
class Eltwise(LayerType):
    """The bottoms, of equal shapes, combined element-wise.

    SUM: coeff[0] * x0 + coeff[1] * x1 + ..., with coefficients of 1 by default. PROD: the product.
    MAX: the maximum; coefficients are accepted but ignored, as in Caffe.
    """

    bottoms = (2, None)
    needs_one_format = True

    def keeps_format(self, layer: Layer) -> bool:
        return enum_name(layer.message.eltwise_param, "operation") == "MAX"

    def keeps_factors(self, layer: Layer) -> bool:
        return enum_name(layer.message.eltwise_param, "operation") != "PROD"

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        param = layer.message.eltwise_param
        operation = enum_name(param, "operation")
        _check(operation, len(param.coeff), [x.shape for x in bottoms])
        if operation == "PROD":
            return [reduce(ops.mul, bottoms)]
        if operation == "MAX":
            # Of equals the first gets the gradient, but in Caffe the second bottom precedes the first.
            first, second, *others = bottoms
            return [reduce(ops.maximum, (second, first, *others))]
        coefficients = list(param.coeff) or [1.0] * len(bottoms)
        terms = [
            x if factor == 1 else ops.mul(x, ops.constant(factor))
            for x, factor in zip(bottoms, coefficients, strict=True)
        ]
        return [reduce(ops.add, terms)]


def _check(operation: str, coefficients: int, shapes: Sequence[tuple[int, ...]]) -> None:
    if coefficients not in (0, len(shapes)):
        raise LayerError(
            f"{coefficients} coeff settings for {len(shapes)} bottoms",
            hint="Set one for each bottom, or none.",
        )
    if operation == "PROD" and coefficients > 0:
        raise LayerError("coeff is set for a product", hint="Remove coeff, or set operation: SUM.")
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise LayerError(
                f"bottom {number} has shape {show(shape)}, bottom 0 has {show(shapes[0])}",
                hint="Use bottoms of equal shapes.",
            )
