"""Names, outputs and constants of a graph, and how a session gets them."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from ristretto_cli.backends import onnx_session
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.errors import RistrettoError


@pytest.fixture
def ops():
    return OnnxOps()


def _model(ops, outputs, **options):
    model = lower(ops.graph, outputs).model(**options)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_nodes_are_named_by_layer_and_operation(ops):
    x = ops.input("data", (2,))
    with ops.scope("conv1"):
        y = ops.add(ops.relu(x), ops.relu(ops.abs(x)))
    assert [node.name for node in _model(ops, {"y": y}).graph.node] == [
        "conv1/Relu",
        "conv1/Abs",
        "conv1/Relu_2",
        "conv1/Add",
    ]


def test_outputs_keep_the_names_they_are_given(ops):
    x = ops.input("data", (1,))
    y = ops.relu(x)
    model = _model(ops, {"a@b/c": y, "Relu_2": ops.abs(y), "  ": ops.exp(ops.relu(y))})
    assert [output.name for output in model.graph.output] == ["a@b/c", "Relu_2", "  "]


def test_a_value_can_be_two_outputs(ops):
    y = ops.relu(ops.input("data", (2,)))
    results = lower(ops.graph, {"a": y, "b": y}).session().run({"data": np.array([-1, 2])})
    assert {name: value.tolist() for name, value in results.items()} == {"a": [0, 2], "b": [0, 2]}


def test_inputs_and_constants_can_be_outputs(ops):
    x = ops.input("data", (2,))
    large = np.arange(5000, dtype=np.float32)
    outputs = {"x": x, "one": ops.constant(1.0), "large": ops.constant(large)}
    _model(ops, outputs)
    results = lower(ops.graph, outputs).session().run({"data": np.array([3, 4])})
    assert results["x"].tolist() == [3, 4]
    assert results["one"] == 1
    assert results["large"].tolist() == large.tolist()


def test_an_output_called_like_an_input_is_still_found_by_its_name(ops):
    x = ops.input("data", (1,))
    outputs = {"data": ops.abs(x), "abs": ops.add(x, x)}
    _model(ops, outputs)
    results = lower(ops.graph, outputs).session().run({"data": np.array([-3])})
    assert (results["data"].tolist(), results["abs"].tolist()) == ([3], [-6])


def test_an_input_that_is_an_output_of_its_own_name_is_found_by_it(ops):
    x = ops.input("data", (1,))
    assert lower(ops.graph, {"data": x}).session().run({"data": np.array([7])})["data"] == [7]


def test_what_no_output_needs_is_left_out(ops):
    x, unread = ops.input("data", (1,)), ops.input("label", (1,))
    ops.exp(ops.add(unread, ops.constant(np.ones(1), name="unused")))
    model = _model(ops, {"y": ops.relu(x)})
    assert [node.op_type for node in model.graph.node] == ["Relu"]
    assert [value.name for value in model.graph.input] == ["data"]
    assert not model.graph.initializer
    assert lower(ops.graph, {"y": ops.relu(x)}).session().run({"data": np.ones(1)})["y"] == [1]


def test_two_inputs_of_one_name_are_refused(ops):
    ops.input("data", (1,))
    with pytest.raises(ValueError, match="already a value named data"):
        ops.input("data", (1,))


def test_a_constant_is_kept_by_reference_and_shared(ops):
    weights = np.ones((50, 50), np.float32)
    a, b = ops.constant(weights, name="fc/0"), ops.constant(weights.reshape(50, 50))
    assert a is b
    assert np.shares_memory(ops.graph.initializers["fc/0"], weights)


def test_equal_arrays_that_are_large_or_named_are_not_shared(ops):
    ops.constant(np.ones(5000, np.float32))
    ops.constant(np.ones(5000, np.float32))
    ops.constant(np.ones(2, np.float32), name="a")
    ops.constant(np.ones(2, np.float32), name="b")
    assert len(ops.graph.initializers) == 4


def test_small_constants_that_are_equal_are_shared(ops):
    assert ops.constant(0.5) is ops.constant(np.float64(0.5))
    assert ops.constant(0.5) is not ops.constant([0.5])
    assert ops.constant(0.0) is not ops.constant(-0.0)


def test_a_model_without_weights_leaves_out_the_large_ones(ops):
    x = ops.input("data", (1, 4000))
    y = ops.linear(x, ops.constant(np.ones((500, 4000), np.float32), name="fc/0"), ops.constant(np.ones(500)))
    bare = lower(ops.graph, {"y": y}).model(embed_weights=False)
    assert len(bare.SerializeToString()) < 4000
    assert len(_model(ops, {"y": y}).SerializeToString()) > 8_000_000


def test_a_session_takes_large_constants_from_where_they_lie(ops):
    weights = np.arange(2_000_000, dtype=np.float32).reshape(500, 4000) % 7
    y = ops.linear(ops.input("data", (1, 4000)), ops.constant(weights), None)
    top = lower(ops.graph, {"y": y}).session().run({"data": np.ones((1, 4000))})["y"]
    assert top.ravel().tolist() == weights.sum(1).tolist()


def test_a_session_takes_constants_from_odd_addresses_and_read_only_ones(ops):
    weights = np.arange(3000, dtype=np.float32)
    view = np.ndarray((3000,), np.float32, b"\0" + weights.tobytes(), offset=1)
    y = ops.add(ops.input("data", (3000,)), ops.constant(view))
    assert lower(ops.graph, {"y": y}).session().run({"data": np.ones(3000)})["y"].tolist() == (weights + 1).tolist()


def test_a_feed_of_another_shape_is_refused(ops):
    session = lower(ops.graph, {"y": ops.relu(ops.input("data", (2, 3)))}).session()
    with pytest.raises(ValueError, match=r"data has shape \(3, 2\), not \(2, 3\)"):
        session.run({"data": np.ones((3, 2))})


def test_without_a_gpu_runtime_the_package_to_install_is_named(ops, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RistrettoError, match="pip install onnxruntime-gpu"):
        lower(ops.graph, {"y": ops.relu(ops.input("data", (1,)))}).session(gpu=0)


def test_a_gpu_that_onnxruntime_falls_back_from_is_reported(ops, monkeypatch):
    monkeypatch.setattr(onnx_session, "_providers", lambda *_: ["CPUExecutionProvider"])
    with pytest.raises(RistrettoError, match="cannot use CUDA device 3"):
        lower(ops.graph, {"y": ops.relu(ops.input("data", (1,)))}).session(gpu=3)


def test_a_gpu_that_onnxruntime_fails_on_is_reported_and_not_replaced(ops, monkeypatch, capfd):
    import onnxruntime

    def fail(*_args, **_options):
        raise ValueError("no device 7")

    monkeypatch.setattr(onnx_session, "_providers", lambda *_: [])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(RistrettoError, match="cannot use CUDA device 7: no device 7"):
        lower(ops.graph, {"y": ops.relu(ops.input("data", (1,)))}).session(gpu=7)
    assert capfd.readouterr() == ("", "")


def test_the_model_runs_on_the_oldest_runtime_that_is_promised(ops):
    model = _model(ops, {"y": ops.uniform((2,))})
    assert (model.ir_version, model.opset_import[0].version) == (10, 21)


def test_equal_graphs_make_equal_models_whatever_strings_hash_to():
    """Deferred constants and renamed values stand in the order in which they were recorded."""
    code = (
        "import hashlib, numpy as np\n"
        "from ristretto_cli.backends.onnx_graph import Graph\n"
        "from ristretto_cli.backends.onnx_model import model_of\n"
        "graph = Graph()\n"
        "value = graph.input('x', (2,))\n"
        "for number in range(8):\n"
        "    made = graph.deferred((2,), lambda number=number: np.full(2, number, np.float32))\n"
        "    value = graph.record('Add', [value, made], [(2,)])[0]\n"
        "model = model_of(graph, {'y': value}, embed_weights=True)\n"
        "print(hashlib.sha256(model.SerializeToString()).hexdigest())\n"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(made) == 1
