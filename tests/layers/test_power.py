"""Power."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [-1, 0, 2]),
        ("power: 2", [1, 0, 4]),
        ("scale: 3", [-3, 0, 6]),
        ("shift: 1", [0, 1, 3]),
        ("power: 2 scale: 3 shift: 1", [4, 1, 49]),
        ("power: -1 shift: 2", [1, 0.5, 0.25]),
        ("power: 0.5 shift: 2", [1, 1.4142136, 2]),
    ],
)
def test_it_is_shift_plus_scale_x_to_the_power(bench, settings, expected):
    (top,) = bench.run("Power", f"power_param {{ {settings} }}", [[-1, 0, 2]])
    assert top == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "value"),
    [("power: 0", 1), ("power: 0 shift: 0 scale: 0", 1), ("power: 3 shift: 2 scale: 0", 8)],
)
def test_power_0_or_scale_0_does_not_look_at_the_bottom(bench, settings, value):
    (top,) = bench.run("Power", f"power_param {{ {settings} }}", [[[-1, 0, np.nan]]])
    assert top.tolist() == [[value, value, value]]


def test_a_constant_that_is_no_number_is_nan_as_in_caffe(bench):
    (top,) = bench.run("Power", "power_param { power: 0.5 shift: -1 scale: 0 }", [[1, 2]])
    assert np.isnan(top).all()


def test_it_may_run_in_place():
    assert LAYERS.get("Power").in_place
