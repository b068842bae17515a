"""Python layers: built-in replacements for well-known modules; others are rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import LayerError
from ristretto_cli.extensions import ExtensionError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer, ParamDef
from ristretto_cli.ops import Ops, Shape, V
from ristretto_cli.registry import Registry

PYTHON_LAYERS: Registry[LayerType] = Registry("Python layer", __package__ or "", "ristretto.python_layers")


def python_layer(module: str, name: str) -> Callable[[type[LayerType]], type[LayerType]]:
    """Class decorator: register the replacement of a class of a widely used module."""

    def register(cls: type[LayerType]) -> type[LayerType]:
        PYTHON_LAYERS.register(f"{module}.{name}")(cls())
        return cls

    return register


@layer_type("Python")
class Python(LayerType):
    """The computation of a well-known module. Others are rejected, because they are written for Caffe's own blobs."""

    bottoms = (0, None)
    without_gradient = (0, 1, 2)
    tops = (0, None)
    in_place = True

    def params(self, message: Message, bottoms: Sequence[Shape]) -> tuple[ParamDef, ...]:
        return _known(message).params(message, bottoms)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        known = _known(layer.message)
        for kind, count, (low, high) in (
            ("bottom", len(bottoms), known.bottoms),
            ("top", len(layer.tops), known.tops),
        ):
            if count < low or (high is not None and count > high):
                wanted = f"{low}" if high == low else f"{low} or more" if high is None else f"{low} to {high}"
                raise LayerError(
                    f"{layer.message.python_param.layer}: expected {wanted} {kind}{'s' * (wanted != '1')}, got {count}"
                )
        if not known.in_place and {top.name for top in layer.tops} & {bottom.name for bottom in layer.bottoms}:
            raise LayerError("in-place computation is not supported", hint="Use different names for top and bottom.")
        return known.forward(ops, layer, bottoms, params)


def _known(message: Message) -> LayerType:
    """The replacement of a Python layer's module and class; LayerError if there is none."""
    param = message.python_param
    name = f"{param.module}.{param.layer}"
    if name not in PYTHON_LAYERS:
        raise LayerError(
            f'Python layers cannot be run: module "{param.module}", layer "{param.layer}"',
            hint="Remove it from the net, or replace it with Caffe layers.",
        )
    try:
        return PYTHON_LAYERS.get(name)
    except ExtensionError as error:
        raise LayerError(str(error)) from error
