"""BatchNorm as a correction: biases that its mean takes, and statistics that it matches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.corrections.batch_norm import (
    ChannelStatistics,
    absorb_biases,
    is_batch_norm,
    matched,
    normalizes,
)
from ristretto_cli.layers.batch_norm import stored_statistics
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.engine import compile_net

DATA = 'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 4 dim: 3 dim: 5 dim: 5 } } }\n'
FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
CONV = (
    'layer { name: "c" type: "Convolution" bottom: "in" top: "c" '
    f"convolution_param {{ num_output: 4 kernel_size: 2 {FILLERS} }} }}\n"
)
IN_PLACE = 'layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }\n'
APART = 'layer { name: "bn" type: "BatchNorm" bottom: "c" top: "n" }\n'


def load(workshop: Any, text: str) -> Net:
    """A net with statistics in its BatchNorm layers."""
    net = workshop.load(text)
    weights = dict(net.weights)
    rng = np.random.default_rng(5)
    for layer in net.layers:
        if layer.type == "BatchNorm":
            mean, variance, factor = layer.params
            weights[mean.key] = rng.normal(size=mean.shape).astype(np.float32) * 3
            weights[variance.key] = rng.uniform(1, 9, size=variance.shape).astype(np.float32)
            weights[factor.key] = np.full(factor.shape, 2.5, np.float32)
    return replace(net, weights=weights)


def outputs(net: Net, values: Any) -> dict[str, Any]:
    runner = compile_net(
        net, lambda run, ops: {each.name: run.final[each.name] for each in net.outputs}, rng=np.random.default_rng(0)
    )
    return runner.run({"in": values})


def position(net: Net, name: str) -> int:
    return next(i for i, layer in enumerate(net.layers) if layer.name == name)


@pytest.mark.parametrize("norm", [IN_PLACE, APART], ids=["in place", "apart"])
def test_biases_move_into_the_mean_and_outputs_stay(workshop: Any, norm: str) -> None:
    net = load(workshop, DATA + CONV + norm)
    assert normalizes(net, position(net, "c")) == position(net, "bn")
    changed = absorb_biases(net)
    assert set(changed) == {"c/1", "bn/0", "bn/1", "bn/2"}
    assert not changed["c/1"].any()
    values = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    before = outputs(net, values)
    after = outputs(replace(net, weights={**net.weights, **changed}), values)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-5)
    # A second time there is nothing to move.
    assert absorb_biases(replace(net, weights={**net.weights, **changed})) == {}


RELU = 'layer { name: "%s" type: "ReLU" bottom: "%s" top: "%s" }\n'
NOT_ALONE = {
    "a second reader": CONV + APART + RELU % ("r", "c", "r"),
    "a first reader": CONV + RELU % ("r", "c", "r") + APART,
    "a layer in place between": CONV + RELU % ("r", "c", "c") + IN_PLACE,
    "another name of the same storage": CONV + 'layer { name: "f" type: "Flatten" bottom: "c" top: "f" }\n' + APART,
    "statistics of the batch": CONV
    + 'layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param { use_global_stats: false } }\n',
    "no reader": CONV,
    "two BatchNorms": CONV + APART + APART.replace('"bn"', '"bn2"').replace('"n"', '"n2"'),
    "channels on another axis": (
        'layer { name: "c" type: "InnerProduct" bottom: "in" top: "c" '
        f"inner_product_param {{ num_output: 3 axis: 2 {FILLERS} }} }}\n"
    )
    + IN_PLACE,
}


@pytest.mark.parametrize("name", NOT_ALONE)
def test_a_batch_norm_must_be_the_only_reader(workshop: Any, name: str) -> None:
    net = load(workshop, DATA + NOT_ALONE[name])
    assert normalizes(net, position(net, "c")) is None
    assert absorb_biases(net) == {}


def test_later_readers_of_a_batch_norm_in_place_do_not_matter(workshop: Any) -> None:
    net = load(workshop, DATA + CONV + IN_PLACE + RELU % ("r", "c", "r") + RELU % ("s", "c", "s"))
    assert normalizes(net, position(net, "c")) == position(net, "bn")


def test_shared_parameters_stay(workshop: Any) -> None:
    named = 'param { name: "w" } param { name: "v" }'
    twice = CONV.replace("convolution_param", f"{named} convolution_param")
    other = twice.replace('"c"', '"d"')
    net = load(workshop, DATA + twice + other + IN_PLACE)
    assert absorb_biases(net) == {}


def test_only_batch_norms_with_stored_statistics_count(workshop: Any) -> None:
    net = load(workshop, DATA + CONV + IN_PLACE)
    assert [is_batch_norm(layer) for layer in net.layers] == [False, False, True]


@pytest.mark.parametrize("shape", [(6, 4, 3, 2), (6, 4)])
def test_matched_parameters_give_each_channel_the_mean_and_deviation_of_the_float_net(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    per_channel = (1, 4, *(1 for _ in shape[2:]))
    of_float, own = ChannelStatistics(), ChannelStatistics()
    floats = [rng.normal(size=shape).astype(np.float32) * 2 + 1 for _ in range(3)]
    # Scales far from 1 and means far from 0.
    scales = np.array([0.01, 1, 30, 400], np.float32).reshape(per_channel)
    quantized = [each * scales + rng.normal(size=shape).astype(np.float32) * scales * 0.1 + 7 for each in floats]
    for one, other in zip(floats, quantized, strict=True):
        of_float.add(one)
        own.add(other)
    params = [np.array([1, 2, 3, 4], np.float32), np.array([4, 1, 0.5, 9], np.float32), np.array([2], np.float32)]

    def normalized(batches: list[Any], params: Any) -> Any:
        mean, variance = (each.reshape(per_channel) for each in stored_statistics(params))
        return np.moveaxis((np.concatenate(batches) - mean) / np.sqrt(variance + 1e-5), 1, 0).reshape(4, -1)

    expected, found = normalized(floats, params), normalized(quantized, matched(params, 1e-5, of_float, own))
    np.testing.assert_allclose(found.mean(1), expected.mean(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.std(1), expected.std(1), rtol=1e-4)


def test_channels_without_variance_keep_their_scale_and_their_mean() -> None:
    of_float, own = ChannelStatistics(), ChannelStatistics()
    of_float.add(np.array([[1, 2, 0], [3, 2, 0]], np.float32))
    own.add(np.array([[5, 4, 0], [5, 6, 0]], np.float32))
    params = [np.zeros(3, np.float32), np.array([4, 4, 0], np.float32), np.ones(1, np.float32)]
    new = matched(params, 1e-5, of_float, own)
    mean, variance = stored_statistics(new)
    assert all(np.isfinite(each).all() for each in new)
    np.testing.assert_allclose(variance, [4, 4, 0], atol=1e-4)
    # (5 - mean) / 2 is the float net's mean, 1.
    np.testing.assert_allclose((np.array([5, 5, 0]) - mean) / np.sqrt(variance + 1e-5), [1, 1, 0], rtol=1e-4)


def test_a_factor_of_zero_gives_statistics_of_zero() -> None:
    mean, variance = stored_statistics([np.ones(2, np.float32), np.ones(2, np.float32), np.zeros(1, np.float32)])
    assert mean.tolist() == variance.tolist() == [0, 0]
