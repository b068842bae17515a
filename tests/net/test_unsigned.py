"""Unsigned activations in quantized nets: what they become, in scoring and in training."""

from dataclasses import replace

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.forward import forward

FC = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }
    layer { name: "fc" type: "FcRistretto" bottom: "x" top: "y"
            inner_product_param { num_output: 4 bias_term: false }
            quantization_param { trim_params: false %s } }
"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "y" top: "z" }'
X = [[1.6, 7.4, -3, 99]]


def identity(net):
    return replace(net, weights={"fc/0": np.eye(4, dtype=np.float32)})


@pytest.mark.parametrize(
    ("side", "other"), [("layer_in", "trim_layer_out: false"), ("layer_out", "trim_layer_in: false")]
)
def test_unsigned_values_reach_twice_as_far_and_saturate_at_0(nets, run, side, other):
    net = identity(nets.build(FC % f"bw_{side}: 4 fl_{side}: 1 unsigned_{side}: true {other}"))
    assert run(net, {"x": X}).end("y") == [[1.5, 7.5, 0, 7.5]]


def test_rounding_before_a_relu_without_a_sign_changes_nothing_after_it(nets, run):
    found = []
    for settings in ("bw_layer_out: 4 unsigned_layer_out: true", "bw_layer_out: 5"):
        text = FC % f"trim_layer_in: false fl_layer_out: 1 {settings}"
        found.append(run(identity(nets.build(text + RELU)), {"x": [[1.6, -0.2, -3, 99]]}).end("z"))
    assert found[0] == found[1] == [[1.5, 0, 0, 7.5]]


def test_a_width_that_float32_cannot_hold_is_refused(nets):
    nets.build(FC % "bw_layer_in: 127 unsigned_layer_in: true")
    with pytest.raises(RistrettoError, match="a width of 128 bits is out of range without a sign"):
        nets.build(FC % "bw_layer_in: 128 unsigned_layer_in: true")


def test_training_rounds_to_the_unsigned_format_and_has_no_gradient_beyond_its_ends(nets):
    torch = pytest.importorskip("torch")
    from ristretto_cli.backends.torch_ops import TorchOps

    net = identity(
        nets.build(FC % "bw_layer_in: 4 fl_layer_in: 1 unsigned_layer_in: true trim_layer_out: false", TRAIN)
    )
    x = torch.tensor(X, requires_grad=True)
    rng = np.random.default_rng(0)
    result = forward(net, TorchOps(rng), {"x": x}, rng=rng, trim_activations=True)
    result.final["y"].sum().backward()
    assert result.final["y"].tolist() == [[1.5, 7.5, 0, 7.5]]
    assert x.grad.tolist() == [[1, 1, 0, 0]]
