"""The walk through a net: where values are trimmed, and who sees it."""

from dataclasses import replace

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.net.weights import fill_weights

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }\n'
# Its bottom is quantized to integers, its weights (all 1) and its top are not touched by 24 bits.
TRIM = """layer { name: "%s" type: "FcRistretto" bottom: "%s" top: "%s"
  inner_product_param { num_output: 1 bias_term: false weight_filler { value: 1 } }
  quantization_param { bw_layer_in: 8 fl_layer_in: 0 bw_params: 24 bw_layer_out: 24 fl_layer_out: 10 } }
"""
# A layer that reads a blob and copies it.
READER = 'layer { name: "%s" type: "Power" bottom: "%s" top: "%s" power_param { scale: 1.0 shift: 100 } }\n'
X = {"x": [[0.75, 2.25]]}  # trimmed: 1 and 2


def filled(net):
    return fill_weights(net, rng=np.random.default_rng(0))


def fc(quantization, *, outputs=1, more=""):
    """A net of one FcRistretto, named fc, from x (1, 2) to y."""
    return f"""{INPUT}
    layer {{ name: "fc" type: "FcRistretto" bottom: "x" top: "y" {more}
      inner_product_param {{ num_output: {outputs} }} quantization_param {{ {quantization} }} }}
    """


def test_a_bottom_is_trimmed_in_place_so_that_later_readers_see_it(nets, run):
    net = filled(
        nets.build(INPUT + READER % ("before", "x", "a") + TRIM % ("fc", "x", "y") + READER % ("after", "x", "b"))
    )
    result = run(net, X)
    assert result.end("y") == [[3]]
    assert result.end("x") == [[1, 2]]
    assert result.end("a") == [[100.75, 102.25]]
    assert result.end("b") == [[101, 102]]


def test_a_bottom_is_kept_as_it_was_found(nets, run):
    result = run(filled(nets.build(INPUT + TRIM % ("fc", "x", "y"))), X)
    assert result.read("fc") == [[0.75, 2.25]]
    assert result.written("in") == [[0.75, 2.25]]
    assert result.written("fc") == [[3]]


ALIASES = {
    "Flatten": 'layer { name: "alias" type: "Flatten" bottom: "x" top: "f" }',
    "Reshape": 'layer { name: "alias" type: "Reshape" bottom: "x" top: "f" reshape_param { shape { dim: 1 dim: 2 } } }',
    "Split": 'layer { name: "alias" type: "Split" bottom: "x" top: "f" top: "g" }',
    "Concat of one": 'layer { name: "alias" type: "Concat" bottom: "x" top: "f" }',
    "Slice into one": 'layer { name: "alias" type: "Slice" bottom: "x" top: "f" }',
}
COPIES = {
    "Concat of two": 'layer { name: "copy" type: "Concat" bottom: "x" bottom: "x" top: "f" }',
    "Dropout": 'layer { name: "copy" type: "Dropout" bottom: "x" top: "f" }',
    "Power": 'layer { name: "copy" type: "Power" bottom: "x" top: "f" }',
}


@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
def test_a_trim_reaches_every_alias_of_its_blob(nets, run, alias):
    net = filled(nets.build(INPUT + alias + TRIM % ("fc", "f", "y") + READER % ("after", "x", "b")))
    result = run(net, X)
    assert result.end("b") == [[101, 102]]
    assert result.end("x") == [[1, 2]]


@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
def test_a_trim_of_a_blob_reaches_its_aliases(nets, run, alias):
    net = filled(nets.build(INPUT + alias + TRIM % ("fc", "x", "y") + READER % ("after", "f", "b")))
    assert np.ravel(run(net, X).end("b")).tolist() == [101, 102]


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_trim_does_not_reach_copies(nets, run, copy):
    net = filled(nets.build(INPUT + copy + TRIM % ("fc", "f", "y") + READER % ("after", "x", "b")))
    assert run(net, X).end("b") == [[100.75, 102.25]]


