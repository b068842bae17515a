"""Times, by a clock that goes forward one second at each look; those of kernels are onnxruntime's own."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ristretto_cli.analysis import timing as timing_module
from ristretto_cli.analysis.timing import LayerTime, Timing, time_net, timing_lines
from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.score import score_net

from ..conftest import IDENTITY, NET

TRIMMED = (
    NET.replace("InnerProduct", "FcRistretto")
    .replace('"Convolution"', '"ConvolutionRistretto"')
    .replace("bias_term: false }", "bias_term: false } quantization_param { precision: MINIFLOAT }")
)


def timed(
    net: Net, iterations: int = 3, *, without_data: Collection[str] = (), execution: Execution = DEFAULT
) -> Timing:
    """A Timing in which reading, and a pass, take a second."""
    seconds = itertools.count()
    rng = np.random.default_rng(0)
    return time_net(
        net, iterations, without_data=without_data, rng=rng, execution=execution, clock=lambda: float(next(seconds))
    )


def by_name(timing: Timing) -> dict[str, LayerTime]:
    return {layer.name: layer for layer in timing.layers}


def test_every_layer_and_the_whole_net_are_timed(two_classes: Any) -> None:
    timing = timed(two_classes().workshop.load(NET, IDENTITY))
    assert [layer.name for layer in timing.layers] == ["d", "conv", "fc", "acc", "loss"]
    assert timing.layers[0] == LayerTime("d", 1000, reads_data=True)
    assert all(layer.has_kernels for layer in timing.layers)
    assert (timing.forward_ms, timing.profiled_ms, timing.total_ms, timing.zeros) == (1000, 1000, 3000, ())


@pytest.mark.parametrize("graph", [None, ()], ids=["fast", "plain"])
@pytest.mark.parametrize("text", [NET, TRIMMED], ids=["float", "trimmed"])
def test_the_parts_add_up_to_the_pass_that_was_profiled(
    two_classes: Any, graph: tuple[str, ...] | None, text: str
) -> None:
    timing = timed(two_classes().workshop.load(text, IDENTITY), execution=Execution(graph_passes=graph))
    parts = [layer.milliseconds for layer in timing.layers if not layer.reads_data]
    assert min(parts) >= 0
    assert sum(parts) + timing.others_ms + timing.outside_ms == pytest.approx(timing.profiled_ms)
    assert by_name(timing)["conv"].has_kernels


def test_as_many_passes_are_profiled_as_are_measured_unless_the_graph_is_large(
    two_classes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = two_classes().workshop.load(NET, IDENTITY)

    def profiled(iterations: int) -> int:
        reported = []
        rng = np.random.default_rng(0)
        time_net(net, iterations, rng=rng, on_run=lambda done, total, what: reported.append((what, done)))
        return max(done for what, done in reported if what == "layers")

    assert profiled(4) == 4
    monkeypatch.setattr(timing_module, "_MAX_KERNELS", 1)
    assert profiled(4) == 1


@pytest.mark.parametrize("graph", [None, ()], ids=["fast", "plain"])
def test_the_graph_is_that_of_test(
    tried_kernels: None, two_classes: Any, graph: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sessions of a timing compute the nodes that scoring computes."""
    net = two_classes().workshop.load(TRIMMED, IDENTITY)
    execution = Execution(graph_passes=graph)
    models: list[list[str]] = []
    real = onnxruntime.InferenceSession

    def make(model: bytes, *args: Any, **settings: Any) -> Any:
        models.append([node.name for node in onnx.ModelProto.FromString(model).graph.node])
        return real(model, *args, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    score_net(net, 1, rng=np.random.default_rng(0), execution=execution)
    timed(net, execution=execution)
    assert len(models) == 3
    assert models[0] == models[1] == models[2]


def test_the_first_loss_is_that_of_the_data(two_classes: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ristretto")
    timed(two_classes().workshop.load(NET, IDENTITY), 2)
    assert caplog.messages == [
        "Performing Forward",
        "Initial loss: 0.559681",
        "*** Benchmark begins ***",
        "Testing for 2 iterations.",
        "Iteration: 1 forward time: 1000 ms.",
        "Iteration: 2 forward time: 1000 ms.",
        "*** Benchmark ends ***",
    ]


def test_layers_without_data_are_zeros_and_take_no_time(two_classes: Any) -> None:
    timing = timed(two_classes().workshop.load(NET, IDENTITY), without_data={"d"})
    assert timing.layers[0] == LayerTime("d", 0, reads_data=True)
    assert timing.zeros == ("data", "label")
    assert timing_lines(timing)[0] == "Zeros instead of data: data, label."


def test_what_only_passes_values_on_takes_no_time(workshop: Any) -> None:
    net = workshop.load("""
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 6 } } }
        layer { name: "split" type: "Split" bottom: "x" top: "a" top: "b" }
        layer { name: "drop" type: "Dropout" bottom: "a" top: "drop" }
        layer { name: "view" type: "Reshape" bottom: "b" top: "view" reshape_param { shape { dim: 3 dim: 4 } } }
        layer { name: "relu" type: "ReLU" bottom: "view" top: "view" }
        layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "drop" top: "sum" }
        layer { name: "silence" type: "Silence" bottom: "sum" }
        layer { name: "end" type: "Power" bottom: "drop" top: "end" power_param { scale: 2 } }
    """)
    layers = by_name(timed(net))
    assert [name for name, layer in layers.items() if not layer.has_kernels] == ["split", "drop", "sum", "silence"]


def test_what_no_output_needs_has_no_kernels_as_in_test(workshop: Any) -> None:
    timing = timed(
        workshop.load("""
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 } } }
        layer { name: "idle" type: "Sigmoid" bottom: "x" top: "y" }
        layer { name: "silence" type: "Silence" bottom: "y" }
        layer { name: "tanh" type: "TanH" bottom: "x" top: "z" }
    """)
    )
    assert "Without kernels of their own: idle, silence." in timing_lines(timing)


def test_a_net_without_outputs_is_refused_as_by_test(workshop: Any) -> None:
    net = workshop.load("""
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 } } }
        layer { name: "silence" type: "Silence" bottom: "x" }
    """)
    with pytest.raises(RistrettoError, match="the net has no outputs to score"):
        timed(net)


def test_layers_of_one_name_are_timed_with_the_first(workshop: Any) -> None:
    net = workshop.load("""
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 } } }
        layer { name: "same" type: "Sigmoid" bottom: "x" top: "y" }
        layer { name: "same" type: "TanH" bottom: "y" top: "z" }
    """)
    assert [layer.has_kernels for layer in timed(net).layers[1:]] == [True, False]


def test_a_relu_that_is_joined_with_a_product_is_named(workshop: Any) -> None:
    """Whatever it is called then: onnxruntime gives the joint node either one's name."""
    net = workshop.load("""
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 6 } } }
        layer { name: "a/fc" type: "InnerProduct" bottom: "x" top: "y"
                inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
        layer { name: "a/relu" type: "ReLU" bottom: "y" top: "y" }
        layer { name: "end" type: "Softmax" bottom: "y" top: "z" }
    """)
    timing = timed(net)
    layers = by_name(timing)
    assert layers["a/fc"].has_kernels
    assert layers["a/relu"] == LayerTime("a/relu", 0, has_kernels=False, within="a/fc")
    assert "Computed by kernels of another layer: a/relu (a/fc)." in timing_lines(timing)


@pytest.mark.parametrize("phase", [0, 1])
def test_trimmed_layers_are_timed_in_both_phases(two_classes: Any, phase: int) -> None:
    text = NET.replace("InnerProduct", "FcRistretto").replace('"Convolution"', '"ConvolutionRistretto"')
    net = two_classes().workshop.load(text, IDENTITY, phase)
    layers = by_name(timed(net))
    assert layers["conv"].has_kernels
    assert layers["fc"].has_kernels
    assert ("acc" in layers) == (phase != TRAIN)


def test_lines_are_caffes() -> None:
    layers = (
        LayerTime("d", 2, reads_data=True),
        LayerTime("conv1", 1.23456),
        LayerTime("a_long_layer_name", 0.5),
        LayerTime("relu", 0, has_kernels=False, within="conv1"),
        LayerTime("drop", 0, has_kernels=False),
    )
    timing = Timing(50, layers, others_ms=0.25, profiled_ms=2, forward_ms=1.5, zeros=())
    lines = timing_lines(timing)
    assert lines == [
        "Layer times are kernel times from onnxruntime's profiler; for data layers, the time to read a batch.",
        "Average time per layer: ",
        "         d\tforward: 2 ms.",
        "     conv1\tforward: 1.23456 ms.",
        "a_long_layer_name\tforward: 0.5 ms.",
        "      relu\tforward: 0 ms.",
        "      drop\tforward: 0 ms.",
        "Computed by kernels of another layer: relu (conv1).",
        "Without kernels of their own: drop.",
        "Kernels not attributed to a layer: 0.25 ms. Time outside kernels: 0.01544 ms.",
        "Profiled pass, without reading data: 2 ms. Without profiling:",
        "Average Forward pass: 1.5 ms.",
        "Total Time: 75 ms.",
    ]
    assert [line for line in timing_lines(replace(timing, on_gpu=True)) if line not in lines] == [
        "On a GPU, kernel times are launch times; waiting for kernels counts as time outside kernels."
    ]


def test_a_net_of_only_data_has_the_times_of_reading(two_classes: Any) -> None:
    timing = timed(two_classes().workshop.load(NET.partition('layer { name: "conv"')[0]))
    assert timing.layers == (LayerTime("d", 1000, reads_data=True),)


def test_data_that_cannot_be_read_is_reported_with_its_layer(two_classes: Any) -> None:
    net = two_classes().workshop.load(NET, IDENTITY)
    shutil.rmtree("test_db")
    with pytest.raises(RistrettoError, match=r'^net.prototxt:6: layer "d" \(Data\): .*test_db does not exist'):
        timed(net)
