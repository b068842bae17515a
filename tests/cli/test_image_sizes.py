"""Images of different sizes in the commands: fully convolutional nets, --input_shape, and layers after a Filter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.npz import read_npz, write_npz
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.cli.main import run

SIZES = [(8, 8), (8, 12), (10, 6), (9, 9)]
DATA = """
    layer { name: "d" type: "Data" top: "data" transform_param { scale: 0.01 mean_value: 100 }
            data_param { source: "im" backend: LMDB batch_size: 1 } }
    layer { name: "m" type: "Data" top: "map" data_param { source: "lb" backend: LMDB batch_size: 1 } }
"""
BODY = """
    layer { name: "c" type: "Convolution" bottom: "data" top: "c"
            convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 } }
    layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
    layer { name: "s" type: "Convolution" bottom: "c" top: "s" convolution_param { num_output: 2 kernel_size: 1 } }
    layer { name: "up" type: "Deconvolution" bottom: "s" top: "up"
            convolution_param { num_output: 2 group: 2 kernel_size: 2 stride: 2 bias_term: false } }
    layer { name: "cut" type: "Crop" bottom: "up" bottom: "data" top: "cut" crop_param { axis: 2 offset: 0 } }
"""
HEADS = """
    layer { name: "acc" type: "Accuracy" bottom: "cut" bottom: "map" top: "acc" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "cut" bottom: "map" top: "loss" }
"""
SOLVER = """
    net: "n.prototxt" base_lr: %s lr_policy: "fixed" display: 1 max_iter: 5 test_iter: 4 test_interval: 5
    test_initialization: false snapshot_after_train: false
