"""Sigmoid."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


def test_it_maps_to_between_0_and_1(bench):
    (top,) = bench.run("Sigmoid", "", [[-1, 0, 1, 1000, -1000]])
    assert top == pytest.approx(np.array([0.2689414, 0.5, 0.7310586, 1, 0]), abs=1e-6)


def test_it_may_run_in_place():
    assert LAYERS.get("Sigmoid").in_place
