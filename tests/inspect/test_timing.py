"""Times, by a clock that goes forward one second at each look."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.inspect.timing import Timing, time_net, timing_lines
from ristretto_cli.net.ir import Net
from ristretto_cli.wire.messages import TRAIN

from ..conftest import IDENTITY, NET


def timed(net: Net, iterations: int = 3, *, without_data: Collection[str] = ()) -> Timing:
    """A Timing in which every call takes a second."""
    seconds = itertools.count()
    rng = np.random.default_rng(0)
    return time_net(net, iterations, without_data=without_data, rng=rng, clock=lambda: float(next(seconds)))


def test_every_layer_and_the_whole_net_are_timed(two_classes: Any) -> None:
    net = two_classes().workshop.load(NET, IDENTITY)
    timing = timed(net)
    assert timing.layers == (("d", 1000), ("conv", 1000), ("fc", 1000), ("acc", 1000), ("loss", 1000))
    assert (timing.forward_ms, timing.total_ms, timing.zeros) == (1000, 3000, ())


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
    assert timing.layers[0] == ("d", 0)
    assert timing.zeros == ("data", "label")
    assert timing_lines(timing)[0] == "Not read, but all zeros: data, label."


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
    times = dict(timed(net).layers)
    assert [name for name, milliseconds in times.items() if milliseconds == 0] == ["i", "split", "drop", "silence"]


@pytest.mark.parametrize("phase", [0, 1])
def test_trimmed_layers_are_timed_in_both_phases(two_classes: Any, phase: int) -> None:
    text = NET.replace("InnerProduct", "FcRistretto").replace('"Convolution"', '"ConvolutionRistretto"')
    net = two_classes().workshop.load(text, IDENTITY, phase)
    layers = dict(timed(net).layers)
    assert layers["conv"] == layers["fc"] == 1000
    assert ("acc" in layers) == (phase != TRAIN)


def test_lines_are_caffes() -> None:
    timing = Timing(50, (("conv1", 1.23456), ("a_long_layer_name", 0.5)), 1.5, ())
    assert timing_lines(timing) == [
        "Each layer is timed alone, as a graph of its own; for a data layer it is the time to read a batch.",
        "Average time per layer: ",
        "     conv1\tforward: 1.23456 ms.",
        "a_long_layer_name\tforward: 0.5 ms.",
        "The forward pass is the whole net as one graph, in which layers are joined; reading data is not part of it.",
        "Average Forward pass: 1.5 ms.",
        "Total Time: 75 ms.",
    ]


def test_a_net_of_data_alone_has_the_times_of_reading(two_classes: Any) -> None:
    timing = timed(two_classes().workshop.load(NET.partition('layer { name: "conv"')[0]))
    assert (timing.layers, timing.forward_ms) == ((("d", 1000),), 0)


def test_what_is_only_silenced_is_part_of_the_forward_pass(workshop: Any) -> None:
    timing = timed(
        workshop.load("""
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 } } }
        layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }
        layer { name: "silence" type: "Silence" bottom: "y" }
    """)
    )
    assert timing.forward_ms == 1000


def test_data_that_cannot_be_read_is_told_with_its_layer(two_classes: Any) -> None:
    net = two_classes().workshop.load(NET, IDENTITY)
    shutil.rmtree("test_db")
    with pytest.raises(RistrettoError, match=r'^net.prototxt:6: layer "d" \(Data\): .*test_db does not exist'):
        timed(net)
