"""Nets in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli import api
from ristretto_cli.api import LayerInfo, Net, RistrettoError
from tests.conftest import IDENTITY, LABELS, NET, images

DEPLOY = """
    name: "small"
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 1 kernel_size: 3 } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "twice" type: "Power" bottom: "conv" top: "twice" power_param { scale: 2 } }
"""
WEIGHTS = {"conv": [np.full((1, 1, 3, 3), -1.0), [4.0]]}


@pytest.fixture
def net(workshop: Any) -> Net:
    return Net(workshop.net(DEPLOY), workshop.weights(WEIGHTS))


def test_public_names_exist() -> None:
    assert all(hasattr(api, name) for name in api.__all__)
    assert sorted(api.__all__) == api.__all__


def test_a_net_tells_its_layers_and_shapes(net: Net) -> None:
    assert net.name == "small"
    assert net.inputs == {"data": (2, 1, 4, 4)}
    assert net.outputs == {"twice": (2, 1, 2, 2)}
    assert net.layers[1] == LayerInfo("conv", "Convolution", ("data",), ("conv",))
    assert repr(net) == "<Net 'small': 4 layers, inputs data 2x1x4x4>"
    assert "<td>conv</td><td>Convolution</td>" in net._repr_html_()


def test_a_run_gives_outputs_and_keeps_all_blobs(net: Net) -> None:
    x = np.zeros((2, 1, 4, 4))
    x[1] = 1
    found = net.run({"data": x})
    assert {name: array[:, 0, 0, 0].tolist() for name, array in found.items()} == {"twice": [8, 0]}
    assert net.blobs["conv"][:, 0, 0, 0].tolist() == [4, 0]
    assert list(net.run({"data": x}, blobs=["conv"])) == ["conv"]


def test_changed_parameters_are_used_by_the_next_run_and_saved(net: Net, workshop: Any) -> None:
    x = np.ones((2, 1, 4, 4))
    assert net.run({"data": x})["twice"].max() == 0
    net.params["conv"][0][...] = 1
    net.params["conv"][1][0] = 0.5
    assert net.run({"data": x})["twice"].max() == 19
    net.save("changed.caffemodel")
    again = Net("net.prototxt", "changed.caffemodel")
    assert again.run({"data": x})["twice"].max() == 19


def test_inputs_take_other_shapes(net: Net) -> None:
    net.reshape({"data": (1, 1, 5, 7)})
    assert net.outputs == {"twice": (1, 1, 3, 5)}
    assert net.run({"data": np.zeros((1, 1, 5, 7))})["twice"].shape == (1, 1, 3, 5)
    assert Net("net.prototxt", input_shapes={"data": (1, 1, 3, 3)}).outputs == {"twice": (1, 1, 1, 1)}
    with pytest.raises(RistrettoError, match="kernel"):
        net.reshape({"data": (1, 1, 2, 2)})
    assert net.inputs == {"data": (1, 1, 5, 7)}
    with pytest.raises(RistrettoError, match="Did you mean data"):
        net.reshape({"dat": (1, 1, 5, 7)})


def test_a_shape_that_does_not_fit_the_parameters_is_refused(workshop: Any) -> None:
    text = (
        DEPLOY
        + 'layer { name: "fc" type: "InnerProduct" bottom: "twice" top: "fc" inner_product_param { num_output: 2 } }'
    )
    net = Net(workshop.net(text))
    with pytest.raises(RistrettoError, match=r'the parameters of layer "fc" \(InnerProduct\) have other shapes'):
        net.reshape({"data": (1, 1, 9, 9)})
    assert net.run({"data": np.zeros((2, 1, 4, 4))})["fc"].shape == (2, 2)


def test_data_layers_give_one_batch_after_another(workshop: Any) -> None:
    workshop.database("test_db", images(), LABELS)
    with Net(workshop.net(NET), workshop.weights(IDENTITY)) as net:
        assert [float(net.run()["accuracy"]) for _ in range(3)] == pytest.approx([0.8, 0.8, 0.8])
        first = net.blobs["label"].tolist()
        net.run()
        assert net.blobs["label"].tolist() != first


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "data"),
        ({"data": np.zeros((2, 1, 4, 5))}, "2x1x4x5"),
        ({"data": np.zeros((2, 1, 4, 4)), "other": np.zeros(1)}, "other"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(net: Net, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(RistrettoError, match=message):
        net.run(arrays)


def test_unknown_blobs_and_phases_are_refused(net: Net) -> None:
    with pytest.raises(RistrettoError, match="Did you mean conv"):
        net.run({"data": np.zeros((2, 1, 4, 4))}, blobs=["cnv"])
    with pytest.raises(RistrettoError, match="TEST or TRAIN"):
        Net("net.prototxt", phase="test")


def test_importing_the_package_does_nothing(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, ristretto_cli; loaded = {name.partition('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'numpy', 'cv2', 'onnxruntime', 'google'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"