def test_an_alias_of_another_shape_sees_the_trim_in_its_own_shape(nets, run):
    reshape = 'layer { name: "r" type: "Reshape" bottom: "x" top: "f" reshape_param { shape { dim: 2 dim: 1 } } }\n'
    net = filled(nets.build(INPUT + reshape + TRIM % ("fc", "x", "y") + READER % ("after", "f", "b")))
    assert run(net, X).end("b") == [[101], [102]]


def test_each_trim_of_a_shared_blob_acts_on_what_the_one_before_left(nets, run):
    coarse = (TRIM % ("coarse", "x", "a")).replace("fl_layer_in: 0", "fl_layer_in: -1")  # steps of 2
    net = filled(nets.build(INPUT + TRIM % ("fine", "x", "y") + coarse))
    result = run(net, {"x": [[2.75, 0.75]]})
    assert result.end("y") == [[4]]  # 3 + 1
    assert result.end("a") == [[4]]  # 3 and 1 are ties between multiples of 2, 2.75 and 0.75 would be 2 and 0
    assert result.end("x") == [[4, 0]]


def test_the_top_is_trimmed_before_an_in_place_layer_after_it(nets, run):
    text = (
        fc("bw_layer_out: 8 fl_layer_out: 0")
        + 'layer { name: "p" type: "Power" bottom: "y" top: "y" power_param { scale: 0.5 } }'
    )
    net = replace(nets.build(text), weights={"fc/0": np.ones((1, 2), np.float32), "fc/1": np.zeros(1, np.float32)})
    result = run(net, X)
    assert result.written("fc") == [[3]]
    assert result.end("y") == [[1.5]]  # 3.0 / 2: not trimmed again


def with_weights(net, weights, bias):
    arrays = {"fc/0": np.asarray(weights, np.float32), "fc/1": np.asarray(bias, np.float32)}
    return replace(net, weights=arrays)


def test_fixed_point_trims_weights_and_bias_in_the_weights_format(nets, run):
    net = with_weights(nets.build(fc("bw_params: 4 fl_params: 1")), [[0.8, 9]], [0.3])
    # Steps of 1/2 up to 3.5: the weights become 1 and 3.5, the bias 0.5.
    assert run(net, {"x": [[1, 1]]}).end("y") == [[5]]


def test_biases_with_a_format_of_their_own_are_trimmed_to_it(nets, run):
    net = with_weights(nets.build(fc("bw_params: 4 fl_params: 1 bw_bias: 16 fl_bias: 3")), [[0.8, 9]], [0.3])
    # The weights become 1 and 3.5 as before; with steps of 1/8 the bias is 0.25.
    assert run(net, {"x": [[1, 1]]}).end("y") == [[4.75]]


def test_minifloat_trims_the_bias_as_well(nets, run):
    net = with_weights(nets.build(fc("precision: MINIFLOAT mant_bits: 2 exp_bits: 4")), [[1.1, 0]], [0.3])
    # 1.1 becomes 1, 0.3 becomes 0.3125.
    assert run(net, {"x": [[1, 1]]}).end("y") == [[1.25]]  # 1.3125 is a tie


def test_powers_of_two_leave_the_bias_unchanged_and_have_no_zero_weight(nets, run):
    net = with_weights(nets.build(fc("precision: INTEGER_POWER_OF_2_WEIGHTS")), [[0.3, 0]], [0.8125])
    assert run(net, {"x": [[1, 1]]}).end("y") == [[0.8125 + 0.25 + 2**-8]]


def test_training_rounds_biases_at_random_in_their_own_format(nets, run):
    net = nets.build(fc("bw_params: 8 fl_params: 0 bw_bias: 8 fl_bias: 1", outputs=1000), TRAIN)
    net = with_weights(net, np.zeros((1000, 2)), np.full(1000, 0.75))
    (found,) = run(net, {"x": [[1, 1]]}).end("y")
    assert set(np.float32(found).tolist()) == {0.5, 1.0}


