"""The net being trained: its parameters, their order, and the effect of a pass on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN

torch = pytest.importorskip("torch", reason="training needs torch")

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 1 dim: 2 } } }\n'
LOSS = 'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }\n'
DATA = {"x": np.arange(8, dtype=np.float32).reshape(2, 2, 1, 2)}


def train_net(workshop: Any, text: str, weights: Any = None, **settings: Any) -> Any:
    from ristretto_cli.train.trained_net import TrainNet

    net = workshop.load(INPUT + text + LOSS, weights, phase=TRAIN)
    return TrainNet(net, rng=np.random.default_rng(0), **settings)


def fc(name: str, bottom: str, top: str, params: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {params}'
        'inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }\n'
    )


def test_parameters_come_in_the_nets_order_with_their_multipliers(workshop: Any) -> None:
    net = train_net(
        workshop,
        fc("b", "x", "m", "param { lr_mult: 2 decay_mult: 0 } param { lr_mult: 0 } ") + fc("a", "m", "y"),
    )
    assert [(p.key, p.lr_mult, p.decay_mult) for p in net.learnables] == [
        ("b/0", 2, 0),
        ("b/1", 0, 1),
        ("a/0", 1, 1),
        ("a/1", 1, 1),
    ]
    net.forward_backward(DATA)
    assert [p.tensor.grad is not None for p in net.learnables] == [True, False, True, True]


def test_force_backward_brings_gradients_to_frozen_parameters_too(workshop: Any) -> None:
    net = train_net(workshop, fc("a", "x", "y", "param { lr_mult: 0 } "), force_backward=True)
    net.forward_backward(DATA)
    assert net.learnables[0].lr_mult == 0
    assert net.learnables[0].tensor.grad is not None


def test_a_shared_parameter_is_there_once_with_the_gradients_of_all_its_readers(workshop: Any) -> None:
    first, second = 'param { name: "w" } param { lr_mult: 0 } ', 'param { name: "w" lr_mult: 3 } param { lr_mult: 0 } '
    net = train_net(workshop, fc("a", "x", "m", first) + fc("b", "m", "y", second))
    assert [(p.key, p.lr_mult) for p in net.learnables] == [("a/0", 3), ("a/1", 0), ("b/1", 0)]
    net.set_weights({"a/0": np.eye(4, dtype=np.float32)})
    net.forward_backward(DATA)
    # by w, of the sum over w (w x): twice the sum over the batch, where w is the identity
    assert net.learnables[0].tensor.grad.tolist() == [[8, 12, 16, 20]] * 4


def test_gradients_add_up_until_they_are_cleared(workshop: Any) -> None:
    net = train_net(workshop, fc("a", "x", "y"))
    bias = net.learnables[1].tensor
    net.forward_backward(DATA)
    net.forward_backward(DATA)
    assert bias.grad.tolist() == [4, 4, 4, 4]
    net.clear_gradients()
    net.forward_backward(DATA)
    assert bias.grad.tolist() == [2, 2, 2, 2]


def test_statistics_of_batch_norm_are_no_weights_but_move_with_each_pass(workshop: Any) -> None:
    net = train_net(workshop, 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" }\n' + fc("a", "x", "z"))
    assert [(p.key, p.lr_mult, p.decay_mult) for p in net.learnables[:3]] == [
        ("bn/0", 0, 1),
        ("bn/1", 0, 1),
        ("bn/2", 0, 1),
    ]
    net.forward_backward(DATA)
    assert net.weights()["bn/0"].tolist() == [2.5, 4.5]  # means of 0, 1, 4, 5 and of 2, 3, 6, 7
    assert net.weights()["bn/1"].tolist() == pytest.approx([17 / 3, 17 / 3])
    assert net.weights()["bn/2"].tolist() == [1]
    net.forward(DATA)
    assert net.weights()["bn/2"].tolist() == [pytest.approx(1.999)]


def test_trimmed_layers_round_at_random_in_each_pass_and_keep_their_weights(workshop: Any) -> None:
    quantization = "quantization_param { bw_params: 8 fl_params: 0 bw_layer_in: 2 fl_layer_in: 0 }"
    text = (
        'layer { name: "a" type: "FcRistretto" bottom: "x" top: "y" '
        f"inner_product_param {{ num_output: 1 bias_term: false }} {quantization} }}\n"
    )
    net = train_net(workshop, text, {"a": [np.full((1, 4), 0.5)]})
    losses = [float(net.forward_backward(DATA).loss) for _ in range(20)]
    assert len(set(losses)) > 3
    assert all(loss == int(loss) for loss in losses)  # weights are 0 or 1
    assert net.weights()["a/0"].tolist() == [[0.5] * 4]
    # straight through: the sum of the batch, whatever the weights were rounded to
    assert (net.learnables[0].tensor.grad / 20).tolist() == [[4, 6, 8, 10]]


def test_outputs_have_their_loss_weights(workshop: Any) -> None:
    net = train_net(workshop, fc("a", "x", "y") + fc("b", "x", "z"))
    done = net.forward(DATA)
    assert [(output.blob, output.weight, len(output.numbers())) for output in done.outputs] == [
        ("loss", 1, 1),
        ("z", 0, 8),
    ]


def test_layers_that_share_statistics_move_them_one_after_the_other(workshop: Any) -> None:
    shared = " ".join(f'param {{ name: "s{i}" lr_mult: 0 }}' for i in range(3))
    layer = 'layer {{ name: "{0}" type: "BatchNorm" bottom: "{1}" top: "{2}" {3} batch_norm_param {{ {4} }} }}\n'
    half = "moving_average_fraction: 0.5"
    text = layer.format("a", "x", "m", shared, half) + layer.format("b", "x", "y", shared, half)
    text += 'layer { name: "quiet" type: "Silence" bottom: "m" }\n'
    net = train_net(workshop, text, {"a": [np.zeros(2), np.zeros(2), np.zeros(1)]})
    net.forward_backward(DATA)
    # a mean of 2.5 twice: half of it and itself; the factor likewise
    assert [net.weights()[f"a/{i}"].ravel().tolist() for i in (0, 2)] == [[3.75, 6.75], [1.5]]


def test_statistics_of_pspnets_bn_move_in_a_pass_and_its_slope_learns_unless_frozen(workshop: Any) -> None:
    layer = 'layer { name: "bn" type: "BN" bottom: "x" top: "y" bn_param { %s } }\n'
    net = train_net(workshop, layer % "momentum: 0.75")
    net.forward_backward(DATA)
    weights = {key: value.ravel().tolist() for key, value in net.weights().items()}
    # channel 0 is 0, 1, 4, 5: mean 2.5, variance 4.25; channel 1 has 2 more
    assert weights == {"bn/0": [1, 1], "bn/1": [0, 0], "bn/2": [0.625, 1.125], "bn/3": [1.0625, 1.0625]}
    assert [p.tensor.grad is not None for p in net.learnables] == [True, True, False, False]
    net = train_net(workshop, layer % "frozen: true")
    net.forward_backward(DATA)
    assert net.weights()["bn/3"].ravel().tolist() == [1, 1]
    assert [p.tensor.grad is not None for p in net.learnables] == [False] * 4
