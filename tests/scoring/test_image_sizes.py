"""Nets on onnxruntime that take the size of each image, and those whose shapes depend on a Filter."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Mapping
from typing import Any

import lmdb
import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import Role
from ristretto_cli.scoring import engine, reshaping
from ristretto_cli.scoring.array_cache import ArrayCache
from ristretto_cli.scoring.calibrate import Probe, measure_ranges
from ristretto_cli.scoring.comparisons import Agreement, SignalToNoise
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.float_outputs import FloatOutputs
from ristretto_cli.scoring.prefix_cache import Prefix, cut_point_at
from ristretto_cli.scoring.score import Scorer, ScoringOptions, score_net, scoring_runner

SIZES = [(5, 4), (4, 7), (5, 4), (8, 3)]
DATA = """
    layer { name: "d" type: "Data" top: "data" data_param { source: "images" backend: LMDB batch_size: 1 } }
    layer { name: "m" type: "Data" top: "map" data_param { source: "maps" backend: LMDB batch_size: 1 } }
"""
HEAD = """
    layer { name: "conv" %s bottom: "data" top: "conv"
            convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "scores" type: "Convolution" bottom: "conv" top: "scores"
            convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "gaussian" } } }
    layer { name: "acc" type: "Accuracy" bottom: "scores" bottom: "map" top: "acc" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "map" top: "loss" }
