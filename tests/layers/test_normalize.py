"""Normalize."""

import pytest

X = [[[3, 0], [4, 2]], [[0, 1], [5, 0]]]  # (2, 2, 2): at each place a vector of two channels


def test_each_place_gets_norm_1_times_the_scale_of_the_channel(bench):
    settings = "norm_param { across_spatial: false channel_shared: false }"
    (top,) = bench.run("Normalize", settings, [X], params=[[10, 100]])
    assert top.ravel().tolist() == pytest.approx([6, 0, 80, 100, 0, 10, 100, 0], abs=1e-5)


def test_across_the_places_each_item_gets_norm_1(bench):
    (top,) = bench.run("Normalize", "", [[[[1, 5], [7, 5]]]], params=[20])  # 1 + 25 + 49 + 25 = 10 * 10
    assert top.ravel().tolist() == pytest.approx([2, 10, 14, 10])


def test_eps_is_added_to_the_sum_of_squares(bench):
    settings = "norm_param { across_spatial: false eps: 16 }"
    (top,) = bench.run("Normalize", settings, [[[3], [0]]], params=[1])
    assert top.ravel().tolist() == pytest.approx([0.6, 0])


def test_zeros_stay_zeros(bench):
    (top,) = bench.run("Normalize", "", [[[0, 0]]], params=[20])
    assert top.tolist() == [[0, 0]]


@pytest.mark.parametrize(("settings", "shape"), [("", ()), ("channel_shared: false", (3,))])
def test_the_scale_is_one_number_or_one_for_each_channel_and_starts_at_1(bench, settings, shape):
    (param,) = bench.params("Normalize", f"norm_param {{ {settings} }}", [(1, 3, 4, 4)])
    assert (param.shape, param.filler.type, param.filler.value) == (shape, "constant", 1)


def test_its_filler_is_used(bench):
    settings = 'norm_param { scale_filler { type: "constant" value: 20 } }'
    assert bench.params("Normalize", settings, [(1, 3)])[0].filler.value == 20


def test_a_bottom_without_channels_is_refused(bench):
    assert "needs a channel axis" in bench.refusal("Normalize", "", [(3,)])
