"""Convolution, ConvolutionDepthwise, DepthwiseConvolution."""

import numpy as np
import pytest

from ristretto_cli.layers.layer_type import LAYERS

X = np.arange(16).reshape(1, 1, 4, 4)


def conv(settings):
    return f"convolution_param {{ {settings} }}"


def test_it_correlates_and_does_not_flip_the_filter(bench):
    text = conv("num_output: 1 kernel_size: 2")
    (top,) = bench.run("Convolution", text, [X], params=[[[[[1, 10], [100, 1000]]]], [0.5]])
    assert top[0, 0, 0].tolist() == [5410.5, 6521.5, 7632.5]


def test_a_dilated_filter_takes_every_other_position(bench):
    text = conv("num_output: 1 kernel_size: 2 dilation: 2 bias_term: false")
    (top,) = bench.run("Convolution", text, [X], params=[[[[[1, 0], [0, 1]]]]])
    assert top.tolist() == [[[[10, 12], [18, 20]]]]


def test_stride_and_pad_have_a_height_and_a_width(bench):
    text = conv("num_output: 1 kernel_h: 1 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 1")
    (top,) = bench.run("Convolution", text, [X], params=[[[[[1, 1, 1]]]], [0]])
    assert top.tolist() == [[[[1, 3, 6, 5], [17, 27, 30, 21]]]]


def test_repeated_settings_are_one_per_spatial_axis(bench):
    text = conv("num_output: 1 kernel_size: 1 kernel_size: 3 stride: 2 stride: 1 pad: 0 pad: 1")
    (top,) = bench.run("Convolution", text, [X], params=[[[[[1, 1, 1]]]], [0]])
    assert top.tolist() == [[[[1, 3, 6, 5], [17, 27, 30, 21]]]]


def test_groups_see_only_their_channels(bench):
    text = conv("num_output: 2 kernel_size: 1 group: 2")
    (top,) = bench.run("Convolution", text, [[[[1], [2], [3], [4]]]], params=[[[[1], [10]], [[1], [10]]], [0, 0]])
    assert top.tolist() == [[[21], [43]]]


def test_several_bottoms_share_the_filters(bench):
    text = conv("num_output: 1 kernel_size: 1")
    tops = bench.run("Convolution", text, [[[[1, 2]]], [[[5, 6]]]], params=[[[[3]]], [1]], tops=2)
    assert [top.tolist() for top in tops] == [[[[4, 7]]], [[[16, 19]]]]


def test_axes_before_the_channels_are_all_batch(bench):
    text = conv("num_output: 1 kernel_size: 2 axis: 2")
    x = [[[[1, 2, 3]], [[4, 5, 6]]]]  # (1, 2, 1, 3)
    (top,) = bench.run("Convolution", text, [x], params=[[[[1, 10]]], [0]])
    assert top.tolist() == [[[[21, 32]], [[54, 65]]]]


def test_channels_on_the_first_axis_mean_that_there_is_no_batch(bench):
    text = conv("num_output: 1 kernel_size: 2 axis: 0")
    (top,) = bench.run("Convolution", text, [[[1, 2, 3]]], params=[[[[1, 10]]], [0]])
    assert top.tolist() == [[21, 32]]


def test_without_spatial_axes_it_is_an_inner_product(bench):
    text = conv("num_output: 2 kernel_size: 3 axis: -1")
    (top,) = bench.run("Convolution", text, [[[1, 2]]], params=[[[1, 0], [1, 1]], [0, 5]])
    assert top.tolist() == [[1, 8]]


@pytest.mark.parametrize("kind", ["ConvolutionDepthwise", "DepthwiseConvolution"])
@pytest.mark.parametrize("settings", ["", "num_output: 2", "num_output: 2 group: 2"])
def test_depthwise_filters_see_one_channel_each(bench, kind, settings):
    text = conv(f"kernel_size: 2 bias_term: false {settings}")
    (top,) = bench.run(kind, text, [[[[1, 2], [3, 4]]]], params=[[[[1, 10]], [[1, 100]]]])
    assert top.tolist() == [[[21], [403]]]


def test_parameters_are_filters_and_one_bias_each(bench):
    text = conv('num_output: 6 kernel_h: 5 kernel_w: 3 group: 2 weight_filler { type: "xavier" }')
    weights, bias = bench.params("Convolution", text, [(1, 4, 9, 9)])
    assert (weights.shape, weights.filler.type) == ((6, 2, 5, 3), "xavier")
    assert (bias.shape, bias.filler.type, bias.filler.value) == ((6,), "constant", 0)
    without = bench.params("Convolution", text.replace("group", "bias_term: false group"), [(1, 4, 9, 9)])
    assert [param.shape for param in without] == [(6, 2, 5, 3)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("kernel_size: 3", "num_output is missing"),
        ("num_output: 2", "kernel_size is missing"),
        ("num_output: 2 kernel_size: 0", "kernel_size must be at least 1, not 0, 0"),
        ("num_output: 2 kernel_h: 3", "kernel_size must be at least 1, not 3, 0"),
        ("num_output: 2 kernel_size: 3 kernel_h: 3", "kernel_size cannot be combined with kernel_h or kernel_w"),
        ("num_output: 2 kernel_size: 3 pad: 1 pad_w: 0", "pad cannot be combined with pad_h or pad_w"),
        ("num_output: 2 kernel_size: [3, 3, 3]", "kernel_size is given 3 times, but the bottom has 2 spatial"),
        ("num_output: 2 kernel_size: 3 stride: 0", "stride must be at least 1, not 0, 0"),
        ("num_output: 2 kernel_size: 3 dilation: [1, 0]", "dilation must be at least 1, not 1, 0"),
        ("num_output: 2 kernel_size: 3 group: 3", "group 3 does not divide both 4 channels and num_output 2"),
        ("num_output: 3 kernel_size: 3 group: 2", "group 2 does not divide both 4 channels and num_output 3"),
        ("num_output: 2 kernel_size: 3 group: 0", "group 0 does not divide"),
        ("num_output: 2 kernel_size: 7", "kernel 7x7 with dilation 1x1 is larger than the input 5x5"),
        ("num_output: 2 kernel_size: 3 axis: 4", "axis 4 is out of range"),
        ("num_output: 4000000000 kernel_size: 3", "has too many elements"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, said):
    assert said in bench.refusal("Convolution", conv(settings), [(1, 4, 5, 5)])


def test_height_and_width_need_two_spatial_axes(bench):
    said = bench.refusal("Convolution", conv("num_output: 1 kernel_h: 1 kernel_w: 1"), [(1, 4, 5)])
    assert "kernel_h and kernel_w need 2 spatial axes; the bottom has 1" in said


def test_bottoms_of_different_shapes_are_refused(bench):
    text = conv("num_output: 2 kernel_size: 1")
    assert "different shapes" in bench.refusal("Convolution", text, [(1, 4, 5, 5), (1, 4, 5, 6)], tops=2)


def test_the_ristretto_variants_compute_the_same_and_trim(bench):
    text = conv("num_output: 1 kernel_size: 1")
    (top,) = bench.run("ConvolutionRistretto", text, [[[[1.3]]]], params=[[[[2]]], [0]])
    assert top[0, 0, 0] == np.float32(2.6)
    assert [LAYERS.get(f"{kind}Ristretto").quantized for kind in ("Convolution", "Deconvolution", "Fc")] == [True] * 3
    assert not LAYERS.get("Convolution").quantized