"""
FILES = ["--model=n.prototxt", "--weights=net.caffemodel"]
QUANTIZE = ["quantize", *FILES, "--trimming_mode=dynamic_fixed_point", "--model_quantized=q.prototxt"]


def write_db(name: str, arrays: Any) -> None:
    with lmdb.open(name, map_size=1 << 22) as environment, environment.begin(write=True) as view:
        for i, array in enumerate(arrays):
            channels, height, width = array.shape
            datum = new("Datum", channels=channels, height=height, width=width, data=array.tobytes())
            view.put(b"%08d" % i, datum.SerializeToString())


class Fcn:
    """A fully convolutional net with images and label maps of different sizes, in the current folder."""

    def __init__(self, workshop: Any) -> None:
        rng = np.random.default_rng(28)
        self.images = [rng.integers(0, 256, (3, *size), np.uint8) for size in SIZES]
        self.maps = [rng.integers(0, 2, (1, *size), np.uint8) for size in SIZES]
        write_db("im", self.images)
        write_db("lb", self.maps)
        workshop.net(DATA + BODY + HEADS, "n.prototxt")
        self.first, self.second = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(2, 4, 1, 1))
        self.biases = [rng.normal(size=4), rng.normal(size=2)]
        workshop.weights(
            {
                "c": [self.first, self.biases[0]],
                "s": [self.second, self.biases[1]],
                "up": [np.ones((2, 1, 2, 2))],
            }
        )
        rounded = [array.astype(np.float32).astype(np.float64) for array in (self.first, self.second, *self.biases)]
        self.first, self.second, *self.biases = rounded

    def scores(self, image: Any) -> Any:
        """The scores (2, H, W) of an image, in float64 by numpy alone."""
        x = (image.astype(np.float32) - np.float32(100)) * np.float32(0.01)
        padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
        c = np.maximum(np.einsum("chwij,ocij->ohw", windows, self.first) + self.biases[0][:, None, None], 0)
        s = np.einsum("chw,oc->ohw", c, self.second[:, :, 0, 0]) + self.biases[1][:, None, None]
        return s.repeat(2, 1).repeat(2, 2)[:, : x.shape[1], : x.shape[2]]

    def accuracies(self) -> list[float]:
        pairs = zip(self.images, self.maps, strict=True)
        return [float((self.scores(image).argmax(0) == labels[0]).mean()) for image, labels in pairs]

    def losses(self) -> list[float]:
        found = []
        for image, labels in zip(self.images, self.maps, strict=True):
            scores = self.scores(image)
            log_p = scores - np.log(np.exp(scores).sum(0))
            found.append(float(-np.take_along_axis(log_p, labels.astype(int), 0).mean()))
        return found


@pytest.fixture
def fcn(workshop: Any) -> Fcn:
    return Fcn(workshop)


def test_test_scores_images_of_different_sizes(fcn: Fcn) -> None:
    assert run(["test", *FILES, "--iterations=4", "--json=t.json"]) == 0
    found = json.loads(Path("t.json").read_text())["outputs"]
    assert found["acc"] == [pytest.approx(np.mean(fcn.accuracies()), rel=1e-6)]
    assert found["loss"] == [pytest.approx(np.mean(fcn.losses()), rel=1e-6)]


@pytest.mark.parametrize("mode", ["dynamic_fixed_point", "minifloat", "integer_power_of_2_weights"])
def test_quantize_measures_and_scores_images_of_different_sizes(mode: str, fcn: Fcn) -> None:
    flags = [f"--trimming_mode={mode}", "--iterations=4", "--calibration_iterations=4", "--json=q.json"]
    assert run([*QUANTIZE[:-2], *flags, "--model_quantized=q.prototxt", "--error_margin=10"]) == 0
    result = json.loads(Path("q.json").read_text())
    assert result["baseline"]["score"] == pytest.approx(np.mean(fcn.accuracies()), rel=1e-6)
    for graph in ("fast", "plain"):
        assert run(["test", "--model=q.prototxt", FILES[1], "--iterations=4", "--json=t.json", f"--graph={graph}"]) == 0
        found = json.loads(Path("t.json").read_text())["outputs"]["acc"][0]
        assert found == pytest.approx(result["combined"]["score"], rel=1e-6)
    trimmed = [layer for layer in read_net("q.prototxt").message.layer if layer.type.endswith("Ristretto")]
    assert [layer.name for layer in trimmed] == ["c", "s"]


def test_formats_hold_the_largest_values_of_all_images(fcn: Fcn) -> None:
    # The last image, of a size of its own, has the largest values.
    brightest = np.full((3, 4, 5), 255, np.uint8)
    write_db("im", [*(image // 32 for image in fcn.images[:3]), brightest])
    write_db("lb", [*fcn.maps[:3], np.zeros((1, 4, 5), np.uint8)])
    Path("n.prototxt").write_text((DATA + BODY + HEADS).replace(" mean_value: 100", ""))
    flags = ["--iterations=1", "--bw=layer=8", "--fl_layer=original"]
    for count, length in ((3, -3), (4, 2)):  # up to 7 and 255, times 0.01
        assert run([*QUANTIZE, *flags, f"--calibration_iterations={count}"]) == 0
        quantized = read_net("q.prototxt").message.layer[2].quantization_param
        assert 8 - quantized.fl_layer_in == length


def test_other_searches_work_on_images_of_different_sizes(fcn: Fcn) -> None:
    assert run([*QUANTIZE, "--iterations=4", "--score=sqnr:cut", "--min_sqnr=20", "--json=q.json"]) == 0
    ratio = json.loads(Path("q.json").read_text())["combined"]["score"]
    assert ratio > 20
    assert run(["test", "--model=q.prototxt", FILES[1], "--against=n.prototxt", "--iterations=4", "--json=t.json"]) == 0
    outputs = json.loads(Path("t.json").read_text())["outputs"]
    assert outputs["sqnr:cut"] == [pytest.approx(ratio)]
    assert run([*QUANTIZE, "--iterations=2", "--search=layers", "--early_stop", "--bw=layer=8", "--json=q.json"]) == 0
    assert run([*QUANTIZE, "--iterations=2", "--legacy", "--bit_widths=8"]) == 0


@pytest.mark.parametrize("flags", [["--weights_quantized=w.caffemodel"], ["--fl_layer=kl"]])
def test_corrections_need_batches_of_one_shape(flags: list[str], fcn: Fcn, capsys: Any) -> None:
    assert run([*QUANTIZE, "--iterations=1", "--bw=conv_params=8,layer=8", *flags]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ristretto: n.prototxt: corrections (--weights_quantized, --fl_layer kl) need batches of one shape. Omit them, "
        "or use images of one size, such as with crop_size."
    )


def test_train_takes_the_size_of_each_image(fcn: Fcn, workshop: Any, capsys: Any) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    workshop.net(SOLVER % 0, "s.prototxt")
    assert run(["train", "--solver=s.prototxt", FILES[1]]) == 0
    log = capsys.readouterr().err
    found = [float(loss) for loss in re.findall(r"Iteration \d \(.*, loss = (\S+)", log)]
    expected = fcn.losses()
    assert found == pytest.approx([*expected, expected[0]], rel=1e-5)
    assert f"Test net output #0: acc = {np.mean(fcn.accuracies()):g}" in log


def test_training_follows_the_gradients_of_each_image(fcn: Fcn, workshop: Any) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")
    functional = torch.nn.functional
    solver = SOLVER.replace("snapshot_after_train: false", 'snapshot: 5 snapshot_prefix: "t"')
    workshop.net(solver % 0.1, "s.prototxt")
    assert run(["train", "--solver=s.prototxt", FILES[1]]) == 0
    arrays = (fcn.first, fcn.biases[0], fcn.second, fcn.biases[1], np.ones((2, 1, 2, 2)))
    values = [torch.tensor(array).requires_grad_() for array in arrays]
    for i in (0, 1, 2, 3, 0):
        x = (torch.tensor(fcn.images[i].astype(np.float64)) - 100) * 0.01
        c = functional.relu(functional.conv2d(x[None], values[0], values[1], stride=2, padding=1))
        s = functional.conv2d(c, values[2], values[3])
        up = functional.conv_transpose2d(s, values[4], stride=2, groups=2)[:, :, : x.shape[1], : x.shape[2]]
        labels = torch.tensor(fcn.maps[i].astype(np.int64))
        gradients = torch.autograd.grad(functional.cross_entropy(up, labels), values)
        with torch.no_grad():
            for value, gradient in zip(values, gradients, strict=True):
                value -= 0.1 * gradient
    trained = read_weights("t_iter_5.caffemodel").layers
    found = [*trained["c"], *trained["s"], *trained["up"]]
    for blob, value in zip(found, values, strict=True):
        np.testing.assert_allclose(blob.array, value.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_extracted_features_have_the_size_of_each_image(fcn: Fcn, capsys: Any) -> None:
    args = ["extract_features", "net.caffemodel", "n.prototxt", "cut,acc", "f,acc.npz", "5", "lmdb"]
    assert run(args) == 0
    assert capsys.readouterr().out.splitlines() == ["f: cut 5x2x?x?", "acc.npz: acc 5"]
    with lmdb.open("f", readonly=True, lock=False) as environment, environment.begin() as view:
        datums = [new("Datum").FromString(value) for _, value in view.cursor()]
    for datum, image in zip(datums, [*fcn.images, fcn.images[0]], strict=True):
        expected = fcn.scores(image)
        assert (datum.channels, datum.height, datum.width) == expected.shape
        np.testing.assert_allclose(np.reshape(datum.float_data, expected.shape), expected, rtol=1e-4, atol=1e-4)
    assert read_npz("acc.npz")["acc"].tolist() == pytest.approx([*fcn.accuracies(), fcn.accuracies()[0]])


def test_extracted_features_of_different_sizes_are_no_array(fcn: Fcn, capsys: Any) -> None:
    assert run(["extract_features", "net.caffemodel", "n.prototxt", "cut", "f.npz", "2", "lmdb"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'ristretto: f.npz: the blob "cut" is 2x8x12 for an image, but 2x8x8 for the first, so they do not fit one '
        "array. Use a target that does not end in .npz."
    )
    assert not Path("f.npz").exists()


INPUT = 'layer { name: "i" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
FORWARD = ["forward", "--model=deploy.prototxt", FILES[1], "--input=in.npz", "--output=out.npz"]


def test_an_input_gets_another_shape_from_the_command_line(fcn: Fcn, workshop: Any) -> None:
    workshop.net(INPUT + BODY, "deploy.prototxt")
    scaled = [((image.astype(np.float32) - 100) * np.float32(0.01)) for image in fcn.images]
    write_npz("in.npz", {"data": scaled[1][None]})
    assert run([*FORWARD, "--input_shape=data=1,3,8,12"]) == 0
    np.testing.assert_allclose(read_npz("out.npz")["cut"][0], fcn.scores(fcn.images[1]), rtol=1e-4, atol=1e-4)
    write_npz("in.npz", {"data": np.stack([scaled[2], scaled[2] / 2, scaled[2]])})
    test = ["test", "--model=deploy.prototxt", FILES[1], "--input=in.npz", "--json=t.json"]
    assert run([*test, "--input_shape", "data=3,3,10,6"]) == 0
    means = np.reshape(json.loads(Path("t.json").read_text())["outputs"]["cut"], (3, 2, 10, 6))
    np.testing.assert_allclose(means[2], fcn.scores(fcn.images[2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ([], 1, 'input "data" has shape 1x3x8x12; expected 1x3x8x8. For another size use --input_shape '
         "data=1,3,8,12."),
        (["--input_shape=data=1,3,9,9"], 1, 'input "data" has shape 1x3x8x12; expected 1x3x9x9. For another size use '
         "--input_shape data=1,3,8,12."),
        (["--input_shape=dat=1,3,8,12"], 1, 'deploy.prototxt: --input_shape: "dat" is not an input of the net. Did you '
         "mean data?"),
        (["--input_shape=data=1,4,8,12"], 1, 'net.caffemodel: parameter 0 of layer "c" is 4x3x3x3 in the file and '
         "4x4x3x3 in the net. Use the weights of this net, or rename the layer to train it from scratch."),
        (["--input_shape=data=1,3,99999,99999"], 1, 'deploy.prototxt:1: layer "i" (Input): "data" has the shape '
         "1x3x99999x99999, which is too large for a blob"),
        (["--input_shape=1,3,8,12"], 2, "Invalid value for '--input_shape': \"1,3,8,12\": expected a shape such as "
         "data=1,3,224,224"),
    ],
)  # fmt: skip
def test_bad_shapes_are_reported_in_a_line(
    flags: list[str], code: int, says: str, fcn: Fcn, workshop: Any, capsys: Any
) -> None:
    workshop.net(INPUT + BODY, "deploy.prototxt")
    write_npz("in.npz", {"data": np.zeros((1, 3, 8, 12), np.float32)})
    assert run([*FORWARD, *flags]) == code
    assert f"ristretto: {says}" in capsys.readouterr().err
    assert not Path("out.npz").exists()


def test_a_layer_with_data_of_its_own_keeps_its_shape(fcn: Fcn, capsys: Any) -> None:
    assert run(["test", *FILES, "--input_shape=data=1,3,8,12"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'ristretto: n.prototxt:2: layer "d" (Data): --input_shape data has no effect: the layer reads data of its own. '
        "Omit it: the net takes the size of each image with batch_size 1."
    )


def test_a_net_with_inner_products_needs_images_of_one_size(fcn: Fcn, workshop: Any, capsys: Any) -> None:
    fc = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }'
    workshop.net(DATA + fc, "n.prototxt")
    workshop.weights({"ip": [np.zeros((2, 192)), np.zeros(2)]})
    assert run(["test", *FILES, "--iterations=1"]) == 0
    assert run(["test", *FILES, "--iterations=2"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'ristretto: n.prototxt:5: layer "ip" (InnerProduct), for data 1x3x8x12, map 1x1x8x12: its parameter 0 is '
        "2x192, but would be 2x288. Use images of one size (crop_size), or a fully convolutional net."
    )


SELECTED = """
    layer { name: "i" type: "HDF5Data" top: "x" top: "label" top: "sel"
            hdf5_data_param { source: "list.txt" batch_size: 4 } }
    layer { name: "pre" type: "InnerProduct" bottom: "x" top: "pre"
            inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }
    layer { name: "f" type: "Filter" bottom: "pre" bottom: "label" bottom: "sel" top: "some" top: "labels" }
    layer { name: "relu" type: "ReLU" bottom: "some" top: "some" }
    layer { name: "fc" type: "InnerProduct" bottom: "some" top: "fc"
            inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
    layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "labels" top: "acc" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "labels" top: "loss" }
