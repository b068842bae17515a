"""Swish."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [-0.26894142, 0, 1.76159416]),
        ("beta: 2", [-0.11920292, 0, 1.96402758]),
        ("beta: 0", [-0.5, 0, 1]),
        ("beta: -1", [-0.73105858, 0, 0.23840584]),
    ],
)
def test_it_is_x_times_the_sigmoid_of_beta_x(bench, settings, expected):
    (top,) = bench.run("Swish", f"swish_param {{ {settings} }}", [[-1, 0, 2]])
    np.testing.assert_allclose(top, expected, rtol=1e-6)


def test_large_values_are_0_or_themselves(bench):
    (top,) = bench.run("Swish", "", [[-1000, 1000]])
    assert top.tolist() == [0, 1000]


def test_it_may_run_in_place():
    assert LAYERS.get("Swish").in_place