"""
FLOAT, WEIGHTS_AT_RANDOM = (
    'type: "Convolution"',
    'type: "ConvolutionRistretto" quantization_param { rounding_scheme: STOCHASTIC trim_layer_in: false '
    "trim_layer_out: false bw_params: 4 fl_params: 1 }",
)


def write(name: str, arrays: Any) -> None:
    with lmdb.open(name, map_size=1 << 22) as environment, environment.begin(write=True) as view:
        for i, array in enumerate(arrays):
            channels, height, width = array.shape
            datum = new("Datum", channels=channels, height=height, width=width, data=array.tobytes())
            view.put(b"%08d" % i, datum.SerializeToString())


@pytest.fixture
def images(workshop: Any) -> list[Any]:
    """Writes images and label maps of different sizes; the images."""
    rng = np.random.default_rng(4)
    found = [rng.integers(0, 256, (2, *size), np.uint8) for size in SIZES]
    write("images", found)
    write("maps", [rng.integers(0, 2, (1, *size), np.uint8) for size in SIZES])
    return found


def blobs(net: Any, *names: str, **settings: Any) -> Any:
    def select(run: Any, ops: Any) -> dict[str, Any]:
        return {name: run.final[name] for name in names}

    return compile_net(net, select, rng=np.random.default_rng(0), **settings)


def feeds(image: Any) -> dict[str, Any]:
    """An image (C, H, W) or images (N, C, H, W), and maps of their size."""
    x = np.asarray(image, np.float32).reshape(-1, *image.shape[-3:])
    return {"data": x, "map": np.zeros((len(x), 1, *x.shape[2:]), np.float32)}


def expected(x: Any, weights: Mapping[str, Any]) -> tuple[Any, Any]:
    """The blobs conv and scores of an image (C, H, W), by numpy alone."""
    kernel = weights["conv/0"].astype(np.float64)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    conv = np.maximum(np.einsum("chwij,ocij->ohw", windows, kernel) + weights["conv/1"][:, None, None], 0)
    scores = np.einsum("chw,oc->ohw", conv, weights["scores/0"][:, :, 0, 0].astype(np.float64))
    return conv, scores + weights["scores/1"][:, None, None]


def test_a_runner_takes_batches_of_any_shape(workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % FLOAT)
    runner = blobs(net, "conv", "scores")
    for i in (0, 1, 2, 3, 1, 0):
        found = runner.run(feeds(images[i]))
        for name, array in zip(("conv", "scores"), expected(images[i], net.weights), strict=True):
            np.testing.assert_allclose(found[name][0], array, rtol=1e-5, atol=1e-3)
    pair = np.stack([images[0], images[2]])
    assert runner.run(feeds(pair))["scores"].shape == (2, 2, 5, 4)


def test_a_shape_that_does_not_fit_is_named_with_its_layer(workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % FLOAT)
    said = r'layer "conv" \(Convolution\), for data 1x1x3x3, .*: its parameter 0 is 3x2x3x3, but would be 3x1x3x3'
    with pytest.raises(RistrettoError, match=said):
        blobs(net, "conv").run(feeds(np.zeros((1, 3, 3))))


def test_few_compiled_shapes_are_kept(workshop: Any, images: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[Any] = []

    class Watched(engine.Session):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            alive.append(weakref.ref(self))

    monkeypatch.setattr(engine, "Session", Watched)
    runner = blobs(workshop.load(DATA + HEAD % FLOAT), "conv")
    sizes = [(h, w) for h, w in itertools.product(range(3, 9), range(3, 8))]
    for size in sizes:
        runner.run(feeds(np.zeros((2, *size))))
        gc.collect()
        assert sum(each() is not None for each in alive) <= 8
    compiled = len(sizes) + 1  # the shape of the first image was compiled at once, and again when its turn came
    assert len(alive) == compiled
    for size in sizes[-8:]:
        runner.run(feeds(np.zeros((2, *size))))
    assert len(alive) == compiled


def test_large_nets_leave_room_for_fewer_shapes(
    workshop: Any, images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    class Compiled:
        def __init__(self, net: Any, rng: Any) -> None:
            compiled.append(net.inputs[0].shape[2:])

        def run(self, feeds: Any) -> Any:
            return {}

    net = workshop.load(DATA + HEAD % FLOAT)
    sizes = [(5, 4), (4, 4), (5, 4), (4, 4), (3, 3), (5, 4)]
    weights, largest = 4 * sum(array.size for array in net.weights.values()), 4 * 3 * 5 * 4
    for room, expected in ((1, sizes), (2, [(5, 4), (4, 4), (3, 3), (5, 4)]), (3, [(5, 4), (4, 4), (3, 3)])):
        compiled.clear()
        monkeypatch.setattr(reshaping, "_MAX_BYTES", room * (weights + 4 * largest))
        runner = reshaping.ReshapingRunner(net, Compiled, rng=np.random.default_rng(0))
        for size in sizes:
            runner.run(feeds(np.zeros((2, *size))))
        assert compiled == expected


def test_weights_rounded_at_random_are_the_same_for_each_shape(workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % WEIGHTS_AT_RANDOM)
    pixel = np.zeros((1, 2, 7, 7), np.float32)
    pixel[0, :, 3, 3] = 8
    runner = blobs(net, "conv")
    large = runner.run(feeds(pixel))["conv"]
    small = runner.run(feeds(pixel[:, :, 1:6, 1:6]))["conv"]
    assert large.any()
    assert np.array_equal(small[:, :, 1:4, 1:4], large[:, :, 2:5, 2:5])


def test_scores_are_means_over_the_images(workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % FLOAT)
    scores = score_net(net, 2 * len(SIZES), rng=np.random.default_rng(0))
    with lmdb.open("maps", readonly=True, lock=False) as environment, environment.begin() as view:
        maps = [new("Datum").FromString(value) for _, value in view.cursor()]
    accuracies, losses = [], []
    for image, datum in zip(images, maps, strict=True):
        labels = np.frombuffer(datum.data, np.uint8).reshape(datum.height, datum.width)
        logits = expected(image, net.weights)[1]
        accuracies.append((logits.argmax(0) == labels).mean())
        shifted = logits - logits.max(0)
        log_p = np.maximum(shifted - np.log(np.exp(shifted).sum(0)), np.log(np.finfo(np.float32).tiny))
        losses.append(-np.take_along_axis(log_p, labels[None].astype(int), 0).mean())
    assert scores.of("acc") == pytest.approx(np.mean(accuracies), rel=1e-6)
    assert scores.of("loss") == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores.loss == scores.of("loss")


def test_an_output_of_different_sizes_has_no_score(workshop: Any, images: list[Any], caplog: Any) -> None:
    caplog.set_level("INFO", "ristretto")
    net = workshop.load(DATA + HEAD % FLOAT + 'layer { name: "p" type: "Power" bottom: "scores" top: "p" }')
    scores = score_net(net, 3, rng=np.random.default_rng(0))
    assert [output.blob for output in scores.outputs] == ["acc", "loss"]
    assert caplog.text.count("p is 1x2x4x7, but 1x2x5x4 in the first batch, and has no score.") == 1


@pytest.mark.parametrize("legacy", [False, True])
def test_ranges_cover_all_images(legacy: bool, workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % FLOAT)
    probe = Probe(legacy=legacy, samples=not legacy)
    names = frozenset({"conv", "scores"})
    found = measure_ranges(net, names, len(SIZES), probe=probe, rng=np.random.default_rng(0))
    pairs = [expected(image, net.weights) for image in images]
    largest = [max(float(np.abs(pair[i]).max()) for pair in pairs) for i in (0, 1)]
    assert found["conv"].layer_in == max(int(image.max()) for image in images)
    assert found["conv"].layer_out == found["scores"].layer_in == pytest.approx(largest[0], rel=1e-5)
    assert found["scores"].layer_out == pytest.approx(largest[1], rel=1e-5)
    assert [found[name].never_negative for name in ("conv", "scores")] == (
        [frozenset()] * 2 if legacy else [frozenset({Role.LAYER_IN, Role.LAYER_OUT}), frozenset({Role.LAYER_IN})]
    )
    if not legacy:
        mean_squares = [float(np.square(image, dtype=np.float64).mean()) for image in images]
        assert found["conv"].input_energy == pytest.approx(np.mean(mean_squares) * 18, rel=1e-5)
        sample = found["conv"].samples[Role.LAYER_IN]
        pixels = np.concatenate([image.ravel() for image in images])
        assert sorted(sample.values.tolist()) == sorted(pixels[pixels > 0].tolist())
        assert set(sample.weights.tolist()) == {1.0}


@pytest.mark.parametrize("budget", [1 << 20, 0])
def test_comparisons_take_each_image_by_itself(budget: int, workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % FLOAT)
    quantized = workshop.load(DATA + HEAD % WEIGHTS_AT_RANDOM)
    comparisons = [Agreement("scores", 1), SignalToNoise("scores")]

    def start() -> Any:
        return scoring_runner(net, rng=np.random.default_rng(0), comparisons=comparisons)

    outputs = FloatOutputs(comparisons, start, ArrayCache(budget) if budget else None)
    options = ScoringOptions(len(SIZES))
    rng = np.random.default_rng(0)
    own = Scorer(net, rng=rng, float_outputs=outputs, is_float=True).run(options)
    assert own.of("agreement:scores") == 1
    scores = Scorer(quantized, rng=rng, float_outputs=outputs).run(options)
    runners = [blobs(each, "scores") for each in (net, quantized)]
    same, signal, noise = [], 0.0, 0.0
    for image in images:
        one, other = (runner.run(feeds(image))["scores"].astype(np.float64) for runner in runners)
        same.append((one.argmax(1) == other.argmax(1)).mean())
        signal += np.square(one).sum()
        noise += np.square(one - other).sum()
    assert scores.of("agreement:scores") == pytest.approx(np.mean(same))
    assert scores.of("sqnr:scores") == pytest.approx(10 * np.log10(signal / noise))


def test_activations_of_images_of_different_sizes_are_not_cached(workshop: Any, images: list[Any]) -> None:
    net = workshop.load(DATA + HEAD % FLOAT)
    cut_point = cut_point_at(net, 4)
    assert cut_point is not None
    for count, usable in ((1, True), (2, False), (3, False)):
        prefix = Prefix(cut_point, ArrayCache(1 << 20))
        Scorer(net, rng=np.random.default_rng(0), save=[prefix]).run(ScoringOptions(count))
        assert prefix.is_valid_for(net, net, count) is usable


SELECTED = """
    layer { name: "i" type: "Input" top: "x" top: "label" top: "sel"
            input_param { shape { dim: 4 dim: 2 dim: 3 dim: 3 } shape { dim: 4 } shape { dim: 4 } } }
    layer { name: "pre" type: "Power" bottom: "x" top: "pre" power_param { shift: 1 } }
    layer { name: "f" type: "Filter" bottom: "pre" bottom: "label" bottom: "sel" top: "some" top: "labels" }
    layer { name: "relu" type: "ReLU" bottom: "some" top: "some" }
    layer { name: "conv" type: "Convolution" bottom: "some" top: "conv"
            convolution_param { num_output: 2 kernel_size: 2 weight_filler { type: "gaussian" } } }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
    layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
            inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
    layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "labels" top: "loss" }
