"""Scripts for pycaffe, with only their import changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ristretto_cli.pycaffe as caffe
from ristretto_cli.cli.main import run

DEPLOY = """
    name: "small"
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "uniform" min: -1 max: 1 } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
            inner_product_param { num_output: 5 weight_filler { type: "uniform" min: -1 max: 1 } } }
    layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.fixture
def files(workshop: Any) -> tuple[str, str]:
    model = workshop.net(DEPLOY, "deploy.prototxt")
    caffe.set_random_seed(5)
    caffe.Net(model, caffe.TEST).save("net.caffemodel")
    return model, "net.caffemodel"


@pytest.fixture
def image(workshop: Any) -> str:
    import cv2

    cv2.imwrite("image.png", np.random.default_rng(0).integers(0, 255, (9, 8, 3), np.uint8))
    return "image.png"


def test_the_classification_example(files: tuple[str, str], image: str) -> None:
    caffe.set_mode_cpu()
    net = caffe.Net(files[0], files[1], caffe.TEST)
    transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
    transformer.set_raw_scale("data", 255)
    transformer.set_channel_swap("data", (2, 1, 0))
    net.blobs["data"].reshape(1, 3, 6, 6)
    loaded = caffe.io.load_image(image)
    prepared = transformer.preprocess("data", loaded)
    net.blobs["data"].data[...] = prepared
    output = net.forward()
    probabilities = output["prob"][0]
    assert probabilities.shape == (5,)
    assert probabilities.sum() == pytest.approx(1)
    assert net.blobs["conv"].data.shape == (1, 4, 4, 4)
    np.savez("in.npz", data=prepared[None])
    text = Path(files[0]).read_text(encoding="utf-8").replace("dim: 2 dim: 3", "dim: 1 dim: 3")
    Path("one.prototxt").write_text(text, encoding="utf-8")
    args = ["--model", "one.prototxt", "--weights", files[1], "--input", "in.npz", "--output", "out.npz"]
    assert run(["forward", *args]) == 0
    assert (np.load("out.npz")["prob"][0] == probabilities).all()
    back = transformer.deprocess("data", prepared)
    assert back == pytest.approx(caffe.io.resize_image(loaded, (6, 6)), abs=1e-5)


def test_net_surgery_makes_a_fully_convolutional_net(files: tuple[str, str], workshop: Any) -> None:
    text = DEPLOY.replace('type: "InnerProduct"', 'type: "Convolution"').replace('"fc"', '"fc-conv"')
    text = text.replace("inner_product_param { num_output: 5", "convolution_param { num_output: 5 kernel_size: 2")
    net = caffe.Net(files[0], files[1], caffe.TEST)
    params = {name: (net.params[name][0].data, net.params[name][1].data) for name in ["fc"]}
    whole = caffe.Net(workshop.net(text, "conv.prototxt"), files[1], caffe.TEST)
    conv_params = {name: (whole.params[name][0].data, whole.params[name][1].data) for name in ["fc-conv"]}
    conv_params["fc-conv"][0].flat = params["fc"][0].flat
    conv_params["fc-conv"][1][...] = params["fc"][1]
    whole.save("conv.caffemodel")
    x = np.random.default_rng(1).normal(size=(2, 3, 6, 6)).astype(np.float32)
    net.blobs["data"].data[...] = x
    scores = net.forward()["prob"]
    assert whole.forward_all(data=x)["prob"].reshape(2, 5) == pytest.approx(scores, abs=1e-6)
    again = caffe.Net("conv.prototxt", caffe.TEST, weights="conv.caffemodel")
    again.blobs["data"].reshape(1, 3, 10, 12)
    again.reshape()
    assert again.blobs["prob"].data.shape == (1, 5, 3, 4)
    assert again.forward()["prob"].shape == (1, 5, 3, 4)


