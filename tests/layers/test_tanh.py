"""TanH."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


def test_it_maps_to_between_minus_1_and_1(bench):
    (top,) = bench.run("TanH", "", [[-1, 0, 1, 1000]])
    assert top == pytest.approx(np.array([-0.7615942, 0, 0.7615942, 1]), abs=1e-6)


def test_it_may_run_in_place():
    assert LAYERS.get("TanH").in_place
