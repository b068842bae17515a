"""BNLL."""

import numpy as np

from ristretto_cli.layers.layer_type import LAYERS


def test_it_is_the_logarithm_of_1_plus_exp(bench):
    (top,) = bench.run("BNLL", "", [[-1, 0, 1]])
    np.testing.assert_allclose(top, [0.31326169, 0.69314718, 1.31326169], rtol=1e-6)


def test_large_values_neither_overflow_nor_vanish(bench):
    (top,) = bench.run("BNLL", "", [[-20, 100, np.inf, -np.inf]])
    np.testing.assert_allclose(top, [2.0611536e-09, 100, np.inf, 0], rtol=1e-5)


def test_it_may_run_in_place():
    assert LAYERS.get("BNLL").in_place
