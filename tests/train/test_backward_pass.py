"""One pass forward and backward: which gradients there are, and what they are at special places."""

import sys

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.cli.main import run
from ristretto_cli.errors import RistrettoError

FORCE = "force_backward: true\n"
DATA = """
    layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 } } }
    layer { name: "target" type: "Input" top: "t" input_param { shape { dim: 2 dim: 2 } } }
"""
FC = """
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" %s
            inner_product_param { num_output: 2 weight_filler { type: "constant" value: 0.5 } } }
"""
LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" %s }\n'
X, T = np.array([[1, 2], [3, 4]], np.float32), np.array([[1, 1], [1, 1]], np.float32)


@pytest.fixture
def gradients(workshop):
    """The results of a pass: text, and arrays for the Input layers by blob name."""
    pytest.importorskip("torch", reason="gradients need torch: pip install 'ristretto-cli[train]'")
    from ristretto_cli.train.backward_pass import Gradients

    def compute(text, **feeds):
        net = workshop.load(text, phase=TRAIN)
        arrays = {name: np.asarray(array, np.float32) for name, array in feeds.items()}
        return Gradients(net, rng=np.random.default_rng(0)).run(arrays)

    return compute


def test_the_gradients_of_a_net_that_can_be_followed_by_hand(gradients):
    found = gradients(DATA + FC % "" + LOSS % "loss_weight: 3", x=X, t=T)
    # y is 1.5 and 3.5; the gradient is 3 (y - t) / 2.
    assert found["loss"] == pytest.approx((0.5**2 + 2.5**2) / 2)
    assert found["@total_loss"] == pytest.approx(3 * found["loss"])
    assert found["diff:loss"] == 3
    assert found["diff:y"].tolist() == [[0.75, 0.75], [3.75, 3.75]]
    assert found["pdiff:fc/0"].tolist() == [[12, 16.5], [12, 16.5]]
    assert found["pdiff:fc/1"].tolist() == [4.5, 4.5]
    assert {key for key in found if key.startswith("diff:")} == {"diff:y", "diff:loss"}


def test_with_force_backward_inputs_have_gradients_too(gradients):
    found = gradients(FORCE + DATA + FC % "" + LOSS % "", x=X, t=T)
    assert found["diff:x"].tolist() == [[0.25, 0.25], [1.25, 1.25]]
    assert found["diff:t"].tolist() == [[-0.25, -0.25], [-1.25, -1.25]]


def test_a_parameter_that_is_not_trained_has_none_except_with_force_backward(gradients):
    frozen = DATA + FC % "param { lr_mult: 0 }" + LOSS % ""
    assert gradients(frozen, x=X, t=T)["pdiff:fc/0"].tolist() == [[0, 0], [0, 0]]
    assert gradients(FORCE + frozen, x=X, t=T)["pdiff:fc/0"].any()


def test_propagate_down_stops_the_gradient_but_with_force_backward(gradients):
    text = DATA + FC % "" + LOSS % "propagate_down: false propagate_down: false"
    found = gradients(text, x=X, t=T)
    assert not found["pdiff:fc/0"].any()
    assert "diff:y" not in found
    assert gradients(FORCE + text, x=X, t=T)["pdiff:fc/0"].any()


def test_a_blob_changed_in_place_has_the_gradient_in_front_of_its_first_layer(gradients):
    relu = 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" relu_param { negative_slope: 0.5 } }'
    found = gradients(DATA + FC % "" + relu + LOSS % "", x=-X, t=T)
    # y is -1.5 and -3.5, after it -0.75 and -1.75.
    assert found["y@fc"].tolist() == [[-1.5, -1.5], [-3.5, -3.5]]
    assert found["diff:y"].tolist() == [[-0.4375, -0.4375], [-0.6875, -0.6875]]


def test_each_top_of_a_split_has_a_gradient_of_its_own(gradients):
    split = """
        layer { name: "s" type: "Split" bottom: "x" top: "y" top: "z" }
        layer { name: "other" type: "EuclideanLoss" bottom: "z" bottom: "t" top: "other" loss_weight: 2 }
    """
    found = gradients(FORCE + DATA + split + LOSS % "", x=X, t=T)
    assert found["diff:y"].tolist() == [[0, 0.5], [1, 1.5]]
    assert found["diff:z"].tolist() == [[0, 1], [2, 3]]
    assert found["diff:x"].tolist() == [[0, 1.5], [3, 4.5]]


