"""The way to a GPU, gone without one: an onnxruntime that says it has CUDA, and computes on the CPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ristretto_cli.backends.device_choice import GpuUnusable
from ristretto_cli.backends.exact_kernels import ALL, NONE, is_exact
from ristretto_cli.backends.graph_passes.graph_pass import Target
from ristretto_cli.backends.onnx_integers import ALL_KERNELS
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.backends.onnx_session import CUDA, Session, probe
from ristretto_cli.cli.main import run
from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring import engine
from ristretto_cli.scoring.execution import Execution

CPU = "CPUExecutionProvider"
REMEDY = "Check that the driver, CUDA and cuDNN match the installed onnxruntime-gpu."
TRIMMED = """
    layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 16 dim: 3 dim: 3 } } }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "x" top: "conv"
            convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } }
            quantization_param { bw_layer_in: 8 fl_layer_in: 5 bw_layer_out: 8 fl_layer_out: 5
                                 bw_params: 8 fl_params: 7 } }
    layer { name: "fc" type: "FcRistretto" bottom: "conv" top: "fc"
            inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.1 } }
            quantization_param { bw_layer_in: 8 fl_layer_in: 5 bw_layer_out: 8 fl_layer_out: 5
                                 bw_params: 8 fl_params: 7 } }
"""


class Sessions:
    """What onnxruntime was asked for: the arguments of each session, and its model.

    fault: an exception that is raised instead of making a session, with only_on_gpu only for CUDA. run: a function
    that sessions run instead of their graphs.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.models: list[Any] = []
        self.providers = [CUDA, CPU]
        self.fault: Exception | None = None
        self.only_on_gpu = False
        self.run: Callable[..., Any] | None = None

    def op_types(self) -> set[str]:
        return {node.op_type for model in self.models for node in model.graph.node}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """onnxruntime with a CUDA provider."""
    for kernel in ALL_KERNELS:
        is_exact(kernel)  # asks the real onnxruntime, once for all
    sessions, real = Sessions(), onnxruntime.InferenceSession

    def make(model: bytes, options: Any, *, providers: list[Any], **settings: Any) -> Any:
        sessions.asked.append({"providers": providers, **settings})
        sessions.models.append(onnx.ModelProto.FromString(model))
        if sessions.fault is not None and not (sessions.only_on_gpu and providers == [CPU]):
            raise sessions.fault
        session = real(model, options, providers=[CPU], **settings)
        monkeypatch.setattr(session, "get_providers", lambda: sessions.providers)
        if sessions.run is not None:
            monkeypatch.setattr(session, "run", sessions.run)
        return session

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    return sessions


def double(gpu: int | None) -> list[float]:
    """2 * (1, 2) on a device."""
    ops = OnnxOps()
    x = ops.input("x", (2,))
    session = Session(ops.graph, {"y": ops.add(x, x)}, gpu=gpu)
    return list(session.run({"x": np.array([1, 2], np.float32)})["y"].tolist())


def test_cuda_is_asked_for_by_its_number_before_the_cpu_and_with_all_of_float32s_bits(cuda: Sessions) -> None:
    assert double(gpu=3) == [2, 4]
    (asked,) = cuda.asked
    assert asked["providers"] == [(CUDA, {"device_id": 3, "use_tf32": 0}), CPU]


def test_onnxruntime_is_not_to_fall_back_to_the_cpu_by_itself(cuda: Sessions) -> None:
    double(gpu=0)
    assert cuda.asked[0]["enable_fallback"] == 0


def test_without_a_number_the_cpu_alone_is_asked_for(cuda: Sessions) -> None:
    assert double(gpu=None) == [2, 4]
    assert cuda.asked[0]["providers"] == [CPU]


def test_large_constants_reach_the_graph(cuda: Sessions) -> None:
    ops = OnnxOps()
    x = ops.input("x", (2000,))
    weight = np.arange(2000, dtype=np.float32)
    session = Session(ops.graph, {"y": ops.add(x, ops.constant(weight))}, gpu=0)
    np.testing.assert_array_equal(session.run({"x": np.ones(2000, np.float32)})["y"], weight + 1)


