"""What nets of a search share, and that no score shows it."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.net.build import NetState
from ristretto_cli.quantize.caching_scorer import CachingScorer
from ristretto_cli.quantize.config import QuantizeConfig, ReuseOptions
from ristretto_cli.quantize.pipeline import quantize
from ristretto_cli.scoring.array_cache import ArrayCache
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.scoring.score import ScoringOptions

from ..conftest import NET as TWO

NOTHING = ReuseOptions(prefixes=False, equal_nets=False)

# Images of 4x4 pixels, a convolution with a ReLU in place, a pooling, and two inner products.
NET = """
    name: "small"
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
            data_param { source: "db" backend: LMDB batch_size: 3 } transform_param { scale: 0.0078125 } }
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
            data_param { source: "db" backend: LMDB batch_size: 4 } transform_param { scale: 0.0078125 } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
            pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
    layer { name: "fc1" type: "InnerProduct" bottom: "pool" top: "fc1"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "relu1" type: "ReLU" bottom: "fc1" top: "fc1" }
    layer { name: "drop1" type: "Dropout" bottom: "fc1" top: "fc1" }
    layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
            inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "acc" type: "Accuracy" bottom: "fc2" bottom: "label" top: "accuracy" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc2" bottom: "label" top: "loss" }
"""


@pytest.fixture
def small(workshop: Any) -> Any:
    rng = np.random.default_rng(3)
    workshop.database("db", rng.integers(0, 256, (16, 2, 4, 4), dtype=np.uint8), list(rng.integers(0, 3, 16)))
    workshop.weights({name: _weights(rng, name) for name in ("conv", "fc1", "fc2")})

    def job(**settings: Any) -> QuantizeConfig:
        return QuantizeConfig(
            model=workshop.net(NET),
            weights="net.caffemodel",
            model_quantized="quantized.prototxt",
            **{"trimming_mode": "dynamic_fixed_point", "iterations": 3, "calibration_iterations": 2, **settings},
        )

    return job


def _weights(rng: np.random.Generator, name: str) -> list[Any]:
    shape = {"conv": (6, 2, 3, 3), "fc1": (5, 24), "fc2": (3, 5)}[name]
    return [rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape[0])]


def found(job: QuantizeConfig) -> tuple[dict[str, Any], str]:
    outcome = quantize(job)
    found = outcome.as_json()
    return {key: value for key, value in found.items() if key != "seconds"}, outcome.prototxt()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("mode", ["dynamic_fixed_point", "minifloat", "integer_power_of_2_weights"])
def test_nothing_that_is_found_depends_on_what_is_shared(small: Any, mode: str, legacy: bool) -> None:
    settings = {"trimming_mode": mode, "legacy": legacy, "score": "loss", "error_margin_percent": 3.0}
    unshared = found(small(cache_mb=0, reuse=NOTHING, **settings))
    assert found(small(**settings)) == unshared
    assert found(small(cache_mb=0, **settings)) == unshared
    for what in ("prefixes", "equal_nets"):
        assert found(small(reuse=ReuseOptions(**{**vars(NOTHING), what: True}), **settings)) == unshared


class Runs:
    """Counts onnxruntime's runs by what they are fed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fed: list[tuple[str, ...]] = []
        inner = Session.run

        def run(session: Session, feeds: Any) -> Any:
            self.fed.append(tuple(name for name in feeds if name in session._feeds))
            return inner(session, feeds)

        monkeypatch.setattr(Session, "run", run)


