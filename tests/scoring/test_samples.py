"""Samples of activations: what a layer's readers see of its output, and how they weight its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.formats.number_format import Role, Sample
from ristretto_cli.scoring.calibrate import Probe, measure_ranges

# Two channels of 2 x 2 pixels; "conv" doubles the first channel and negates the second.
DATA = 'layer { name: "d" type: "Data" top: "data" data_param { source: "db" backend: LMDB batch_size: 1 } }'
CONV = """
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
"""
RECORDS = (((1, 2, 3, -4), (5, 6, 0, -8)),)
OUTPUT = [2, 4, 6, -8, -5, -6, 8]
KERNEL = [[[[2]], [[0]]], [[[0]], [[-1]]]]
IN_PLACE = 'layer { name: "%s" type: "%s" bottom: "conv" top: "conv" %s }\n'
BATCH_NORM = IN_PLACE % ("norm", "BatchNorm", "batch_norm_param { eps: 1 }")
SCALE = IN_PLACE % ("scale", "Scale", "scale_param { bias_term: true }")
RELU = IN_PLACE % ("relu", "ReLU", "")
# The variances are (6 and 48) / 2, and 1 is added: standard deviations of 2 and 5.
WEIGHTS = {"conv": [KERNEL], "norm": [[0, 0], [6, 48], [2]], "scale": [[4, -1], [0, 0]]}


def measure(
    workshop: Any,
    layers: str,
    *,
    records: Any = RECORDS,
    shape: tuple[int, ...] = (2, 2, 2),
    iterations: int = 1,
    weights: Any = None,
    name: str = "conv",
) -> dict[Role, Sample]:
    images = np.array(records, np.float32).reshape(-1, *shape)
    workshop.database("db", images)
    net = workshop.load(DATA + layers, weights or WEIGHTS)
    rng = np.random.default_rng(0)
    ranges = measure_ranges(net, frozenset([name]), iterations, probe=Probe(samples=True), rng=rng)
    return dict(ranges[name].samples)


def out(workshop: Any, layers: str, **settings: Any) -> list[tuple[float, float]]:
    """The sample of the output of "conv", as pairs of a value and its weight, relative to the largest weight."""
    sample = measure(workshop, CONV + layers, **settings)[Role.LAYER_OUT]
    return list(zip(sample.values.tolist(), sample.weights.tolist(), strict=True))


def test_a_sample_of_a_small_blob_has_all_values_but_zeros(workshop: Any) -> None:
    samples = measure(workshop, CONV)
    assert samples[Role.LAYER_IN].values.tolist() == [1, 2, 3, -4, 5, 6, -8]
    assert samples[Role.LAYER_OUT].values.tolist() == OUTPUT
    assert set(samples[Role.LAYER_OUT].weights.tolist()) == {1}


def test_a_sample_has_values_of_all_batches(workshop: Any) -> None:
    records = [[i] * 8 for i in (1, 2, 3)]
    samples = measure(workshop, CONV, records=records, iterations=3)
    assert samples[Role.LAYER_IN].values.tolist() == [1] * 8 + [2] * 8 + [3] * 8


def test_no_samples_are_taken_unless_requested(workshop: Any) -> None:
    workshop.database("db", np.array(RECORDS, np.float32).reshape(1, 2, 2, 2))
    net = workshop.load(DATA + CONV, WEIGHTS)
    ranges = measure_ranges(net, frozenset(["conv"]), 1, probe=Probe(), rng=np.random.default_rng(0))
    assert ranges["conv"].samples == {}


# --- layers that keep some elements

POOL = """
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
            pooling_param { pool: %s kernel_size: 2 stride: 2 } }