def test_an_onnxruntime_without_cuda_is_refused_before_any_session(
    cuda: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(RistrettoError) as caught:
        double(gpu=0)
    assert str(caught.value) == (
        "the installed onnxruntime has no CUDA support. "
        "For a GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu."
    )
    assert cuda.asked == []


def test_what_cuda_says_against_a_device_is_told(cuda: Sessions) -> None:
    cuda.fault = RuntimeError("CUDA failure 101: invalid device ordinal")
    with pytest.raises(RistrettoError) as caught:
        double(gpu=7)
    assert str(caught.value) == (
        f"onnxruntime cannot use CUDA device 7: CUDA failure 101: invalid device ordinal. {REMEDY}"
    )


def test_a_session_that_came_to_be_without_cuda_is_refused(cuda: Sessions) -> None:
    cuda.providers = [CPU]
    with pytest.raises(RistrettoError) as caught:
        double(gpu=2)
    assert str(caught.value) == f"onnxruntime cannot use CUDA device 2. {REMEDY}"


def scores(workshop: Any, gpu: int | None) -> np.ndarray[Any, Any]:
    """The outputs of the quantized net for one batch."""
    net = workshop.load(TRIMMED)
    runner = engine.compile_net(
        net, lambda made, _: {"fc": made.final["fc"]}, rng=np.random.default_rng(0), execution=Execution(gpu)
    )
    x = np.random.default_rng(1).standard_normal((2, 16, 3, 3), np.float32)
    return np.asarray(runner.run({"x": x})["fc"])


def test_kernels_for_integers_and_for_blocks_of_channels_are_the_cpus_alone(
    cuda: Sessions, workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "exact_kernels", lambda: ALL)
    monkeypatch.setattr(engine, "has_blocks", lambda: True)
    assert engine.target_of(Execution(None)) == Target(ALL, has_blocks=True)
    assert engine.target_of(Execution(0)) == Target(NONE, has_blocks=False)
    scores(workshop, gpu=None)
    assert {"QLinearConv", "QGemm"} <= cuda.op_types()

    cuda.models.clear()
    scores(workshop, gpu=0)
    assert cuda.op_types().isdisjoint({"QLinearConv", "QGemm"})


def test_a_trimmed_net_gives_the_same_without_kernels_for_integers(cuda: Sessions, workshop: Any) -> None:
    on_gpu = scores(workshop, gpu=0)
    assert on_gpu.any()
    np.testing.assert_array_equal(on_gpu, scores(workshop, gpu=None))


def test_quantize_and_test_run_on_the_gpu_that_they_are_given(
    cuda: Sessions, two_classes: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    two_classes()
    files = ["--model=net.prototxt", "--weights=net.caffemodel"]
    search = ["quantize", *files, "--trimming_mode=dynamic_fixed_point", "--iterations=2", "--gpu=1"]
    assert run([*search, "--calibration_iterations=2"]) == 0
    printed = capsys.readouterr()
    assert "Use GPU with device ID 1" in printed.err
    assert not re.search(r"^W", printed.err, re.MULTILINE)
    assert "Baseline 32bit float: 0.8" in printed.out
    assert run(["test", "--iterations=2", "--gpu=1"]) == 0
    assert "accuracy = 0.8" in capsys.readouterr().out
    devices = [asked["providers"][0] for asked in cuda.asked]
    assert len(devices) > 3
    assert devices == [(CUDA, {"device_id": 1, "use_tf32": 0})] * len(devices)


# --- the device is tried once, before anything else runs on it


def test_a_device_that_computes_a_convolution_and_a_product_is_usable(cuda: Sessions) -> None:
    probe(1)
    (asked,) = cuda.asked
    assert asked["providers"][0] == (CUDA, {"device_id": 1, "use_tf32": 0})
    assert {"Conv", "MatMul"} <= cuda.op_types()


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (RuntimeError("CUDNN failure 1001: not initialized"), "CUDNN failure 1001: not initialized"),
        (RuntimeError("Failed to allocate memory for 16 bytes"), "Failed to allocate memory for 16 bytes"),
        ([np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 2, 2))], "it computes wrong values"),
    ],
)
def test_a_device_that_fails_in_its_first_run_or_gives_wrong_values_is_not(
    cuda: Sessions, monkeypatch: pytest.MonkeyPatch, result: Any, why: str
) -> None:
    def compute(*_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    cuda.run = compute
    with pytest.raises(GpuUnusable) as caught:
        probe(3)
    assert str(caught.value).startswith(f"onnxruntime cannot use CUDA device 3: {why}. ")


def test_a_device_that_no_session_can_be_made_on_is_replaced_by_the_cpu(
    cuda: Sessions, two_classes: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    two_classes()
    cuda.fault = RuntimeError("CUDA failure 101:\ninvalid device ordinal")
    args = ["time", "--model=net.prototxt", "--iterations=1", "--gpu=7"]
    cuda.only_on_gpu = True
    assert run(args) == 0
    printed = capsys.readouterr()
    assert "Average Forward pass: " in printed.out
    assert "Use CPU." in printed.err
    (warning,) = [line for line in printed.err.splitlines() if line.startswith("W")]
    assert warning.endswith(
        "--gpu=7: the GPU cannot be used: onnxruntime cannot use CUDA device 7: CUDA failure 101: invalid device "
        f"ordinal. {REMEDY} Falling back to the CPU, which gives the same results. --require_gpu makes this an error."
    )
    assert len([asked for asked in cuda.asked if asked["providers"][0] != CPU]) == 1

    assert run([*args, "--require_gpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "CUDA failure 101: invalid device ordinal." in line


def test_of_several_gpus_the_first_is_used_and_that_is_told(
    cuda: Sessions, two_classes: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    two_classes()
    assert run(["test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=1", "--gpu=2,3"]) == 0
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].endswith("--gpu=2,3: only one GPU is used, GPU 2.")
    assert printed[1].endswith("Use GPU with device ID 2")
    assert {asked["providers"][0][1]["device_id"] for asked in cuda.asked} == {2}


def test_a_gpu_that_fails_later_is_told_as_that(cuda: Sessions) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    cuda.run = fail
    with pytest.raises(RistrettoError) as caught:
        double(gpu=0)
    assert str(caught.value) == (
        "the GPU failed: CUDA failure 700: an illegal memory access was encountered. Without --gpu the CPU is used."
    )
