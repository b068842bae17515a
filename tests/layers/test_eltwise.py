"""Eltwise."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS


def test_it_sums_by_default(bench):
    (top,) = bench.run("Eltwise", "", [[1, 2], [10, 20], [100, 200]])
    assert top.tolist() == [111, 222]


def test_a_sum_weighs_each_bottom_with_its_coefficient(bench):
    (top,) = bench.run("Eltwise", "eltwise_param { coeff: 1 coeff: -2 }", [[1, 2], [10, 20]])
    assert top.tolist() == [-19, -38]


def test_a_coefficient_of_zero_counts_as_given(bench):
    (top,) = bench.run("Eltwise", "eltwise_param { coeff: 0 coeff: 1 }", [[1, 2], [10, 20]])
    assert top.tolist() == [10, 20]


def test_prod_multiplies_all_bottoms(bench):
    (top,) = bench.run("Eltwise", "eltwise_param { operation: PROD }", [[1, 2], [3, -4], [5, 5]])
    assert top.tolist() == [15, -40]


@pytest.mark.parametrize("coefficients", ["", "coeff: 3 coeff: -1 coeff: 0"])
def test_max_takes_the_largest_and_ignores_coefficients(bench, coefficients):
    (top,) = bench.run("Eltwise", f"eltwise_param {{ operation: MAX {coefficients} }}", [[1, 9], [7, 2], [3, 3]])
    assert top.tolist() == [7, 9]


def test_coefficients_of_a_product_are_refused(bench):
    message = bench.refusal("Eltwise", "eltwise_param { operation: PROD coeff: 1 coeff: 1 }", [(2,), (2,)])
    assert "coeff is set for a product" in message


def test_another_number_of_coefficients_than_bottoms_is_refused(bench):
    message = bench.refusal("Eltwise", "eltwise_param { coeff: 1 }", [(2,), (2,)])
    assert "1 coeff settings for 2 bottoms" in message


@pytest.mark.parametrize("other", [(2, 1), (1, 3), (2, 3, 1), (3,), ()])
def test_unequal_shapes_are_refused_even_where_they_would_broadcast(bench, other):
    assert "bottom 1 has shape" in bench.refusal("Eltwise", "", [(2, 3), other])


def test_it_takes_two_bottoms_at_least():
    assert LAYERS.get("Eltwise").bottoms == (2, None)
