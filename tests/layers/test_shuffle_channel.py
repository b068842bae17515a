"""ShuffleChannel."""

import numpy as np
import pytest


def test_the_groups_are_dealt_in_turn(bench):
    x = np.array([0, 1, 2, 10, 11, 12]).reshape(1, 6, 1, 1)
    (top,) = bench.run("ShuffleChannel", "shuffle_channel_param { group: 2 }", [x])
    assert top.ravel().tolist() == [0, 10, 1, 11, 2, 12]


def test_planes_move_as_a_whole(bench):
    x = np.arange(8).reshape(1, 4, 1, 2)
    (top,) = bench.run("ShuffleChannel", "shuffle_channel_param { group: 2 }", [x])
    assert top.reshape(4, 2).tolist() == [[0, 1], [4, 5], [2, 3], [6, 7]]


def test_one_group_changes_nothing(bench):
    (top,) = bench.run("ShuffleChannel", "", [[[1, 2, 3]]])
    assert top.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("group", [0, 4, 4294967295])
def test_groups_that_do_not_divide_the_channels_are_refused(bench, group):
    settings = f"shuffle_channel_param {{ group: {group} }}"
    assert f"6 channels cannot be split into {group} groups" in bench.refusal("ShuffleChannel", settings, [(1, 6)])


def test_a_bottom_without_channels_is_refused(bench):
    assert "needs a channel axis" in bench.refusal("ShuffleChannel", "", [(6,)])