def test_trials_of_fc_weights_are_not_fed_images(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = small(bit_widths=(8,), error_margin_percent=100.0)
    quantize(job)  # the first net of a process tries onnxruntime's kernels with runs of its own
    runs = Runs(monkeypatch)
    quantize(job)
    assert runs.fed == [
        *[("data", "label")] * 3,  # the float net
        *[("data",)] * 2,  # ranges
        *[("data", "label")] * 3,  # 8bit CONV weights
        *[("label", "activation 4 3")] * 3,  # 8bit FC weights
        *[("data", "label")] * 6,  # 8bit layer activations, the combined net
    ]


def test_the_data_of_test_are_read_once(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    inner = DataLoader.next

    def counted(feeds: DataLoader) -> Any:
        batches.append(inner(feeds)["data"].shape[0])
        return inner(feeds)

    monkeypatch.setattr(DataLoader, "next", counted)
    quantize(small())
    assert batches == [4] * 3 + [3] * 2


def test_without_data_for_train_ranges_are_read_on_what_is_kept(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    inner = DataLoader.__init__

    def counted(feeds: DataLoader, *args: Any, **settings: Any) -> None:
        opened.append(1)
        inner(feeds, *args, **settings)

    monkeypatch.setattr(DataLoader, "__init__", counted)
    job = small()
    text = NET.replace("phase: TRAIN", "phase: TRAIN stage: 'never'")
    Path(job.model).write_text(text)
    quantize(job)
    assert len(opened) == 1


def test_no_more_than_two_nets_are_in_memory(tried_kernels: None, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Session] = weakref.WeakSet()
    most = []
    inner = Session.__init__

    def init(session: Session, *args: Any, **settings: Any) -> None:
        alive.add(session)
        most.append(len(alive))
        inner(session, *args, **settings)

    monkeypatch.setattr(Session, "__init__", init)
    job = small()
    gc.disable()  # it is not Python's search for cycles that frees them
    try:
        outcome = quantize(job)
        assert outcome.search.combined is not None
        assert max(most) <= 1
        assert len(alive) == 0
    finally:
        gc.enable()


def test_equal_nets_are_scored_once(two_classes: Any, caplog: pytest.LogCaptureFixture) -> None:
    # The original searches FC weights in nets that have none: five times the float net.
    caplog.set_level(logging.INFO, "ristretto")
    start = TWO.index('    layer { name: "fc"')
    text = (TWO[:start] + TWO[TWO.index('    layer { name: "acc"') :]).replace('bottom: "fc"', 'bottom: "conv"')
    outcome = quantize(two_classes().job(text=text, legacy=True, bit_widths=(16, 8)))
    assert [t.score for t in outcome.search.groups[1].trials] == [outcome.baseline] * 2
    assert caplog.messages.count("Same net as the float net: its scores are reused.") == 2


class StopAfter:
    """A stopping rule that needs so many batches."""

    blob = "accuracy"

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def should_stop(self, total: float, done: int) -> bool:
        return done == self._batches


def test_a_score_of_some_batches_is_not_taken_for_that_of_all(small: Any) -> None:
    job = small()
    net_file = read_net(job.model)
    net = load_net(job.model, job.weights, NetState(), rng=np.random.default_rng(0))
    scorer = CachingScorer(
        net_file,
        net,
        ScoringOptions(3),
        rng=np.random.default_rng(0),
        execution=Execution(),
        cache=ArrayCache(1 << 20),
        reuse=ReuseOptions(),
    )
    stopped = scorer.score("one", net_file, StopAfter(2))
    in_full = scorer.score("the same", net_file)
    again = scorer.score("the same again", net_file, StopAfter(1))
    assert (stopped.iterations, in_full.iterations, again.iterations) == (2, 3, 3)


@pytest.mark.parametrize("layer", ["drop0", "drop1"], ids=["before a cut", "after it"])
def test_what_is_random_is_the_same_whatever_is_shared(small: Any, layer: str) -> None:
    # A layer that is always in TRAIN drops at random.
    plain = found(small(score="loss", bit_widths=(16,)))[0]
    dropout = 'layer { name: "drop0" type: "Dropout" bottom: "pool" top: "pool" }\n'
    text = NET.replace('    layer { name: "fc1"', f'    {dropout}    layer {{ name: "fc1"').replace(
        f'{{ name: "{layer}"', f'{{ phase: TRAIN name: "{layer}"'
    )
    job = small(score="loss", error_margin_percent=100.0, bit_widths=(16, 8))
    Path(job.model).write_text(text)
    unshared = found(replace(job, cache_mb=0, reuse=NOTHING))
    assert found(job) == unshared
    assert unshared[0]["baseline"]["loss"] != plain["baseline"]["loss"]


def test_the_time_is_logged(small: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ristretto")
    quantize(small())
    words = caplog.messages[-1].split()
    assert caplog.messages[-1].startswith("Seconds: reading data ")
    assert words[4:6] == ["building", "nets"]
    assert words[7] == "running"
