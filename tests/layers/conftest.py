"""A bench that one layer is put on: made from prototxt, fed with arrays, run by onnxruntime."""

import numpy as np
import pytest
from google.protobuf import text_format

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.caffe_io.messages import TEST, new
from ristretto_cli.errors import LayerError
from ristretto_cli.layers.host_layer import HostLayer
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer
from ristretto_cli.ops import fits


class Bench:
    """The operations of a layer type. text: the fields of its LayerParameter, as in a prototxt."""

    def layer(self, kind, text, *, bottoms=1, tops=1, phase=TEST):
        """The Layer as `forward` gets it: the right numbers of bottoms and tops, without shapes."""
        return Layer(
            name=kind.lower(),
            type=kind,
            phase=phase,
            message=text_format.Parse(text, new("LayerParameter", name=kind.lower(), type=kind)),
            bottoms=tuple(Blob(f"bottom{i}", (), i) for i in range(bottoms)),
            tops=tuple(Blob(f"top{i}", (), -1) for i in range(tops)),
        )

    def params(self, kind, text, shapes):
        """The ParamDefs that a layer with bottoms of these shapes asks for."""
        return LAYERS.get(kind).params(self.layer(kind, text).message, shapes)

    def run(self, kind, text, bottoms, *, params=(), tops=1, phase=TEST):
        """The tops, as arrays, whose shapes are those that ShapeOps predicts."""
        bottoms, params = _arrays(bottoms), _arrays(params)
        layer = self.layer(kind, text, bottoms=len(bottoms), tops=tops, phase=phase)
        layer_type = LAYERS.get(kind)
        if isinstance(layer_type, HostLayer):
            return _on_host(layer_type, layer, bottoms)
        asked = layer_type.params(layer.message, [x.shape for x in bottoms])
        assert [param.shape for param in asked] == [param.shape for param in params]

        predicted = layer_type.forward(ShapeOps(), layer, _sized(bottoms), _sized(params))
        found = _computed(layer_type.forward, layer, bottoms, params)
        assert len(found) == tops
        assert [top.shape for top in predicted] == [top.shape for top in found.values()]
        return list(found.values())

    def updates(self, kind, text, bottoms, *, params=(), phase=TEST):
        """The parameters that the forward pass changes, by index."""
        bottoms, params = _arrays(bottoms), _arrays(params)
        layer = self.layer(kind, text, bottoms=len(bottoms), phase=phase)
        return _computed(lambda *args: LAYERS.get(kind).forward_and_updates(*args)[1], layer, bottoms, params)

    def refusal(self, kind, text, shapes, *, tops=1, phase=TEST):
        """What is said against the layer, with bottoms of these shapes, before anything is computed."""
        layer = self.layer(kind, text, bottoms=len(shapes), tops=tops, phase=phase)
        layer_type = LAYERS.get(kind)
        with pytest.raises(LayerError) as refused:
            if isinstance(layer_type, HostLayer):
                layer_type.shapes(layer, shapes)
            asked = layer_type.params(layer.message, shapes)
            layer_type.forward(ShapeOps(), layer, [Sized(s) for s in shapes], [Sized(p.shape) for p in asked])
        return str(refused.value)


@pytest.fixture(scope="session")
def bench():
    return Bench()


def _arrays(values):
    return [np.asarray(value, np.float32) for value in values]


def _sized(arrays):
    return [Sized(array.shape) for array in arrays]


def _on_host(layer_type, layer, bottoms):
    predicted = layer_type.shapes(layer, [x.shape for x in bottoms])
    found = layer_type.start(layer)(bottoms)
    assert len(found) == len(predicted) == len(layer.tops)
    assert all(fits(top.shape, shape) and top.dtype == np.float32 for top, shape in zip(found, predicted, strict=True))
    return found


def _computed(method, layer, bottoms, params):
    """The values of a method, computed by onnxruntime, by their keys: indices, for a sequence."""
    ops = OnnxOps()
    inputs = [ops.input(f"bottom{i}", x.shape) for i, x in enumerate(bottoms)]
    values = method(ops, layer, inputs, [ops.constant(param) for param in params])
    named = dict(values if isinstance(values, dict) else enumerate(values))
    if not named:
        return {}
    session = lower(ops.graph, {str(key): value for key, value in named.items()}).session(threads=1)
    results = session.run({f"bottom{i}": x for i, x in enumerate(bottoms)})
    return {key: results[str(key)] for key in named}