def test_blobs_keep_their_arrays_and_parts_of_a_pass_use_them(files: tuple[str, str]) -> None:
    net = caffe.Net(files[0], caffe.TEST, weights=files[1])
    view = net.blobs["prob"].data
    net.forward(data=np.ones((2, 3, 6, 6), np.float32))
    assert net.blobs["prob"].data is view
    whole = net.blobs["prob"].data.copy()
    net.blobs["fc"].data[...] = 0
    assert net.forward(start="prob")["prob"] == pytest.approx(0.2)
    assert net.forward(start="pool")["prob"] == pytest.approx(whole)
    assert list(net.forward(end="conv")) == ["conv"]
    assert (net.blobs["conv"].data < 0).any()
    assert (net.forward(end="relu", blobs=["data"])["conv"] >= 0).all()


def test_names_and_lists_are_pycaffes(files: tuple[str, str]) -> None:
    net = caffe.Net(files[0], files[1], caffe.TEST)
    assert net.inputs == ["data"]
    assert net.outputs == ["prob"]
    assert list(net.blobs) == ["data", "conv", "pool", "fc", "prob"]
    assert [(name, blobs[0].data.shape) for name, blobs in net.params.items()] == [
        ("conv", (4, 3, 3, 3)),
        ("fc", (5, 16)),
    ]
    assert net.layer_dict["conv"].type == "Convolution"
    assert net.top_names["relu"] == ["conv"]
    assert (net.blobs["data"].num, net.blobs["data"].channels, net.blobs["data"].height, net.blobs["fc"].width) == (
        2,
        3,
        6,
        1,
    )
    assert net.blobs["fc"].diff.shape == (2, 5)
    assert "Convolution" in caffe.layer_type_list()


def test_parameters_are_copied_from_files_and_nets(files: tuple[str, str]) -> None:
    caffe.set_random_seed(6)
    other = caffe.Net(files[0], caffe.TEST)
    known = caffe.Net(files[0], files[1], caffe.TEST)
    assert (other.params["fc"][0].data != known.params["fc"][0].data).any()
    other.copy_from(files[1])
    assert (other.params["fc"][0].data == known.params["fc"][0].data).all()
    other.params["fc"][0].data[...] = 3
    known.share_with(other)
    assert (known.params["fc"][0].data == 3).all()
    known.save_hdf5("net.h5")
    other.load_hdf5("net.h5")


def test_a_classifier_averages_ten_crops(files: tuple[str, str], image: str) -> None:
    classifier = caffe.Classifier(files[0], files[1], image_dims=(8, 8), raw_scale=255, channel_swap=(2, 1, 0))
    loaded = [caffe.io.load_image(image)] * 3
    scores = classifier.predict(loaded)
    assert scores.shape == (3, 5)
    assert scores.sum(1) == pytest.approx(1)
    centre = classifier.predict(loaded, oversample=False)
    assert (scores != centre).any()


def test_messages_and_arrays(workshop: Any) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    datum = caffe.io.array_to_datum(array, 4)
    parsed = caffe.proto.caffe_pb2.Datum()
    parsed.ParseFromString(datum.SerializeToString())
    assert (parsed.label, (caffe.io.datum_to_array(parsed) == array).all()) == (4, True)
    blob = caffe.io.array_to_blobproto(array.astype(np.float32))
    assert (caffe.io.blobproto_to_array(blob) == array).all()
    assert caffe.io.caffe_pb2.NetParameter is caffe.proto.caffe_pb2.NetParameter
    with pytest.raises(AttributeError, match="Nothing"):
        _ = caffe.proto.caffe_pb2.Nothing


def test_what_is_missing_says_so(files: tuple[str, str]) -> None:
    net = caffe.Net(files[0], files[1], caffe.TEST)
    with pytest.raises(RuntimeError, match="--backward"):
        net.backward()
    with pytest.raises(AttributeError, match=r"api\.train"):
        _ = caffe.SGDSolver
    with pytest.raises(TypeError, match="Net takes"):
        caffe.Net(files[0])
    with pytest.raises(ValueError, match="for all inputs"):
        net.forward(dat=np.zeros(1))
    with pytest.raises(ValueError, match="no layer"):
        net.forward(start="x")
