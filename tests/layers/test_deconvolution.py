"""Deconvolution."""

import pytest


def deconv(settings):
    return f"convolution_param {{ {settings} }}"


def test_each_number_adds_a_scaled_filter(bench):
    text = deconv("num_output: 1 kernel_size: 3 stride: 2")
    (top,) = bench.run("Deconvolution", text, [[[[1, 2]]]], params=[[[[1, 10, 100]]], [0.5]])
    assert top.tolist() == [[[1.5, 10.5, 102.5, 20.5, 200.5]]]


def test_padding_is_cut_off(bench):
    text = deconv("num_output: 1 kernel_size: 3 stride: 2 pad: 1 bias_term: false")
    (top,) = bench.run("Deconvolution", text, [[[[1, 2]]]], params=[[[[1, 10, 100]]]])
    assert top.tolist() == [[[10, 102, 20]]]


def test_dilation_spreads_the_filter(bench):
    text = deconv("num_output: 1 kernel_size: 2 dilation: 3 bias_term: false")
    (top,) = bench.run("Deconvolution", text, [[[[1, 2]]]], params=[[[[1, 10]]]])
    assert top.tolist() == [[[1, 2, 0, 10, 20]]]


def test_weights_are_by_input_channel_first(bench):
    text = deconv("num_output: 4 kernel_size: [3, 5] group: 2")
    shapes = [param.shape for param in bench.params("Deconvolution", text, [(1, 6, 8, 8)])]
    assert shapes == [(6, 2, 3, 5), (4,)]


def test_groups_see_only_their_channels(bench):
    text = deconv("num_output: 4 kernel_size: 1 group: 2 bias_term: false")
    (top,) = bench.run("Deconvolution", text, [[[[2], [3]]]], params=[[[[1], [10]], [[1], [10]]]])
    assert top.tolist() == [[[2], [20], [3], [30]]]


def test_several_bottoms_share_the_filters(bench):
    text = deconv("num_output: 1 kernel_size: 1")
    tops = bench.run("Deconvolution", text, [[[[1]]], [[[5]]]], params=[[[[3]]], [1]], tops=2)
    assert [top.tolist() for top in tops] == [[[[4]]], [[[16]]]]


def test_without_spatial_axes_it_is_an_inner_product(bench):
    text = deconv("num_output: 2 kernel_size: 1 bias_term: false")
    (top,) = bench.run("Deconvolution", text, [[[1, 2]]], params=[[[1, 0], [1, 1]]])
    assert top.tolist() == [[3, 2]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("kernel_size: 3", "num_output is missing"),
        ("num_output: 2 kernel_size: 3 group: 3", "group 3 does not divide both 4 channels and num_output 2"),
        ("num_output: 2 kernel_size: 3 pad: 4", "padding 4x4 removes the whole output"),
        ("num_output: 2 kernel_size: 3 stride: 4000000000", "has too many elements"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, said):
    assert said in bench.refusal("Deconvolution", deconv(settings), [(1, 4, 5, 5)])
