"""Ranges: where they are read, as the original does and by default."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import Ranges
from ristretto_cli.scoring.calibrate import Probe, measure_ranges

# The first record is [3, -8]: with weight 2 and bias 1, "conv" gives [7, -15].
DATA = 'layer { name: "d" type: "Data" top: "data" data_param { source: "db" backend: LMDB batch_size: 1 } }'
CONV = """
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 1 kernel_size: 1 } }
"""
WEIGHTS = {"conv": [[[[[2]]]], [1]]}
IN_PLACE = 'layer { name: "%s" type: "%s" bottom: "conv" top: "conv" %s }'
RELU = IN_PLACE % ("relu", "ReLU", "")


def measure(
    workshop: Any,
    layers: str,
    weights: dict[str, Any],
    *,
    legacy: bool = False,
    iterations: int = 1,
    records: Any = ((3, -8),),
    names: tuple[str, ...] = ("conv",),
    phase: int = 1,
) -> dict[str, Ranges]:
    images = np.array(records, np.float32)
    workshop.database("db", images.reshape(len(images), 1, 1, -1))
    net = workshop.load(DATA + layers, weights, phase)
    rng = np.random.default_rng(0)
    return measure_ranges(net, frozenset(names), iterations, probe=Probe(legacy), rng=rng)


def out(workshop: Any, layers: str, weights: dict[str, Any] | None = None) -> tuple[float, float]:
    """The range of the top of "conv" by default, and as the original reads it."""
    default, legacy = (
        measure(workshop, layers, weights or WEIGHTS, legacy=legacy)["conv"].layer_out for legacy in (False, True)
    )
    return default, legacy


def test_ranges_of_a_convolution(workshop: Any) -> None:
    assert measure(workshop, CONV, WEIGHTS) == {
        # the mean square of the input is (9 + 64) / 2, and an output is the sum of one product
        "conv": Ranges(8.0, 15.0, 2.0, biases=(1.0,), input_energy=36.5)
    }


def test_the_original_reads_no_biases(workshop: Any) -> None:
    assert measure(workshop, CONV, WEIGHTS, legacy=True) == {"conv": Ranges(8.0, 15.0, 2.0)}


def test_input_energy_counts_all_products_of_an_output(workshop: Any) -> None:
    layers = """
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
                inner_product_param { num_output: 3 bias_term: false } }
    """
    ranges = measure(workshop, layers, {"ip": [[[1, 0], [0, 1], [1, 1]]]}, names=("ip",))["ip"]
    assert (ranges.layer_out, ranges.params, ranges.biases) == (8, 1, ())
    assert ranges.input_energy == 36.5 * 2


def test_input_energy_is_the_mean_over_the_batches(workshop: Any) -> None:
    # (1 + 9) / 2 and (16 + 0) / 2
    ranges = measure(workshop, CONV, WEIGHTS, records=((1, 3), (-4, 0)), iterations=2)["conv"]
    assert ranges.input_energy == 6.5


def test_the_largest_of_all_batches_counts(workshop: Any) -> None:
    records = ((1, 2), (-9, 0), (5, 5))
    assert measure(workshop, CONV, WEIGHTS, records=records, iterations=2)["conv"].layer_in == 9
    assert measure(workshop, CONV, WEIGHTS, records=records, iterations=1)["conv"].layer_in == 2


def test_what_a_layer_reads_of_a_concatenation_is_all_of_its_parts(workshop: Any) -> None:
    """conv makes [7, -15] of [3, -8]; joined with the data, and that with the ReLU of conv: 3, -8, 7, -15, 7, 0."""
    layers = (
        CONV
        + """
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }
        layer { name: "pair" type: "Concat" bottom: "data" bottom: "conv" top: "pair" }
        layer { name: "all" type: "Concat" bottom: "pair" bottom: "relu" top: "all" }
        layer { name: "last" type: "Convolution" bottom: "all" top: "last"
                convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
        """
    )
    weights = {**WEIGHTS, "last": [np.ones((1, 3, 1, 1))]}
    ranges = measure(workshop, layers, weights, names=("last",))["last"]
    squares = [9, 64, 49, 225, 49, 0]
    assert (ranges.layer_in, ranges.layer_out) == (15.0, 23.0)
    assert ranges.input_energy == pytest.approx(sum(squares) / 6 * 3)


def test_only_the_layers_requested_are_measured(workshop: Any) -> None:
    layers = CONV + CONV.replace('"conv"', '"other"')
    assert measure(workshop, layers, {**WEIGHTS, "other": WEIGHTS["conv"]}).keys() == {"conv"}


# --- the layers after it


def test_after_an_in_place_batch_norm_the_original_reads_its_output(workshop: Any) -> None:
    norm = IN_PLACE % ("norm", "BatchNorm", "batch_norm_param { eps: 0 }")
    # mean 7, variance 4: [7, -15] becomes [0, -11]
    weights = {**WEIGHTS, "norm": [[7], [4], [1]]}
    assert out(workshop, CONV + norm, weights) == (15, 11)


def test_after_in_place_batch_norm_scale_and_relu_the_original_reads_their_result(workshop: Any) -> None:
    norm = IN_PLACE % ("norm", "BatchNorm", "batch_norm_param { eps: 0 }")
    scale = IN_PLACE % ("scale", "Scale", "scale_param { bias_term: true }")
    # [7, -15] becomes [0, -11], then [0.25, -21.75], then [0.25, 0]
    weights = {**WEIGHTS, "norm": [[7], [4], [1]], "scale": [[2], [0.25]]}
    assert out(workshop, CONV + norm + scale + RELU, weights) == (15, 0.25)


def test_an_in_place_relu_hides_negative_values_from_both(workshop: Any) -> None:
    assert out(workshop, CONV + RELU) == (7, 7)


def test_what_only_a_relu_reads_has_no_negative_side(workshop: Any) -> None:
    relu = 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }'
    assert out(workshop, CONV + relu) == (7, 15)


@pytest.mark.parametrize("reader", ['type: "ReLU" relu_param { relu6: true }', 'type: "ReLU6"', 'type: "ReLU"'])
def test_what_a_relu_cuts_off_above_is_in_the_range(workshop: Any, reader: str) -> None:
    layers = CONV + 'layer { name: "relu" %s bottom: "conv" top: "y" }' % reader  # noqa: UP031  # braces in the text
    assert out(workshop, layers)[0] == 7.0


def test_a_concatenation_of_one_blob_is_that(workshop: Any) -> None:
    last = """
        layer { name: "cat" type: "Concat" bottom: "conv" top: "cat" }
        layer { name: "last" type: "Convolution" bottom: "cat" top: "last"
                convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
    """
    ranges = measure(workshop, CONV + last, {**WEIGHTS, "last": [[[[[1]]]]]}, names=("last",))
    assert ranges["last"].layer_in == 15.0


def test_a_leaky_relu_sees_negative_values(workshop: Any) -> None:
    leaky = IN_PLACE % ("relu", "ReLU", "relu_param { negative_slope: 0.5 }")
    assert out(workshop, CONV + leaky) == (15, 7.5)


def test_with_a_second_reader_besides_the_relu_negative_values_count(workshop: Any) -> None:
    readers = """
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }
        layer { name: "tanh" type: "TanH" bottom: "conv" top: "tanh" }
    """
    assert out(workshop, CONV + readers) == (15, 15)


def test_a_reader_of_what_an_in_place_layer_made_of_it_is_none_of_its_readers(workshop: Any) -> None:
    reader = 'layer { name: "tanh" type: "TanH" bottom: "conv" top: "tanh" }'
    assert out(workshop, CONV + RELU + reader) == (7, 7)


# --- what stands in front of it


def test_an_input_that_is_overwritten_later_is_read_as_the_layer_finds_it(workshop: Any) -> None:
    # "flat" is the memory of "data" under another name, so its ReLU changes "data" as well.
    rest = """
        layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
        layer { name: "relu" type: "ReLU" bottom: "flat" top: "flat" }
    """
    assert measure(workshop, CONV + rest, WEIGHTS)["conv"].layer_in == 8
    assert measure(workshop, CONV + rest, WEIGHTS, legacy=True)["conv"].layer_in == 3


def test_of_several_bottoms_the_original_reads_the_first(workshop: Any) -> None:
    layers = """
        layer { name: "ten" type: "Power" bottom: "data" top: "ten" power_param { scale: 10 } }
        layer { name: "conv" type: "Convolution" bottom: "data" bottom: "ten" top: "a" top: "b"
                convolution_param { num_output: 1 kernel_size: 1 } }
    """
    # "b" is 2 * [30, -80] + 1 = [61, -159]
    default = measure(workshop, layers, WEIGHTS)["conv"]
    assert (default.layer_in, default.layer_out) == (80, 159)
    legacy = measure(workshop, layers, WEIGHTS, legacy=True)["conv"]
    assert (legacy.layer_in, legacy.layer_out) == (8, 15)


def test_dropout_doubles_a_layers_input_only_in_phase_train(workshop: Any) -> None:
    layers = 'layer { name: "drop" type: "Dropout" bottom: "data" top: "dropped" }'
    layers += CONV.replace('bottom: "data"', 'bottom: "dropped"')
    records = [[8] * 64]  # of 64 values one at least is kept
    test = measure(workshop, layers, WEIGHTS, records=records)
    train = measure(workshop, layers, WEIGHTS, records=records, phase=TRAIN)
    assert (test["conv"].layer_in, train["conv"].layer_in) == (8, 16)


# --- values to be wary of


@pytest.mark.parametrize(
    ("records", "weights", "dead"),
    [(((0, 0),), [[[[[2]]]], [1]], "input is"), (((3, -8),), [[[[[0]]]], [1]], "weights are")],
)
def test_a_range_of_zero_is_warned_of(
    workshop: Any, caplog: pytest.LogCaptureFixture, records: Any, weights: Any, dead: str
) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    measure(workshop, CONV, {"conv": weights}, records=records)
    assert caplog.messages == [f'Layer "conv": its {dead} all zeros, so the range cannot be estimated.']


def test_an_output_of_zero_is_warned_of(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    measure(workshop, CONV + RELU, {"conv": [[[[[-1]]]], [-9]]}, records=((1, 2),))
    assert caplog.messages == ['Layer "conv": its output is all zeros, so the range cannot be estimated.']


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 63])
@pytest.mark.parametrize("legacy", [False, True])
def test_values_that_are_no_numbers_are_refused(workshop: Any, bad: float, place: int, legacy: bool) -> None:
    record = np.ones(64)
    record[place] = bad
    with pytest.raises(RistrettoError) as refused:
        measure(workshop, CONV, WEIGHTS, records=[record], legacy=legacy)
    assert str(refused.value) == (
        'net.prototxt:2: the input of layer "conv" has NaN or infinite values during calibration. '
        "Check the data, its scale and the weights."
    )


def test_a_layer_that_makes_infinite_values_is_named(workshop: Any) -> None:
    with pytest.raises(RistrettoError, match='the output of layer "conv" has NaN or infinite values'):
        measure(workshop, CONV, {"conv": [[[[[3e38]]]], [0]]})


def test_large_numbers_whose_squares_are_infinite_have_a_range(workshop: Any) -> None:
    assert measure(workshop, CONV, WEIGHTS, records=((1e30, -3e30),))["conv"].layer_in == np.float32(3e30)
