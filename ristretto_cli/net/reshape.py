"""Shape inference: the shapes of a layer's tops, and a net for inputs of other shapes, as Caffe's Net::Reshape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ristretto_cli.backends.shapes import ShapeOps, Sized, sized
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.layers.host_layer import HostLayer
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import AUTOMATIC, Blob, Layer, Net
from ristretto_cli.ops import DYNAMIC, Shape, show


def top_shapes(layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
    """The shapes of a layer's tops for bottoms of these shapes; LayerError if they do not fit."""
    layer_type = LAYERS.get(layer.type)
    if isinstance(layer_type, HostLayer):
        return layer_type.shapes(layer, bottoms)
    params = [Sized(param.shape) for param in layer.params]
    return [top.shape for top in layer_type.forward(ShapeOps(), layer, [Sized(shape) for shape in bottoms], params)]


def reshaped(net: Net, shapes: Mapping[str, Shape]) -> Net:
    """The net for other shapes of its inputs, by name; inputs that are not named keep theirs.

    A name may also be that of a host layer's top that the graph reads. Blobs that depend on a top with DYNAMIC extents
    that is not named keep their shapes. RistrettoError for a layer that the shapes do not fit.
    """
    current: dict[str, Blob] = {}
    layers = []
    for layer in net.layers:
        bottoms = tuple(current[blob.name] for blob in layer.bottoms)
        given: Sequence[Shape | None] = [None] * len(layer.tops)
        if layer.is_source or layer.feeds_graph:
            given = [shapes.get(top.name) for top in layer.tops]
        found: Sequence[Shape] = [top.shape for top in layer.tops]
        if bottoms != layer.bottoms:
            before, layer = layer, replace(layer, bottoms=bottoms)
            is_known = layer.on_host or not any(DYNAMIC in blob.shape for blob in bottoms)
            if is_known and not layer.is_source:
                found = _inferred(layer, before, shapes)
        tops = tuple(
            replace(top, shape=new if known is None else tuple(known))
            for top, new, known in zip(layer.tops, found, given, strict=True)
        )
        layers.append(replace(layer, tops=tops))
        current.update({top.name: top for top in tops if top.name != AUTOMATIC})
    # A part of a net may lack some of them.
    inputs, outputs = (tuple(current.get(blob.name, blob) for blob in blobs) for blobs in (net.inputs, net.outputs))
    return replace(net, layers=tuple(layers), inputs=inputs, outputs=outputs)


def likely_shape(shape: Shape, bottom: Shape = ()) -> Shape:
    """A shape with likely extents for DYNAMIC ones: those of the layer's first bottom, or else 1.

    In Caffe, too, all items are assumed to pass a Filter until it runs.
    """
    return tuple((*bottom, *[1] * len(shape))[axis] if n == DYNAMIC else n for axis, n in enumerate(shape))


def with_likely_shapes(net: Net) -> Net:
    """The net with likely extents for all DYNAMIC ones in the graph."""
    for i, layer in enumerate(net.layers):
        if (layer.is_source or layer.feeds_graph) and any(
            DYNAMIC in top.shape and not top.on_host for top in layer.tops
        ):
            bottom = net.layers[i].bottoms[0].shape if layer.bottoms else ()
            net = reshaped(net, {top.name: likely_shape(top.shape, bottom) for top in layer.tops})
    return net


def _inferred(layer: Layer, before: Layer, shapes: Mapping[str, Shape]) -> Sequence[Shape]:
    """The shapes of the tops of a layer whose bottoms have others than before. shapes: the inputs', for messages."""
    layer_type = LAYERS.get(layer.type)
    bottoms = [blob.shape for blob in layer.bottoms]
    try:
        needed = [sized(param.shape).shape for param in layer_type.params(layer.message, bottoms)]
        for i, (param, shape) in enumerate(zip(layer.params, needed, strict=True)):
            if param.shape != shape:
                raise LayerError(
                    f"its parameter {i} is {show(param.shape)}, but would be {show(shape)}",
                    hint="Use images of one size (crop_size), or a fully convolutional net.",
                )
        if layer_type.states(layer) != layer_type.states(before):
            raise LayerError("its state would have another shape", hint="Use batches of one size.")
        return top_shapes(layer, bottoms)
    except LayerError as error:
        of = ", ".join(f"{name} {show(shape)}" for name, shape in shapes.items())
        raise RistrettoError(f'layer "{layer.name}" ({layer.type}), for {of}: {error}', where=layer.where) from error
