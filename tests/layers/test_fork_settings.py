"""Settings that forks add to Caffe's own layers."""

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN

X = np.arange(9).reshape(1, 1, 3, 3)
ONES = np.ones((1, 1, 2, 2))


def test_relu6_cuts_off_above_6(bench):
    (top,) = bench.run("ReLU", "relu_param { relu6: true }", [[-1, 5, 7]])
    assert top.tolist() == [0, 5, 6]


def test_relu6_without_being_set_does_not(bench):
    assert bench.run("ReLU", "relu_param { relu6: false }", [[-1, 5, 7]])[0].tolist() == [0, 5, 7]


def test_relu6_does_not_go_with_a_slope(bench):
    assert "negative_slope" in bench.refusal("ReLU", "relu_param { relu6: true negative_slope: 0.1 }", [(1,)])


def test_without_scale_train_dropout_scales_in_testing(bench):
    settings = "dropout_param { dropout_ratio: 0.25 scale_train: false }"
    assert bench.run("Dropout", settings, [[4, 8]])[0].tolist() == [3, 6]


def test_and_not_in_training(bench):
    settings = "dropout_param { dropout_ratio: 0.25 scale_train: false }"
    (top,) = bench.run("Dropout", settings, [np.full(1000, 4)], phase=TRAIN)
    assert set(top.tolist()) == {0, 4}


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        ("pad_b: 1 pad_r: 1", [[8, 12, 7], [20, 24, 13], [13, 15, 8]]),
        ("pad_t: 1 pad_l: 1", [[0, 1, 3], [3, 8, 12], [9, 20, 24]]),
        ("pad_t: 1 pad_l: 1 pad_b: 1 pad_r: 1", [[0, 1, 3, 2], [3, 8, 12, 7], [9, 20, 24, 13], [6, 13, 15, 8]]),
        ("pad_l: 0", [[8, 12], [20, 24]]),
    ],
)
def test_a_convolution_may_be_padded_on_each_side(bench, pads, expected):
    settings = f"convolution_param {{ num_output: 1 kernel_size: 2 bias_term: false {pads} }}"
    (top,) = bench.run("Convolution", settings, [X], params=[ONES])
    assert top[0, 0].tolist() == expected


@pytest.mark.parametrize("settings", ["pad: 1 pad_l: 1", "pad_h: 1 pad_l: 1"])
def test_one_kind_of_padding_is_given(bench, settings):
    settings = f"convolution_param {{ num_output: 1 kernel_size: 2 {settings} }}"
    assert "exclude other pad settings" in bench.refusal("Convolution", settings, [X.shape])


@pytest.mark.parametrize("kind", ["Deconvolution", "Im2col"])
def test_others_are_padded_alike_on_both_sides(bench, kind):
    settings = "convolution_param { num_output: 1 kernel_size: 2 pad_l: 1 }"
    assert "must be the same here" in bench.refusal(kind, settings, [X.shape])


def pooled(bench, settings):
    (top,) = bench.run("Pooling", f"pooling_param {{ kernel_size: 2 {settings} }}", [X])
    return top[0, 0].tolist()


def test_ceil_mode_is_the_round_mode(bench):
    assert pooled(bench, "stride: 2 ceil_mode: false") == [[4]]
    assert pooled(bench, "stride: 2 ceil_mode: true") == pooled(bench, "stride: 2") == [[4, 5], [7, 8]]


def test_a_maximum_may_be_padded_on_one_side(bench):
    assert pooled(bench, "stride: 2 pad_b: 1 pad_r: 1 ceil_mode: false") == [[4, 5], [7, 8]]
    assert pooled(bench, "stride: 2 pad_t: 1 pad_l: 1 ceil_mode: false") == [[0, 2], [6, 8]]


def test_a_mean_may_leave_out_the_padding(bench):
    assert pooled(bench, "stride: 2 pool: AVE_EXC_PAD pad_t: 1 pad_l: 1 pad_b: 1 pad_r: 1 ceil_mode: false") == [
        [0, 1.5],
        [4.5, 6],
    ]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("pad: 1 pad_l: 1", "exclude other pad settings"),
        ("pool: AVE pad_l: 1", "pool AVE requires equal padding on both sides"),
    ],
)
def test_other_paddings_are_refused(bench, settings, what):
    assert what in bench.refusal("Pooling", f"pooling_param {{ kernel_size: 2 {settings} }}", [X.shape])
