"""Corrections of whole nets, as a user asks for them: `ristretto quantize --weights_quantized`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.cli.main import run
from ristretto_cli.corrections import corrector
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.net.build import NetState
from ristretto_cli.net.ir import Net
from ristretto_cli.net.param_formats import param_formats
from ristretto_cli.quantize.header import weights_of
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.net_files import load_net

DATA = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        data_param { source: "train_db" backend: LMDB batch_size: 8 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
        data_param { source: "test_db" backend: LMDB batch_size: 8 } }
"""
HEAD = """
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
BIASED = 'weight_filler { type: "msra" } bias_filler { type: "gaussian" std: 0.3 }'
FLAGS = ["--model=net.prototxt", "--weights=net.caffemodel", "--model_quantized=out/q.prototxt"]
FLAGS += ["--iterations=4", "--calibration_iterations=4", "--json=out/q.json", "--score=loss"]
FIXED = ["--trimming_mode=dynamic_fixed_point", "--bw=conv_params=3,fc_params=3,layer=6"]
NARROW = ["--trimming_mode=dynamic_fixed_point", "--bw=conv_params=2,fc_params=2,layer=4"]
CORRECTED = "--weights_quantized=out/w.caffemodel"


def conv(name: str, bottom: str, top: str = "", settings: str = "kernel_size: 3 pad: 1", params: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top or name}" {params} '
        f"convolution_param {{ num_output: 8 {BIASED} {settings} }} }}\n"
    )


def fc(name: str, bottom: str, outputs: int = 5, settings: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ num_output: {outputs} {BIASED} {settings} }} }}\n"
    )


def layer(kind: str, bottoms: str, tops: str, settings: str = "", name: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    written = " ".join(f'top: "{top}"' for top in tops.split())
    return f'layer {{ name: "{name or "l_" + tops.split()[0]}" type: "{kind}" {read} {written} {settings} }}\n'


def normalized(name: str, bottom: str) -> str:
    scale = "scale_param { bias_term: true filler { value: 1 } bias_filler { value: 0.1 } }"
    return (
        conv(name, bottom)
        + layer("BatchNorm", name, name, name=f"{name}_bn")
        + layer("Scale", name, name, scale, name=f"{name}_scale")
        + layer("ReLU", name, name, name=f"{name}_relu")
    )


RESIDUAL = (
    normalized("a", "data")
    + normalized("b", "a")
    + layer("Eltwise", "a b", "sum")
    + conv("c", "sum", settings="kernel_size: 3 stride: 2 group: 2")
    + layer("ReLU", "c", "c")
    + layer("Pooling", "c", "p", "pooling_param { pool: AVE global_pooling: true }")
    + fc("fc", "p")
)


class Example:
    """A net with random weights and data in the current folder."""

    def __init__(self, workshop: Any) -> None:
        self.workshop = workshop
        Path("out").mkdir()

    def write(self, body: str = RESIDUAL, *, data: str = DATA, head: str = HEAD, images: Any = None) -> None:
        rng = np.random.default_rng(0)
        if images is None:
            # Neighbouring pixels and channels are alike, as in images.
            coarse = rng.normal(size=(64, 3, 4, 4)) + rng.normal(size=(64, 1, 4, 4)) * 2 + 0.5
            images = np.kron(coarse, np.ones((2, 2))).astype(np.float32)
        for name, part in (("train_db", images[: len(images) // 2]), ("test_db", images[len(images) // 2 :])):
            self.workshop.database(name, part, [int(label) for label in rng.integers(5, size=len(part))])
        net = self.workshop.load(data + body + head)
        arrays: dict[str, list[Any]] = {}
        for each in net.layers:
            for param in each.params:
                if param.owner == each.name:
                    arrays.setdefault(each.name, []).append(np.array(net.weights[param.key]).reshape(param.shape))
        for each in net.layers:
            if each.type == "BatchNorm" and each.name in arrays:
                arrays[each.name][:2] = [rng.normal(size=8) * 0.5, rng.uniform(2, 6, size=8)]
                arrays[each.name][2][:] = 1
        self.workshop.weights(arrays)

    def quantize(self, *flags: str) -> Any:
        """Quantize; the JSON of the result."""
        assert run(["quantize", *FLAGS, *flags]) == 0
        return json.loads(Path("out/q.json").read_text())


@pytest.fixture
def example(workshop: Any) -> Example:
    return Example(workshop)


def load(model: str, weights: str, phase: int = TEST) -> Net:
    return load_net(model, weights, NetState(phase), rng=np.random.default_rng(0))


def outputs(net: Net, blob: str = "fc") -> Any:
    """A blob for all test images, one row each."""
    runner = compile_net(net, lambda run, ops: {blob: run.final[blob]}, rng=np.random.default_rng(0))
    with DataLoader(net) as loader:
        return np.concatenate([runner.run(loader.next())[blob] for _ in range(4)])


def divergence(model: str, weights: str) -> float:
    """The divergence of a quantized net's probabilities from the float net's."""

    def logs(net: Net) -> Any:
        scores = outputs(net).astype(np.float64)
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))

    expected = logs(load("net.prototxt", "net.caffemodel"))
    found = logs(load(model, weights))
    return float((np.exp(expected) * (expected - found)).sum(1).mean())


def check_grids(net: Net) -> None:
    """All parameters of the quantized layers of RESIDUAL are numbers of their formats."""
    checked = set()
    for each in net.layers:
        for param, param_format in zip(each.params, param_formats(each), strict=True):
            if param_format is None:
                continue
            checked.add(param.key)
            array = np.array(net.weights[param.key])
            again = param_format.number_format.quantize(numpy_ops(np.random.default_rng(0)), array, Rounding.NEAREST)
            np.testing.assert_array_equal(again, array, err_msg=param.key)
            assert np.isfinite(array).all()
    assert checked >= {"a/0", "b/0", "c/0", "fc/0"}


def check_written(found: Any, capsys: pytest.CaptureFixture[str], weights: str = "out/w.caffemodel") -> None:
    """`ristretto test` on the written files gives the score of the result."""
    assert Path(weights_of("out/q.prototxt")) == Path(weights)
    capsys.readouterr()
    flags = ["--model=out/q.prototxt", f"--weights={weights}", "--iterations=4", "--json=out/t.json"]
    assert run(["test", *flags]) == 0, capsys.readouterr().err
    assert json.loads(Path("out/t.json").read_text())["loss"] == found["combined"]["score"]


# --- the result


@pytest.mark.parametrize(
    "flags",
    [
        FIXED,
        [*FIXED, "--fl_layer=kl"],
        [*FIXED, "--fl_params=mse", "--unsigned"],
        [*FIXED, "--same_formats"],
        ["--trimming_mode=dynamic_fixed_point", "--bw=conv_params=1,fc_params=1,layer=4"],
        ["--trimming_mode=dynamic_fixed_point", "--bw=conv_params=4,fc_params=4,layer=8,bias=12"],
        ["--trimming_mode=dynamic_fixed_point", "--bw=conv_params=4,fc_params=4,layer=8,bias=4"],
        ["--trimming_mode=minifloat", "--bit_widths=8"],
        ["--trimming_mode=integer_power_of_2_weights"],
        ["--trimming_mode=static_fixed_point", "--bit_widths=8"],
        [*FIXED, "--fold_batchnorm"],
        [*FIXED, "--cache_mb=0"],
        [*FIXED, "--graph=plain"],
    ],
    ids=lambda flags: " ".join(flags[-2:]),
)
def test_written_weights_are_on_their_grids_and_score_as_reported(
    example: Example, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    example.write()
    found = example.quantize(CORRECTED, *flags)
    assert found["weights_quantized"] == "out/w.caffemodel"
    assert "Corrected weights written to out/w.caffemodel" in capsys.readouterr().out
    net = load("out/q.prototxt", "out/w.caffemodel")
    check_grids(net)
    assert all(np.isfinite(array).all() for array in net.weights.values())
    check_written(found, capsys)


@pytest.mark.parametrize("flags", [FIXED, NARROW, ["--trimming_mode=integer_power_of_2_weights"]])
def test_the_result_is_closer_to_the_float_net(example: Example, flags: list[str]) -> None:
    example.write()
    example.quantize(*flags)
    before = divergence("out/q.prototxt", "net.caffemodel")
    example.quantize(*flags, CORRECTED)
    assert divergence("out/q.prototxt", "out/w.caffemodel") < 0.7 * before


def test_the_same_seed_gives_the_same_files(example: Example) -> None:
    example.write()
    files = []
    for flags in ([], [], ["--seed=1"]):
        example.quantize(*FIXED, CORRECTED, "--fl_layer=kl", "--calibration_images=24", *flags)
        files.append((Path("out/w.caffemodel").read_bytes(), Path("out/q.prototxt").read_text()))
    assert files[0] == files[1]
    assert files[0][0] != files[2][0]


def test_memory_does_not_change_the_result(example: Example) -> None:
    example.write()
    files = []
    for memory in ([], ["--cache_mb=0"]):
        flags = ["--trimming_mode=dynamic_fixed_point", "--bit_widths=4,2", "--error_margin=30"]
        example.quantize(*flags, CORRECTED, *memory)
        files.append((Path("out/w.caffemodel").read_bytes(), Path("out/q.prototxt").read_text()))
    assert files[0] == files[1]


def test_methods_restrict_what_is_corrected(example: Example) -> None:
    example.write()
    before = read_weights("net.caffemodel").layers
    found = example.quantize(*FIXED, CORRECTED, "--methods=batch_norm")
    assert found["methods"] == ["batch_norm"]
    after = read_weights("out/w.caffemodel").layers
    for name in ("a", "b", "c", "fc"):
        np.testing.assert_array_equal(after[name][0].array, before[name][0].array)
    assert not after["a"][1].array.any()
    assert (after["a_bn"][0].array != before["a_bn"][0].array).all()
    example.quantize(*FIXED, CORRECTED, "--methods=rounding")
    after = read_weights("out/w.caffemodel").layers
    for name in ("a_bn", "b_bn", "a_scale"):
        for one, other in zip(after[name], before[name], strict=True):
            np.testing.assert_array_equal(one.array, other.array)
    check_grids(load("out/q.prototxt", "out/w.caffemodel"))


def test_hdf5(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example.write()
    found = example.quantize(*FIXED, "--weights_quantized=out/w.h5")
    check_written(found, capsys, "out/w.h5")


@pytest.mark.parametrize("flags", [["--search=groups"], ["--search=layers"], ["--search=smallest"]])
def test_searches_score_corrected_nets(example: Example, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    example.write()
    mode = ["--trimming_mode=dynamic_fixed_point", "--bit_widths=8,4,2", "--error_margin=5"]
    if flags[-1] != "--search=groups":
        mode = [flag for flag in mode if not flag.startswith("--bit_widths")]
    found = example.quantize(*mode, *flags, CORRECTED)
    check_written(found, capsys)
    check_grids(load("out/q.prototxt", "out/w.caffemodel"))


def test_the_divergence_alone_changes_no_weights(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example.write()
    found = example.quantize(*NARROW, "--fl_layer=kl")
    assert found["weights_quantized"] is None and found["methods"] == []
    assert not Path("out/w.caffemodel").exists()
    check_written(found, capsys, "net.caffemodel")
    kl = divergence("out/q.prototxt", "net.caffemodel")
    example.quantize(*NARROW, "--fl_layer=auto")
    assert kl <= divergence("out/q.prototxt", "net.caffemodel")


def test_an_unscored_net_is_corrected_too(example: Example) -> None:
    example.write()
    flags = [flag for flag in FLAGS if "score" not in flag and "--iterations" not in flag]
    assert run(["quantize", *flags, *FIXED, "--noscore", CORRECTED]) == 0
    check_grids(load("out/q.prototxt", "out/w.caffemodel"))


def test_the_float_net_stays(example: Example) -> None:
    example.write()
    before = Path("net.caffemodel").read_bytes()
    baseline = example.quantize(*FIXED)["baseline"]["score"]
    assert example.quantize(*FIXED, CORRECTED)["baseline"]["score"] == pytest.approx(baseline, rel=1e-4)
    assert Path("net.caffemodel").read_bytes() == before


@pytest.mark.parametrize("flags", [FIXED, NARROW])
def test_class_scores_keep_their_level_if_their_noise_is_the_score(example: Example, flags: list[str]) -> None:
    example.write()
    scores = [example.quantize(*flags, "--score=sqnr:fc", *more)["combined"]["score"] for more in ([], [CORRECTED])]
    assert scores[1] > scores[0]


# --- nets

BODIES = {
    "shared weights": conv("a", "data", params='param { name: "w" } param { name: "v" }', settings="kernel_size: 1")
    + layer("Concat", "data data", "twice", "concat_param { axis: 3 }")
    + conv("b", "twice", params='param { name: "w" } param { name: "v" }', settings="kernel_size: 1")
    + conv("c", "b", settings="kernel_size: 3")
    + fc("f1", "a")
    + fc("f2", "c")
    + layer("Eltwise", "f1 f2", "fc"),
    "Deconvolution": conv("a", "data") + 'layer { name: "up" type: "Deconvolution" bottom: "a" top: "up" '
    f"convolution_param {{ num_output: 4 kernel_size: 2 stride: 2 {BIASED} }} }}\n" + fc("fc", "up"),
    "LSTM": fc("f1", "data", 12)
    + layer("Reshape", "f1", "x", "reshape_param { shape { dim: 8 dim: 1 dim: 12 } }")
    + layer("Reshape", "label", "cont", "reshape_param { shape { dim: 8 dim: 1 } }")
    + layer("LSTM", "x cont", "h", 'recurrent_param { num_output: 6 weight_filler { type: "uniform" min: -1 } }')
    + layer("Reshape", "h", "y", "reshape_param { shape { dim: 8 dim: 6 } }")
    + fc("fc", "y"),
    "a BatchNorm with shared parameters": conv("a", "data")
    + layer(
        "BatchNorm",
        "a",
        "a",
        'param { name: "m" lr_mult: 0 } param { name: "v" lr_mult: 0 } param { name: "f" lr_mult: 0 }',
        name="n1",
    )
    + conv("b", "a")
    + layer(
        "BatchNorm",
        "b",
        "b",
        'param { name: "m" lr_mult: 0 } param { name: "v" lr_mult: 0 } param { name: "f" lr_mult: 0 }',
        name="n2",
    )
    + fc("fc", "b"),
    "BatchNorm along another axis": layer(
        "Reshape", "data", "rows", "reshape_param { shape { dim: 8 dim: 8 dim: 24 } }"
    )
    + fc("a", "rows", 6, "axis: 2")
    + layer("BatchNorm", "a", "a", name="n")
    + fc("fc", "a"),
    "two heads": conv("a", "data")
    + fc("fc", "a")
    + conv("b", "a", settings="kernel_size: 3")
    + fc("other", "b")
    + layer("Sigmoid", "other", "s"),
    "a head in front of another": conv("a", "data")
    + fc("fc", "a")
    + HEAD
    + conv("b", "a", settings="kernel_size: 3")
    + fc("other", "b"),
    "transposed, no biases": conv("a", "data", settings="kernel_size: 3 bias_term: false")
    + layer("ReLU", "a", "a")
    + fc("fc", "a", settings="transpose: true bias_term: false"),
    "activations in place": conv("a", "data")
    + layer("Split", "a", "s t")
    + conv("b", "s")
    + layer("PReLU", "b", "b")
    + layer("Eltwise", "b t", "sum")
    + layer("Flatten", "sum", "flat")
    + layer("Dropout", "flat", "flat")
    + fc("fc", "flat"),
    "a dead layer": conv("a", "data")
    + layer("Power", "a", "zero", "power_param { scale: 0 }")
    + conv("b", "zero")
    + layer("BatchNorm", "b", "b", name="n")
    + layer("Concat", "a b", "cat")
    + fc("fc", "cat"),
}


@pytest.mark.parametrize("more", [[], ["--fl_layer=kl"]], ids=["", "kl"])
@pytest.mark.parametrize("name", BODIES)
def test_nets_of_many_kinds(example: Example, capsys: pytest.CaptureFixture[str], name: str, more: list[str]) -> None:
    example.write(BODIES[name], head="" if HEAD in BODIES[name] else HEAD)
    found = example.quantize(*FIXED, CORRECTED, *more)
    check_written(found, capsys)
    net = load("out/q.prototxt", "out/w.caffemodel")
    assert all(np.isfinite(array).all() for array in net.weights.values())
    corrected = divergence("out/q.prototxt", "out/w.caffemodel")
    example.quantize(*FIXED)
    assert corrected < 1.2 * divergence("out/q.prototxt", "net.caffemodel") + 1e-3


@pytest.mark.parametrize("more", [[], ["--fl_layer=kl"]], ids=["", "kl"])
def test_layers_behind_one_outside_the_graph_stay(
    example: Example, capsys: pytest.CaptureFixture[str], more: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    body = conv("a", "data") + layer("BatchNorm", "a", "n", name="n") + fc("fc", "n")
    middle = layer("Filter", "data label", "kept", name="filter")
    body = body.replace('layer { name: "n"', middle + 'layer { name: "n"')
    example.write(body)
    with caplog.at_level(logging.WARNING):
        found = example.quantize(*FIXED, CORRECTED, *more)
    assert 'Layers from "filter" on are not corrected' in caplog.text
    check_written(found, capsys)
    # The BatchNorm is not corrected, so its channels must not be scaled.
    corrected = divergence("out/q.prototxt", "out/w.caffemodel")
    example.quantize(*FIXED)
    assert corrected < 1.2 * divergence("out/q.prototxt", "net.caffemodel") + 1e-3


def test_a_net_whose_class_scores_are_its_output(example: Example) -> None:
    example.write()
    example.workshop.net(DATA + RESIDUAL)
    flags = [flag for flag in FLAGS if "score" not in flag]
    assert run(["quantize", *flags, *FIXED, CORRECTED, "--fl_layer=kl", "--score=agreement"]) == 0
    assert divergence("out/q.prototxt", "out/w.caffemodel") < 0.5


def test_several_data_layers(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    second = DATA.replace('"d"', '"d2"').replace('top: "data" top: "label"', 'top: "data2" top: "label2"')
    body = layer("Eltwise", "data data2", "both") + conv("a", "both") + fc("fc", "a") + silence("label2")
    example.write(body, data=DATA + second)
    check_written(example.quantize(*FIXED, CORRECTED), capsys)


def silence(blob: str) -> str:
    return f'layer {{ name: "silence" type: "Silence" bottom: "{blob}" }}\n'


# --- calibration images


@pytest.mark.parametrize(
    ("count", "images", "used"), [(64, 1024, 32), (64, 10, None), (10, 1024, 8), (48, 1024, 24), (64, 32, None)]
)
def test_the_data_are_read_once(
    example: Example, caplog: pytest.LogCaptureFixture, count: int, images: int, used: int | None
) -> None:
    rng = np.random.default_rng(0)
    example.write(images=rng.normal(size=(count, 3, 8, 8)).astype(np.float32))
    with caplog.at_level(logging.INFO):
        example.quantize(*FIXED, CORRECTED, f"--calibration_images={images}")
    lines = [record.getMessage() for record in caplog.records if "Correcting with" in record.getMessage()]
    assert set(lines) == (set() if used is None else {f"Correcting with {used} images, all that the data have."})


def test_a_repeated_first_image_does_not_end_the_data(example: Example, caplog: pytest.LogCaptureFixture) -> None:
    images = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)
    images[[12, 21]] = images[0]
    example.write(images=images)
    with caplog.at_level(logging.INFO):
        example.quantize(*FIXED, CORRECTED)
    assert "Correcting with 32 images, all that the data have." in caplog.text


def test_images_of_zeros(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example.write(images=np.zeros((32, 3, 8, 8), np.float32))
    check_written(example.quantize(*FIXED, CORRECTED, "--fl_layer=kl"), capsys)
    assert all(np.isfinite(a).all() for a in load("out/q.prototxt", "out/w.caffemodel").weights.values())


def test_a_single_batch_does_not_choose_lengths(example: Example, caplog: pytest.LogCaptureFixture) -> None:
    example.write()
    with caplog.at_level(logging.WARNING):
        example.quantize(*NARROW, "--fl_layer=kl", "--calibration_images=8")
    assert (
        "are not chosen by the divergence: the calibration images are a single batch, and two are needed" in caplog.text
    )
    kl = Path("out/q.prototxt").read_text()
    example.quantize(*NARROW)
    assert Path("out/q.prototxt").read_text() == kl


def test_arrays_of_the_user(example: Example) -> None:
    example.write()
    data = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 8 dim: 3 dim: 8 dim: 8 } } }\n'
    example.workshop.net(data + RESIDUAL + layer("Softmax", "fc", "prob"))
    np.savez("x.npz", data=np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32))
    flags = [flag for flag in FLAGS if "score" not in flag and "iterations" not in flag]
    for images in (8, 16, 1024):
        more = [CORRECTED, "--fl_layer=kl", "--input=x.npz", f"--calibration_images={images}"]
        assert run(["quantize", *flags, *FIXED, *more]) == 0
        check_grids(load("out/q.prototxt", "out/w.caffemodel"))


# --- large layers


def test_layers_with_many_inputs_are_rounded_in_parts(
    example: Example, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    example.write()
    example.quantize(*FIXED)
    before = divergence("out/q.prototxt", "net.caffemodel")
    seen = []
    round_layer = corrector.round_layer

    def watched(weights: Any, *args: Any, **more: Any) -> Any:
        seen.append(weights.shape[2])
        return round_layer(weights, *args, **more)

    monkeypatch.setattr(corrector, "MAX_COLUMNS", 20)
    monkeypatch.setattr(corrector, "round_layer", watched)
    found = example.quantize(*FIXED, CORRECTED)
    # 27 and 72 inputs, 36 of each group, and 8.
    assert seen[:9] == [14, 13, 18, 18, 18, 18, 18, 18, 8]
    check_written(found, capsys)
    check_grids(load("out/q.prototxt", "out/w.caffemodel"))
    assert divergence("out/q.prototxt", "out/w.caffemodel") < before


# --- refusals

REFUSED = {
    "an unknown method": ([CORRECTED, "--methods=rounding,magic"], '--methods: unknown correction "magic"; known: '),
    "no method": ([CORRECTED, "--methods="], "--methods: name at least one correction: equalization"),
    "methods alone": (["--methods=rounding"], "--methods has no effect without --weights_quantized"),
    "images alone": (
        ["--calibration_images=5"],
        "--calibration_images has no effect without --weights_quantized or --fl_layer kl",
    ),
    "a seed alone": (["--seed=5"], "--seed has no effect without --weights_quantized or --fl_layer kl"),
    "legacy": ([CORRECTED, "--legacy"], "--weights_quantized"),
    "legacy kl": (["--fl_layer=kl", "--legacy"], "--fl_layer=kl has no effect with --legacy"),
    "kl with one format for several layers": (
        ["--fl_layer=kl", "--same_formats"],
        "--fl_layer=kl excludes --same_formats",
    ),
    "folded weights too": (
        [CORRECTED, "--fold_batchnorm", "--weights_folded=out/f.caffemodel"],
        "--weights_folded",
    ),
    "the input": (["--weights_quantized=net.caffemodel"], "net.caffemodel: is an input of this command"),
    "the other output": (["--weights_quantized=out/q.prototxt"], "is given for two outputs"),
    "no such folder": (["--weights_quantized=nowhere/w.caffemodel"], "nowhere"),
    "no images": ([CORRECTED, "--calibration_images=0"], "--calibration_images"),
    "a negative seed": ([CORRECTED, "--seed=-1"], "--seed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_flags_that_cannot_be_meant_are_refused(
    example: Example, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    flags, message = REFUSED[name]
    example.write()
    before = Path("net.caffemodel").read_bytes()
    assert run(["quantize", *FLAGS, "--trimming_mode=dynamic_fixed_point", *flags]) != 0
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert Path("net.caffemodel").read_bytes() == before
    assert not Path("out/q.prototxt").exists()