def test_training_trims_weights_and_bias_at_random_and_no_activations(nets, run):
    net = nets.build(fc("bw_layer_in: 1 bw_layer_out: 1 bw_params: 8 fl_params: 0", outputs=1000), TRAIN)
    net = with_weights(net, np.full((1000, 2), [0.25, 0]), np.full(1000, 7))
    (found,) = run(net, {"x": [[0.4, 1]]}).end("y")
    # A weight of 0.25 becomes 0 or 1; the input 0.4 and the output stay as they are.
    assert set(np.float32(found).tolist()) == {7, float(np.float32(7.4))}
    assert 0.15 < np.mean(np.float32(found) > 7) < 0.35


def test_the_rounding_of_weights_in_training_follows_the_given_generator(nets, run):
    net = with_weights(nets.build(fc("fl_params: 0", outputs=100), TRAIN), np.full((100, 2), 0.5), np.zeros(100))
    first, again, other = (run(net, {"x": [[1, 1]]}, seed).end("y") for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_weights_are_rounded_to_nearest_in_test(nets, run):
    net = with_weights(nets.build(fc("fl_params: 0", outputs=100)), np.full((100, 2), 0.25), np.zeros(100))
    assert run(net, {"x": [[1, 1]]}).end("y") == [[0] * 100]


def test_weights_are_rounded_stochastically_in_test_where_the_scheme_says_so(nets, run):
    text = fc("fl_params: 0 rounding_scheme: STOCHASTIC", outputs=1000)
    net = with_weights(nets.build(text), np.tile([0.25, 0], (1000, 1)), np.zeros(1000))
    assert 0.15 < np.mean(run(net, {"x": [[1, 1]]}).end("y")) < 0.35


def test_the_phase_of_the_layer_counts_where_it_has_one(nets, run):
    for phase, own, expected in [(TEST, "TRAIN", [[3]]), (TRAIN, "TEST", [[0]])]:
        net = nets.build(fc("bw_layer_in: 1 fl_params: 0", more=f"phase: {own}"), phase)
        assert run(with_weights(net, [[1, 2]], [0]), {"x": [[1, 1]]}).end("y") == expected


def test_float_weights_go_in_as_they_are(nets, run):
    net = nets.build(
        INPUT + 'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }'
    )
    assert run(with_weights(net, [[0.8, 9]], [0.25]), {"x": [[1, 1]]}).end("y") == [[np.float32(10.05)]]


def test_losses_are_summed_with_their_weights(nets, run):
    power = 'layer { name: "%s" type: "Power" bottom: "x" top: "%s" loss_weight: %s }\n'
    net = nets.build(INPUT + power % ("a", "a", 2) + power % ("b", "b", -0.5) + power % ("c", "c", 0))
    assert run(net, X).loss == 4.5  # 2 * 3 - 0.5 * 3


def test_a_net_without_losses_has_no_loss(nets, run):
    assert run(nets.build(INPUT + READER % ("a", "x", "a")), X).loss is None


def test_updates_of_the_pass_have_the_parameters_keys(nets, run):
    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 } } }'
    text += 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "x" }'
    values = {"x": [[1], [3]]}
    training = filled(nets.build(text, TRAIN))
    # mean 2, variance 1, which as an estimate is 2 (one degree of freedom)
    assert run(training, values).updates == {"bn/0": [2], "bn/1": [2], "bn/2": [1]}
    assert run(filled(nets.build(text, TEST)), values).updates == {}


def test_what_is_not_to_be_trimmed_is_left_unchanged(nets, run):
    formats = "bw_layer_in: 4 fl_layer_in: 0 bw_params: 4 fl_params: 1 bw_layer_out: 4 fl_layer_out: 0"
    x = {"x": [[1.25, 0]]}

    def result(left: str) -> list[list[float]]:
        net = with_weights(nets.build(fc(f"{formats} {left}")), [[0.8, 0]], [0])
        return run(net, x).end("y")

    assert result("") == [[1]]  # 1 * 1
    assert result("trim_layer_out: false") == [[1]]
    assert result("trim_layer_in: false trim_layer_out: false") == [[1.25]]
    assert result("trim_layer_in: false trim_params: false trim_layer_out: false") == [[1.0]]  # 1.25 * 0.8
    assert result("trim_params: false trim_layer_out: false") == [[np.float32(0.8)]]
