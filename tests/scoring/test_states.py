"""Layers that keep a state go on in each batch where the last one ended."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ristretto_cli.scoring.one_pass import OnePass

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
