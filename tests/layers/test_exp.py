"""Exp."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [0.36787944, 1, 7.3890561]),
        ("base: -1", [0.36787944, 1, 7.3890561]),
        ("base: 2", [0.5, 1, 4]),
        ("base: 10 scale: 2", [0.01, 1, 10000]),
        ("base: 2 shift: 3", [4, 8, 32]),
        ("base: 0.5 scale: -1 shift: 1", [0.25, 0.5, 2]),
        ("shift: 1", [1, 2.7182818, 20.0855369]),
        ("base: 1", [1, 1, 1]),
        ("scale: 0 base: 2 shift: -1", [0.5, 0.5, 0.5]),
    ],
)
def test_it_is_the_base_to_the_power_of_shift_plus_scale_x(bench, settings, expected):
    (top,) = bench.run("Exp", f"exp_param {{ {settings} }}", [[-1, 0, 2]])
    np.testing.assert_allclose(top, expected, rtol=1e-6)


@pytest.mark.parametrize("base", ["0", "-2", "inf", "nan"])
def test_a_base_without_a_logarithm_is_refused(bench, base):
    assert f"base must be positive, or -1 for e, not {base}" in bench.refusal(
        "Exp", f"exp_param {{ base: {base} }}", [(3,)]
    )


def test_it_may_run_in_place():
    assert LAYERS.get("Exp").in_place