"""


def test_what_a_relu_drops_is_not_in_the_sample(workshop: Any) -> None:
    assert [value for value, _ in out(workshop, RELU)] == [2, 4, 6, 8]


def test_of_a_max_pooling_only_the_largest_are_in_the_sample(workshop: Any) -> None:
    assert [value for value, _ in out(workshop, POOL % "MAX")] == [6, 8]
    relu = 'layer { name: "relu" type: "ReLU" bottom: "pool" top: "pool" }'
    negative = [[-1, -2, -3, -4, 5, 6, 0, 8]]
    assert [value for value, _ in out(workshop, POOL % "MAX" + relu, records=negative)] == []


@pytest.mark.parametrize(
    "reader",
    [
        POOL % "AVE",
        IN_PLACE % ("relu", "ReLU", "relu_param { negative_slope: 0.5 }"),
        IN_PLACE % ("tanh", "TanH", ""),
        RELU.replace('top: "conv"', 'top: "y"') + POOL % "MAX",
    ],
)
def test_what_other_layers_or_several_read_is_in_the_sample(workshop: Any, reader: str) -> None:
    assert [value for value, _ in out(workshop, reader)] == OUTPUT


def test_dropout_keeps_all_elements_in_phase_test(workshop: Any) -> None:
    dropout = IN_PLACE % ("drop", "Dropout", "")
    assert [value for value, _ in out(workshop, RELU + dropout + POOL % "MAX")] == [6, 8]


# --- layers that weight channels


def test_the_weight_of_a_channel_is_the_square_of_its_factor_in_batch_norm_and_scale(workshop: Any) -> None:
    # Factors of 1/2 and 1/5, then of 4/2 and -1/5.
    assert out(workshop, BATCH_NORM) == [
        *((value, 1.0) for value in (2, 4, 6, -8)),
        *((value, pytest.approx(4 / 25)) for value in (-5, -6, 8)),
    ]
    weights = [weight for _, weight in out(workshop, BATCH_NORM + SCALE)]
    assert weights == pytest.approx([1] * 4 + [0.01] * 3)


def test_what_a_relu_drops_after_batch_norm_has_no_weight(workshop: Any) -> None:
    # The scale of the second channel is negative, so its negative values are left.
    assert [value for value, _ in out(workshop, BATCH_NORM + SCALE + RELU)] == [2, 4, 6, -5, -6]


def test_batch_norm_weights_what_a_relu_before_it_leaves(workshop: Any) -> None:
    found = out(workshop, RELU + BATCH_NORM)
    assert [value for value, _ in found] == [2, 4, 6, 8]
    assert [weight for _, weight in found] == pytest.approx([1, 1, 1, 4 / 25])


@pytest.mark.parametrize(
    "reader",
    [
        IN_PLACE % ("norm", "BatchNorm", "batch_norm_param { use_global_stats: false }"),
        BATCH_NORM.replace('top: "conv"', 'top: "y"') + 'layer { name: "tanh" type: "TanH" bottom: "conv" top: "t" }',
        'layer { name: "s" type: "Scale" bottom: "conv" bottom: "data" top: "s" scale_param { axis: 0 } }',
    ],
)
def test_without_fixed_factors_or_with_several_readers_all_weigh_the_same(workshop: Any, reader: str) -> None:
    assert out(workshop, reader) == [(value, 1) for value in OUTPUT]


@pytest.mark.parametrize(
    ("settings", "params"),
    [
        ("bn_mode: INFERENCE", [[4, -1], [7, 7]]),
        ("eps: 1", [[8, -5], [7, 7], [0, 0], [3, 24]]),
    ],
)
def test_bn_layers_of_forks_have_factors_as_well(workshop: Any, settings: str, params: Any) -> None:
    reader = IN_PLACE % ("bn", "BN", f"bn_param {{ {settings} }}")
    arrays = [np.array(each).reshape(1, 2, 1, 1) for each in params]
    weights = [weight for _, weight in out(workshop, reader, weights={**WEIGHTS, "bn": arrays})]
    assert weights == pytest.approx([1] * 4 + [1 / 16] * 3)


def test_variances_of_nothing_are_no_factors(workshop: Any) -> None:
    reader = BATCH_NORM.replace("eps: 1", "eps: 0")
    weights = {**WEIGHTS, "norm": [[0, 0], [0, 48], [2]]}
    assert out(workshop, reader, weights=weights) == [(value, 1) for value in OUTPUT]


# --- large values and concatenations


def test_a_large_blob_is_sampled_in_all_channels_and_places(workshop: Any) -> None:
    image = np.arange(2 * 256 * 256, dtype=np.float32).reshape(2, 256, 256) + 1
    values = measure(workshop, CONV, records=[image, image], shape=image.shape, iterations=2)[Role.LAYER_IN].values
    assert 2**15 < len(values) <= 2**16
    first = values[: len(values) // 2]
    assert np.array_equal(first, values[len(first) :])
    places = first.astype(int) - 1
    assert np.bincount(places // 2**16, minlength=2).min() > len(first) * 0.49
    assert np.bincount(places % 256, minlength=256).min() > 0
    assert np.bincount(places // 256 % 256, minlength=256).min() > 0


def test_the_parts_of_a_concatenation_count_by_their_size(workshop: Any) -> None:
    layers = """
        layer { name: "one" type: "Convolution" bottom: "data" top: "one"
                convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
        layer { name: "cat" type: "Concat" bottom: "data" bottom: "one" top: "cat" }
        layer { name: "last" type: "Convolution" bottom: "cat" top: "last"
                convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
    """
    weights = {"one": [[[[[-1]], [[0]]]]], "last": [np.ones((1, 3, 1, 1))]}
    image = np.ones((2, 256, 256))
    sample = measure(workshop, layers, records=[image], shape=image.shape, weights=weights, name="last")[Role.LAYER_IN]
    # A third of the elements of "data" and all of "one", which is -1: each of the former stands for three.
    of_data, of_one = (sample.weights[sample.values == value] for value in (1, -1))
    assert len(of_data) + len(of_one) == 2**16
    assert set(of_data.tolist()) == {1}
    assert of_one == pytest.approx(np.full(len(of_one), 1 / 3))
    assert of_data.sum() / of_one.sum() == pytest.approx(2, rel=0.05)