"""


class Selected:
    """A net with layers after a Filter, in the current folder; in the third of six batches nothing passes."""

    def __init__(self, workshop: Any) -> None:
        h5py = pytest.importorskip("h5py")
        rng = np.random.default_rng(6)
        self.x = rng.normal(size=(24, 4)).astype(np.float32)
        self.labels = rng.integers(0, 3, 24)
        self.passes = rng.random(24) < 0.6
        self.passes[8:12] = False
        with h5py.File("data.h5", "w") as file:
            file["x"], file["label"], file["sel"] = self.x, self.labels, self.passes.astype(np.float32)
        Path("list.txt").write_text("data.h5\n")
        workshop.net(SELECTED, "n.prototxt")
        shapes = [(5, 4), (5,), (3, 5), (3,)]
        self.weights = [rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in shapes]
        workshop.weights({"pre": self.weights[:2], "fc": self.weights[2:]})

    def batch(self, i: int) -> tuple[Any, Any]:
        """The items of a batch that pass, and their labels."""
        rows = np.arange(4 * i, 4 * i + 4)[self.passes[4 * i : 4 * i + 4]]
        return self.x[rows].astype(np.float64), self.labels[rows]

    def means(self) -> tuple[float, float]:
        """The mean accuracy and the mean loss of the batches; both are 0 where nothing passes."""
        accuracies, losses = [], []
        for i in range(6):
            x, labels = self.batch(i)
            scores = np.maximum(x @ self.weights[0].T + self.weights[1], 0) @ self.weights[2].T + self.weights[3]
            log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
            accuracies.append((scores.argmax(1) == labels).mean() if len(labels) else 0)
            losses.append(-log_p[np.arange(len(labels)), labels].mean() if len(labels) else 0)
        return float(np.mean(accuracies)), float(np.mean(losses))


@pytest.fixture
def selected(workshop: Any) -> Selected:
    return Selected(workshop)


def test_test_and_quantize_run_layers_after_a_filter(selected: Selected) -> None:
    accuracy, loss = selected.means()
    assert run(["test", *FILES, "--iterations=6", "--json=t.json"]) == 0
    found = json.loads(Path("t.json").read_text())["outputs"]
    assert (found["acc"], found["loss"]) == ([pytest.approx(accuracy)], [pytest.approx(loss, rel=1e-6)])
    assert run([*QUANTIZE, "--iterations=6", "--calibration_iterations=6", "--error_margin=5", "--json=q.json"]) == 0
    result = json.loads(Path("q.json").read_text())
    assert result["baseline"]["score"] == pytest.approx(accuracy)
    for graph in ("fast", "plain"):
        assert run(["test", "--model=q.prototxt", FILES[1], "--iterations=6", "--json=t.json", f"--graph={graph}"]) == 0
        assert json.loads(Path("t.json").read_text())["outputs"]["acc"][0] == pytest.approx(result["combined"]["score"])
    assert run([*QUANTIZE, "--iterations=3", "--score=loss", "--search=layers", "--bw=layer=8"]) == 0


def test_training_goes_through_a_filter(selected: Selected, workshop: Any, capsys: Any) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")
    functional = torch.nn.functional
    solver = SOLVER.replace("snapshot_after_train: false", 'snapshot: 5 snapshot_prefix: "t"')
    workshop.net(solver % 0.1, "s.prototxt")
    assert run(["train", "--solver=s.prototxt", FILES[1]]) == 0
    losses = [float(loss) for loss in re.findall(r"Iteration \d \(.*, loss = (\S+)", capsys.readouterr().err)]
    values = [torch.tensor(array).requires_grad_() for array in selected.weights]
    for i, found in enumerate(losses):
        x, labels = selected.batch(i)
        if not len(labels):
            assert found == 0
            continue
        hidden = functional.relu(functional.linear(torch.tensor(x), values[0], values[1]))
        loss = functional.cross_entropy(functional.linear(hidden, values[2], values[3]), torch.tensor(labels))
        assert found == pytest.approx(loss.item(), rel=1e-5)
        gradients = torch.autograd.grad(loss, values)
        with torch.no_grad():
            for value, gradient in zip(values, gradients, strict=True):
                value -= 0.1 * gradient
    assert len(losses) == 5
    trained = read_weights("t_iter_5.caffemodel").layers
    for blob, value in zip((*trained["pre"], *trained["fc"]), values, strict=True):
        np.testing.assert_allclose(blob.array, value.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_other_commands_show_what_depends_on_the_data(selected: Selected, capsys: Any) -> None:
    args = ["extract_features", "net.caffemodel", "n.prototxt", "fc,loss", "f,l.npz", "6", "lmdb"]
    assert run(args) == 0
    count = int(selected.passes.sum())
    assert capsys.readouterr().out.splitlines() == [f"f: fc {count}x3", "l.npz: loss 6"]
    assert run(["summary", "--model=n.prototxt"]) == 0
    assert re.search(r"fc +InnerProduct +\?x3 +18 +15\n", capsys.readouterr().out)
    assert run(["time", "--model=n.prototxt", "--iterations=1"]) == 0
    assert run(["export", "--format=onnx", *FILES, "--output=n.onnx"]) == 1
    assert 'layer "f" (Filter) makes blobs whose shapes depend on the data' in capsys.readouterr().err


CHAIN = """
    force_backward: true
    layer { name: "i" type: "Input" top: "x" top: "a" top: "b" top: "t"
            input_param { shape { dim: 5 dim: 3 } shape { dim: 5 } shape { dim: 5 } shape { dim: 5 dim: 2 } } }
    layer { name: "p" type: "InnerProduct" bottom: "x" top: "p" inner_product_param { num_output: 2 } }
    layer { name: "f" type: "Filter" bottom: "p" bottom: "t" bottom: "b" bottom: "a" top: "pa" top: "ta" top: "ba" }
    layer { name: "g" type: "Filter" bottom: "pa" bottom: "ta" bottom: "ba" top: "pb" top: "tb" }
    layer { name: "s" type: "Power" bottom: "pb" top: "pb" power_param { scale: 2 } }
    layer { name: "h" type: "Filter" bottom: "p" bottom: "b" top: "hb" }
    layer { name: "l" type: "EuclideanLoss" bottom: "pb" bottom: "tb" top: "l" }
    layer { name: "k" type: "EuclideanLoss" bottom: "pa" bottom: "ta" top: "k" loss_weight: 0.5 }
