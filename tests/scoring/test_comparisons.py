"""Scores without labels: which blob of a net is compared, and the values of agreement and signal to noise ratio."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.comparisons import (
    Agreement,
    SignalToNoise,
    comparison_of,
    comparisons_for,
    default_comparison,
)

INPUTS = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 4 dim: 1 dim: 1 }
        shape { dim: 2 } } }
"""


def fc(bottom: str, top: str) -> str:
    settings = "inner_product_param { num_output: 3 }"
    return f'layer {{ name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {settings} }}\n'


def layer(kind: str, bottoms: str, top: str, settings: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{top}" type: "{kind}" {read} top: "{top}" {settings} }}\n'


def compared(workshop: Any, score: str, *layers: str) -> Any:
    return comparison_of(workshop.load(INPUTS + "".join(layers)), score)


# --- the blob


@pytest.mark.parametrize(
    ("layers", "blob"),
    [
        ([fc("x", "a"), layer("Accuracy", "a y", "acc")], "a"),
        ([fc("x", "a"), layer("SoftmaxWithLoss", "a y", "loss")], "a"),
        ([fc("x", "a"), layer("Softmax", "a", "prob")], "prob"),
        ([fc("x", "a")], "a"),
        # A softmax for users, and the layers that score: the blob that these read.
        ([fc("x", "a"), layer("Softmax", "a", "prob"), layer("Accuracy", "a y", "acc")], "a"),
    ],
)
def test_class_scores_are_what_heads_read_or_the_output(workshop: Any, layers: list[str], blob: str) -> None:
    assert compared(workshop, "agreement", *layers) == Agreement(blob, 1)
    assert compared(workshop, "sqnr", *layers) == SignalToNoise(blob)


def test_the_prediction_that_a_loss_reads_is_not_its_label(workshop: Any) -> None:
    target = layer("Input", "", "target", "input_param { shape { dim: 2 dim: 3 } }")
    layers = [target, fc("x", "a"), layer("EuclideanLoss", "target a", "loss")]
    assert compared(workshop, "sqnr", *layers) == SignalToNoise("a")


def test_the_axis_of_classes_is_that_of_the_layer(workshop: Any) -> None:
    reshaped = layer("Reshape", "x", "r", "reshape_param { shape { dim: 2 dim: 2 dim: 2 } }")
    softmax = layer("Softmax", "r", "prob", "softmax_param { axis: -1 }")
    assert compared(workshop, "agreement", reshaped, softmax) == Agreement("prob", 2)
    assert compared(workshop, "agreement:r", reshaped, softmax) == Agreement("r", 1)
    assert compared(workshop, "agreement:prob", reshaped, softmax) == Agreement("prob", 2)


def test_of_several_predictions_the_deepest_is_compared_with_a_warning(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    layers = [fc("x", "aux"), layer("Softmax", "aux", "p1"), fc("x", "a"), fc("a", "b"), layer("Softmax", "b", "p2")]
    assert compared(workshop, "agreement", *layers) == Agreement("p2", 1)
    assert caplog.messages == [
        "The net has 2 predictions. agreement is that of p2, at the end of the longest path; others: p1. "
        "Choose with --score agreement:BLOB."
    ]


@pytest.mark.parametrize(("score", "found"), [("loss", None), ("accuracy", None), ("agreements", None)])
def test_other_names_are_no_comparisons(workshop: Any, score: str, found: None) -> None:
    assert compared(workshop, score, fc("x", "a")) is found


def test_an_output_with_the_name_of_a_comparison_is_meant_and_that_is_said(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    layers = [fc("x", "a"), layer("Accuracy", "a y", "agreement")]
    assert compared(workshop, "agreement", *layers) is None
    assert caplog.messages == [
        'The net has an output "agreement", which is the score. '
        "--score agreement:BLOB compares the net with the float net."
    ]
    assert compared(workshop, "agreement:a", *layers) == Agreement("a", 1)


@pytest.mark.parametrize(
    ("score", "layers", "message"),
    [
        ("agreement:b", [fc("x", "bb")], 'the net has no blob "b" for --score agreement. Did you mean bb?'),
        ("sqnr:x", [fc("x", "a")], "--score sqnr:x is not possible: the blob comes from the data."),
        (
            "agreement",
            [fc("x", "a"), layer("EuclideanLoss", "a a", "loss")],
            "the net has no class scores that --score agreement could compare. "
            "Name a blob with --score agreement:BLOB. For other outputs use --score sqnr.",
        ),
        (
            "agreement:sum",
            [layer("Reduction", "x", "sum", "reduction_param { axis: 1 }")],
            '--score agreement:sum is not possible: "sum" (2) has no scores of several classes.',
        ),
        ("sqnr", [], "the net has no outputs in the graph that --score sqnr could compare."),
    ],
)
def test_blobs_that_cannot_be_compared(workshop: Any, score: str, layers: list[str], message: str) -> None:
    with pytest.raises(RistrettoError) as refused:
        compared(workshop, score, *layers)
    assert message in str(refused.value)


def test_a_detector_is_compared_before_its_detections(bright_halves: Any) -> None:
    net = bright_halves.load((bright_halves.folder / "net.prototxt").read_text())
    assert comparison_of(net, "sqnr") == SignalToNoise("loc_f")
    with pytest.raises(RistrettoError, match="is computed by a DetectionEvaluate layer, outside the graph"):
        comparison_of(net, "sqnr:detection_eval")


def test_class_scores_are_taken_before_argmax(workshop: Any) -> None:
    assert compared(workshop, "agreement", fc("x", "a"), layer("ArgMax", "a", "class")) == Agreement("a", 1)


def test_only_a_softmax_makes_agreement_the_default(workshop: Any) -> None:
    assert default_comparison(workshop.load(INPUTS + fc("x", "a") + layer("Softmax", "a", "p"))) == Agreement("p", 1)
    assert default_comparison(workshop.load(INPUTS + fc("x", "a"))) is None


def test_two_nets_are_compared_in_all_ways_by_default(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    classes = workshop.load(INPUTS + fc("x", "a") + layer("Softmax", "a", "p"))
    assert comparisons_for(classes, None) == [Agreement("p", 1), SignalToNoise("p")]
    assert comparisons_for(workshop.load(INPUTS + fc("x", "a")), None) == [SignalToNoise("a")]
    tasks = workshop.load(INPUTS + fc("x", "a") + layer("Softmax", "a", "p") + fc("x", "box"))
    assert comparisons_for(tasks, None) == [Agreement("p", 1), SignalToNoise("p"), SignalToNoise("box")]
    assert caplog.messages == []
    with pytest.raises(RistrettoError, match='"loss" does not compare two nets'):
        comparisons_for(classes, "loss")


# --- the values


def test_agreement_is_the_share_of_equal_classes() -> None:
    expected = np.array([[1, 2, 0], [5, 4, 4], [0, 0, 1], [3, 1, 2]], np.float32)
    found = np.array([[0, 9, 0], [4, 5, 4], [math.nan, 0, 1], [3, 3, 2]], np.float32)
    agreement = Agreement("x", 1)
    # The same class, another one, not a number, and of equal ones the first.
    assert agreement.measure(expected, found) == [0.5]
    assert agreement.score(np.array([0.5 + 1.0]), 2) == 0.75


def test_agreement_of_images_is_that_of_their_positions() -> None:
    expected = np.zeros((1, 2, 2, 2), np.float32)
    expected[:, 1] = [[1, 1], [-1, -1]]
    found = expected.copy()
    found[0, 1, 0, 0] = -1
    assert Agreement("x", 1).measure(expected, found) == [0.75]


def test_signal_to_noise_is_that_of_all_batches_together() -> None:
    ratio = SignalToNoise("x")
    loud, quiet = np.full(10, 100.0, np.float32), np.full(10, 1.0, np.float32)
    sums = ratio.measure(loud, loud + 1) + ratio.measure(quiet, quiet)
    assert sums.tolist() == [100010.0, 10.0]
    assert ratio.score(sums, 2) == pytest.approx(40.0, abs=1e-3)


@pytest.mark.parametrize(
    ("expected", "found", "score"),
    [
        ([1, 2], [1, 2], math.inf),
        ([0, 0], [0, 0], math.inf),
        ([0, 0], [1, 0], -math.inf),
        ([3, 4], [0, 0], 0.0),
        ([1, 2], [math.nan, 2], math.nan),
        ([1, 2], [math.inf, 2], math.nan),
    ],
)
def test_signal_to_noise_at_its_limits(expected: list[float], found: list[float], score: float) -> None:
    ratio = SignalToNoise("x")
    sums = ratio.measure(np.array(expected, np.float32), np.array(found, np.float32))
    assert ratio.score(sums, 1) == pytest.approx(score, nan_ok=True)
