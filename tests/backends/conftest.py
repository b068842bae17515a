"""What the tests of the primitives share: computing one, with its shape checked on both backends."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_floats import FloatsOps
from ristretto_cli.backends.onnx_integers import integers_are_exact
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.errors import LayerError
from ristretto_cli.scoring.assumed import BOUND, AssumingRunner


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


@dataclass(frozen=True)
class Fast:
    """What the fast ops make of a graph: the first result, or a tuple of all; how many nodes of which type it takes;
    and whether what they assume was true."""

    top: object
    nodes: Counter
    assumed: bool


def fast_ops(*, assuming=True, integers=True, has_blocks=True):
    ops = FloatsOps(integers=integers, has_blocks=has_blocks)
    if assuming:
        ops.bound_of_inputs = BOUND
        ops.assumes_in_range = True
    return ops


def _agree(build, *arrays):
    """What the fast ops make of build(ops, *values), with integers and blocks and without: the same as OnnxOps, bit
    for bit but for the sign of zero."""
    arrays = [np.asarray(array, np.float32) for array in arrays]
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}

    def record(ops):
        values = build(ops, *[ops.input(name, array.shape) for name, array in feeds.items()])
        return values, {str(i): value for i, value in enumerate(_as_list(values))}

    plain = OnnxOps()
    wanted = Session(plain.graph, record(plain)[1], threads=1).run(feeds)
    found = None
    for integers, has_blocks in ((False, False), (False, True), (True, False), (True, True)):
        sessions = []

        def session(assuming, integers=integers, has_blocks=has_blocks, sessions=sessions):
            ops = fast_ops(assuming=assuming, integers=integers, has_blocks=has_blocks)
            values, outputs = record(ops)
            peak = ops.peak(outputs.values())
            model = ops.graph.model(outputs, embed_weights=True)
            sessions.append((values, Counter(node.op_type for node in model.graph.node)))
            return Session(ops.graph, outputs if peak is None else {**outputs, "peak": peak}, threads=1), peak

        first, peak = session(True)
        if not integers or integers_are_exact():
            runner = AssumingRunner(
                first, lambda session=session: session(False)[0], peak=None if peak is None else "peak"
            )
            results = runner.run(feeds)
            assert results.keys() == wanted.keys()
            for name, result in results.items():
                np.testing.assert_array_equal(result, wanted[name], err_msg=f"{integers=} {has_blocks=}")
            found = list(results.values())
        values, nodes = sessions[0]
    return Fast(tuple(found) if isinstance(values, tuple) else found[0], nodes, len(sessions) == 1)


@pytest.fixture(scope="session")
def compute():
    return _compute


@pytest.fixture(scope="session")
def refuse():
    return _refuse


@pytest.fixture(scope="session")
def agree():
    return _agree
