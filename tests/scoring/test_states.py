"""Layers with a state continue in each batch where the last one ended."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.execution import Execution

# One step a pass. Hidden h = tanh(x + h / 2), top tanh(h).
NET = """
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 1 dim: 1 }} }} }}
    layer {{ name: "c" type: "Input" top: "{cont}" input_param {{ shape {{ dim: 1 dim: 1 }} }} }}
    layer {{ name: "r" type: "RNN" bottom: "x" bottom: "{cont}" top: "h" recurrent_param {{ num_output: 1 }} }}
"""
WEIGHTS = {"r": [[[1]], [0], [[0.5]], [[1]], [0]]}


@pytest.mark.parametrize("cont", ["cont", "state r/0"])
def test_a_pass_starts_from_the_state_of_the_last_one(workshop: Any, cont: str) -> None:
    net = workshop.load(NET.format(cont=cont), WEIGHTS)
    engine = OnePass(net, rng=np.random.default_rng(0))
    hidden, found, expected = 0.0, [], []
    for x, goes_on in ((0.5, 1), (0.25, 1), (-1.0, 1), (0.5, 0), (0.25, 1)):
        feeds = {"x": np.full((1, 1, 1), x, np.float32), cont: np.full((1, 1), goes_on, np.float32)}
        results = engine.run(feeds)
        assert set(results) == {"h"}
        found.append(results["h"].item())
        hidden = math.tanh(x + 0.5 * goes_on * hidden)
        expected.append(math.tanh(hidden))
    assert found == pytest.approx(expected)


def test_a_test_net_continues_in_each_test_where_the_last_one_ended(workshop: Any) -> None:
    from ristretto_cli.train.test_nets import Tester

    data = (
        'layer {{ name: "{0}" type: "DummyData" top: "{0}" dummy_data_param {{ {1} data_filler {{ value: {2} }} }} }}'
    )
    inputs = data.format("x", "shape { dim: 1 dim: 1 dim: 1 }", 0.5) + data.format("cont", "shape { dim: 1 dim: 1 }", 1)
    net = workshop.load(inputs + NET[NET.index('layer {{ name: "r"') :].format(cont="cont"), WEIGHTS)
    tester = Tester(net, net, 2, rng=np.random.default_rng(0), execution=Execution(threads=1))
    hidden, expected = 0.0, []
    for _ in range(4):
        hidden = math.tanh(0.5 + 0.5 * hidden)
        expected.append(math.tanh(hidden))
    with tester:
        found = [tester.run(net.weights) for _ in range(2)]
    means = [test.outputs[0].score for test in found if test is not None]
    assert means == pytest.approx([sum(expected[:2]) / 2, sum(expected[2:]) / 2])
