"""What the tests of the primitives share: computing one, with its shape checked on both backends."""

import numpy as np
import pytest

from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.errors import LayerError


def _as_list(values):
    return list(values) if isinstance(values, tuple) else [values]


def _compute(build, *arrays):
    """What onnxruntime makes of build(ops, *values): an array, or a tuple of them."""
    arrays = [np.asarray(array, np.float32) for array in arrays]
    predicted = _as_list(build(ShapeOps(), *[Sized(array.shape) for array in arrays]))
    ops = OnnxOps()
    inputs = [ops.input(f"x{i}", array.shape) for i, array in enumerate(arrays)]
    values = build(ops, *inputs)
    outputs = {str(i): value for i, value in enumerate(_as_list(values))}
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    results = list(Session(ops.graph, outputs, threads=1).run(feeds).values())
    assert [value.shape for value in predicted] == [result.shape for result in results]
    assert [value.shape for value in _as_list(values)] == [result.shape for result in results]
    return tuple(results) if isinstance(values, tuple) else results[0]


def _refuse(build, *shapes):
    """What both backends say against build(ops, *values) for values of these shapes."""
    with pytest.raises(LayerError) as by_shapes:
        build(ShapeOps(), *[Sized(shape) for shape in shapes])
    ops = OnnxOps()
    with pytest.raises(LayerError) as by_onnx:
        build(ops, *[ops.input(f"x{i}", shape) for i, shape in enumerate(shapes)])
    assert str(by_shapes.value) == str(by_onnx.value)
    return str(by_shapes.value)


@pytest.fixture(scope="session")
def compute():
    return _compute


@pytest.fixture(scope="session")
def refuse():
    return _refuse