def test_blobs_that_no_loss_depends_on_have_none(gradients):
    unread = 'layer { name: "p" type: "Softmax" bottom: "y" top: "p" }'
    assert "diff:p" not in gradients(FORCE + DATA + FC % "" + unread + LOSS % "", x=X, t=T)


@pytest.mark.parametrize(
    ("kind", "feeds", "expected"),
    [
        ("EuclideanLoss", {"t": [[0.0], [0.0]]}, [[0], [0]]),
        # sigmoid(0) - target, over the batch
        ("SigmoidCrossEntropyLoss", {"t": [[1.0], [0.0]]}, [[-0.25], [0.25]]),
        ("SmoothL1Loss", {"t": [[1.0], [-0.5]]}, [[-0.5], [0.25]]),
        ("HingeLoss", {"t": [0.0, 0.0]}, [[-0.5], [-0.5]]),
        ("ContrastiveLoss", {"t": [[0.0], [0.0]], "s": [0.0, 0.0]}, [[0], [0]]),  # the distance is 0
    ],
)
def test_gradients_of_losses_at_0(gradients, kind, feeds, expected):
    inputs = {"x": np.zeros((2, 1)), **feeds}
    text = FORCE + "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{'
        + " ".join(f"dim: {extent}" for extent in np.shape(array))
        + " } } }\n"
        for name, array in inputs.items()
    )
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    found = gradients(text + f'layer {{ name: "loss" type: "{kind}" {bottoms} top: "loss" }}', **inputs)
    assert found["diff:x"].tolist() == expected


def test_a_probability_that_vanishes_still_pulls(gradients):
    text = """
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 1 } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "loss" }
    """
    found = gradients(text, x=[[0, 500]], t=[0])
    assert found["loss"] == pytest.approx(87.33655)  # -log(FLT_MIN)
    assert found["diff:x"].tolist() == [[-1, 1]]


def test_a_plane_without_variance_has_a_gradient(gradients):
    mvn = 'layer { name: "m" type: "MVN" bottom: "d" top: "y" mvn_param { eps: 0.5 } }'
    data = """
        layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 1 dim: 1 dim: 2 } } }
        layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 1 dim: 1 dim: 1 dim: 2 } } }
    """
    found = gradients(FORCE + data + mvn + LOSS % "", d=[[[[3, 3]]]], t=[[[[-1, 0]]]])
    assert found["diff:d"].tolist() == [[[[1, -1]]]]


def test_a_net_without_a_loss_is_refused(gradients):
    with pytest.raises(RistrettoError, match=r"^net\.prototxt: the net has no loss, so there are no gradients\. Add"):
        gradients(DATA + FC % "", x=X, t=T)


def test_without_torch_a_line_tells_what_to_install(workshop, capsys, monkeypatch):
    workshop.net(DATA + FC % "" + LOSS % "")
    np.savez("in.npz", x=X, t=T)
    monkeypatch.setitem(sys.modules, "torch", None)
    args = ["forward", "--backward", "--model=net.prototxt", "--input=in.npz", "--output=out.npz"]
    assert run([*args, "--allow_missing_weights"]) == 1
    assert "needs torch: pip install 'ristretto-cli[train]'" in capsys.readouterr().err


def test_blobs_chooses_gradients_too(workshop):
    pytest.importorskip("torch", reason="gradients need torch: pip install 'ristretto-cli[train]'")
    workshop.net(DATA + FC % "" + LOSS % "")
    np.savez("in.npz", x=X, t=T)
    args = ["forward", "--backward", "--model=net.prototxt", "--input=in.npz", "--output=out.npz", "--blobs=y"]
    assert run([*args, "--allow_missing_weights", "--phase=TRAIN"]) == 0
    assert set(read_npz("out.npz")) == {"y", "diff:y", "@total_loss", "pdiff:fc/0", "pdiff:fc/1"}
