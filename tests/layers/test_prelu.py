"""PReLU."""

from ristretto_cli.layers.layer_type import LAYERS


def test_each_channel_has_its_slope(bench):
    (top,) = bench.run("PReLU", "", [[[-4, -4], [4, 4]]], params=[[0.5, -1]])
    assert top.tolist() == [[-2, 4], [4, 4]]


def test_channels_are_on_axis_1_regardless_of_later_axes(bench):
    (top,) = bench.run("PReLU", "", [[[[-1, -2], [-1, -2]], [[-1, -2], [3, -2]]]], params=[[1, 10]])
    assert top.tolist() == [[[-1, -2], [-10, -20]], [[-1, -2], [3, -20]]]


def test_a_shared_slope_is_a_single_number(bench):
    (top,) = bench.run("PReLU", "prelu_param { channel_shared: true }", [[[-4, 4, -8]]], params=[0.5])
    assert top.tolist() == [[-2, 4, -4]]


def test_slopes_start_at_a_quarter(bench):
    (slope,) = bench.params("PReLU", "", [(2, 3, 4)])
    assert (slope.shape, slope.filler.type, slope.filler.value) == ((3,), "constant", 0.25)


def test_a_filler_of_its_own_is_kept(bench):
    (slope,) = bench.params("PReLU", 'prelu_param { filler { type: "gaussian" std: 2 } }', [(2, 3)])
    assert (slope.filler.type, slope.filler.std) == ("gaussian", 2)


def test_a_bottom_without_channels_is_refused(bench):
    assert "at least 2 axes" in bench.refusal("PReLU", "", [(3,)])


def test_it_may_run_in_place():
    assert LAYERS.get("PReLU").in_place