"""


@pytest.mark.parametrize("flags", [[], ["--backward"]])
def test_several_filters_one_after_another(flags: list[str], workshop: Any) -> None:
    if flags:
        pytest.importorskip("torch", reason="gradients need torch")
    rng = np.random.default_rng(2)
    x, t, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 3), (5, 2), (2, 3)))
    a, b = np.float32([1, 0, 1, 1, 1]), np.float32([0, 1, 1, 0, 1])
    workshop.net(CHAIN, "n.prototxt")
    workshop.weights({"p": [weights, [0.5, 0.25]]})
    write_npz("in.npz", {"x": x, "a": a, "b": b, "t": t})
    assert run(["forward", *FILES, "--input=in.npz", "--output=out.npz", "--phase=TRAIN", *flags]) == 0
    found = read_npz("out.npz")
    p = x.astype(np.float64) @ weights.T.astype(np.float64) + [0.5, 0.25]
    first, both = a > 0, (a > 0) & (b > 0)
    expected = {
        "pa": p[first],
        "pb": 2 * p[both],
        "hb": p[b > 0],
        "l": np.square(2 * p[both] - t[both]).sum() / 2 / both.sum(),
        "k": np.square(p[first] - t[first]).sum() / 2 / first.sum(),
    }
    if flags:
        gradient = np.zeros_like(p)
        gradient[both] += 2 * (2 * p[both] - t[both]) / both.sum()
        gradient[first] += 0.5 * (p[first] - t[first]) / first.sum()
        expected.update({"diff:p": gradient, "diff:x": gradient @ weights, "pdiff:p/0": gradient.T @ x})
        assert "diff:a" not in found  # the selector of the first Filter
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
