"""Running statistics that a training is too short to renew."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TRAIN
from ristretto_cli.layers.batch_norm import remaining_fraction
from ristretto_cli.train.stale_statistics import warn_of_stale_statistics

NET = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 1 dim: 2 } } }
    layer { name: "one" type: "BatchNorm" bottom: "x" top: "y" %s }
    layer { name: "two" type: "BatchNorm" bottom: "y" top: "z" %s }
"""
WEIGHTS = {name: [np.zeros(2), np.ones(2), np.full(1, 1000.0)] for name in ("one", "two")}


@pytest.mark.parametrize(
    ("factor", "fraction", "passes", "share"),
    [
        (1000, 0.999, 0, 1.0),
        (2, 0.5, 1, 0.5),  # 2 * 0.5 of old, and 1 of the pass
        (2, 0.5, 2, 0.25),  # 2 * 0.25, and 0.5 + 1
        (3, 1.0, 9, 0.25),
        (0, 0.999, 0, 0.0),
        (1, 2.0, 1, 2 / 3),  # 2 of old, and 1 of the pass
        (1, 2.0, 10_000, 0.5),
        (0, 0.999, 10, 0.0),
        (1000, 0.95, 60, 0.71),  # of the sums that 0.999 led to, 46 are left, and 0.95 leads to 20
    ],
)
def test_the_share_of_what_was_there(factor: float, fraction: float, passes: int, share: float) -> None:
    assert remaining_fraction(factor, fraction, passes) == pytest.approx(share, abs=0.005)


def test_a_short_training_is_warned_of_with_the_layer_that_lags_most(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    net = workshop.load(NET % ("batch_norm_param { moving_average_fraction: 0.99 }", ""), WEIGHTS, phase=TRAIN)
    with caplog.at_level(logging.WARNING, "ristretto"):
        warn_of_stale_statistics(net, 100)
    (line,) = caplog.messages
    said = 'Layer "two": after this training, 90 % of its statistics will still be the initial ones'
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("settings", "weights", "passes"),
    [
        ("", WEIGHTS, 5000),
        ("batch_norm_param { use_global_stats: true }", WEIGHTS, 10),
        ("", {name: [np.zeros(2), np.zeros(2), np.zeros(1)] for name in WEIGHTS}, 10),
    ],
    ids=["long", "stored", "fresh"],
)
def test_no_warning_where_they_are_updated_or_unchanged(
    workshop: Any, caplog: pytest.LogCaptureFixture, settings: str, weights: Any, passes: int
) -> None:
    net = workshop.load(NET % (settings, settings), weights, phase=TRAIN)
    with caplog.at_level(logging.WARNING, "ristretto"):
        warn_of_stale_statistics(net, passes)
    assert caplog.messages == []


@pytest.mark.parametrize(("settings", "warns"), [("momentum: 0.99", True), ("", False), ("frozen: true", False)])
def test_pspnets_bn_is_warned_of_too(
    workshop: Any, caplog: pytest.LogCaptureFixture, settings: str, warns: bool
) -> None:
    layer = 'layer { name: "bn" type: "BN" bottom: "x" top: "y" bn_param { slope_filler { value: 1 } %s } }'
    net = workshop.load(NET[: NET.index('layer { name: "one"')] + layer % settings, phase=TRAIN)
    with caplog.at_level(logging.WARNING, "ristretto"):
        warn_of_stale_statistics(net, 100)
    assert bool(caplog.messages) == warns
