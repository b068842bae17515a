"""Log."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [0, 0.69314718, 2.30258509]),
        ("base: -1", [0, 0.69314718, 2.30258509]),
        ("base: 2", [0, 1, 3.32192809]),
        ("base: 10 scale: 10", [1, 1.30103, 2]),
        ("base: 2 scale: 7 shift: 1", [3, 3.9068906, 6.14974712]),
        ("base: 0.5", [0, -1, -3.32192809]),
    ],
)
def test_it_is_the_logarithm_of_shift_plus_scale_x(bench, settings, expected):
    (top,) = bench.run("Log", f"log_param {{ {settings} }}", [[1, 2, 10]])
    np.testing.assert_allclose(top, expected, rtol=1e-6, atol=1e-7)


def test_of_0_it_is_minus_infinity_and_of_less_nan(bench):
    (top,) = bench.run("Log", "", [[0, -1]])
    assert top[0] == -np.inf
    assert np.isnan(top[1])


@pytest.mark.parametrize("base", ["0", "-2", "inf", "nan"])
def test_a_base_without_a_logarithm_is_refused(bench, base):
    assert f"base must be positive, or -1 for e, not {base}" in bench.refusal(
        "Log", f"log_param {{ base: {base} }}", [(3,)]
    )


def test_base_1_is_refused(bench):
    assert "base must be positive and not 1" in bench.refusal("Log", "log_param { base: 1 }", [(3,)])


def test_it_may_run_in_place():
    assert LAYERS.get("Log").in_place