"""


def batch(*passing: int, seed: int = 0) -> dict[str, Any]:
    selector = np.isin(np.arange(4), passing).astype(np.float32)
    x = np.random.default_rng(seed).normal(size=(4, 2, 3, 3)).astype(np.float32)
    return {"x": x, "label": np.float32([0, 1, 2, 0]), "sel": selector}


@pytest.mark.parametrize("passing", [(0, 1, 2, 3), (1, 3), (2,), ()])
def test_layers_after_a_filter_get_the_items_that_pass(passing: tuple[int, ...], workshop: Any) -> None:
    net = workshop.load(SELECTED)
    runner = blobs(net, "pre", "some", "labels", "prob", "loss")
    runner.run(batch(0, 2))
    found = runner.run(batch(*passing, seed=1))
    given = batch(*passing, seed=1)
    x = np.maximum(given["x"][list(passing)].astype(np.float64) + 1, 0)
    assert np.array_equal(found["pre"], given["x"] + 1)
    assert found["some"].shape == x.shape
    np.testing.assert_allclose(found["some"], x, rtol=1e-6)
    assert found["labels"].tolist() == given["label"][list(passing)].tolist()
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3)) if len(x) else np.zeros((0, 2, 2, 2, 2, 2))
    conv = np.einsum("nchwij,ocij->nohw", windows, net.weights["conv/0"].astype(np.float64))
    logits = conv.mean((2, 3)) @ net.weights["fc/0"].T.astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found["prob"], p, rtol=1e-5)
    own = p[np.arange(len(p)), found["labels"].astype(int)]
    assert found["loss"] == pytest.approx(-np.log(own).mean() if len(own) else 0, rel=1e-5)


def test_ranges_after_a_filter_cover_the_items_that_pass(workshop: Any) -> None:
    net = workshop.load(SELECTED)
    given = [batch(0, 2), batch(seed=1), batch(3, seed=2)]

    class Batches:
        def reader(self) -> Any:
            return self

        def __enter__(self) -> Any:
            self.next = iter(given).__next__
            return self

        def __exit__(self, *args: object) -> None: ...

    batches: Any = Batches()
    found: Any = measure_ranges(
        net, frozenset({"conv", "fc"}), 3, probe=Probe(samples=True), rng=np.random.default_rng(0), batches=batches
    )
    passed = [np.maximum(each["x"][each["sel"] > 0] + 1, 0) for each in given]
    assert found["conv"].layer_in == max(array.max(initial=0) for array in passed)
    assert found["conv"].input_energy == pytest.approx(
        8 * np.mean([np.square(array).mean() if array.size else 0 for array in passed]), rel=1e-5
    )
    values = np.concatenate([array.ravel() for array in passed])
    assert sorted(found["conv"].samples[Role.LAYER_IN].values.tolist()) == sorted(values[values > 0].tolist())


def test_a_filter_reads_each_batch_once(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = workshop.load(SELECTED)
    seen = []
    run = engine.HostLayers.run

    def watched(self: Any, feeds: Any, bottoms: Any) -> Any:
        seen.append(len(bottoms))
        return run(self, feeds, bottoms)

    monkeypatch.setattr(engine.HostLayers, "run", watched)
    runner = blobs(net, "loss")
    for i in range(3):
        runner.run(batch(i))
    assert seen == [1, 1, 1]


def test_a_static_graph_cannot_have_layers_after_a_filter(workshop: Any) -> None:
    with pytest.raises(RistrettoError) as caught:
        engine.record(workshop.load(SELECTED), rng=np.random.default_rng(0))
    assert str(caught.value) == (
        'net.prototxt:5: layer "f" (Filter) makes blobs whose shapes depend on the data: other layers can read them '
        "only while the net runs"
    )
