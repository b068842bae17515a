"""Means of a net's outputs, and their log lines."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.metrics import check_score
from ristretto_cli.scoring.score import score_net
from ristretto_cli.scoring.scores import Output, Scores, score_lines, scores_as_json

# Four records in two classes: the image is the logits, and the third is named wrongly.
LOGITS = [[1, 0], [0, 1], [1, 0], [1, 0]]
LABELS = [0, 1, 1, 0]
DATA = """
    layer { name: "d" type: "Data" top: "data" top: "label"
            data_param { source: "db" backend: LMDB batch_size: %d } }
"""
CLASSIFIER = """
    layer { name: "acc" type: "Accuracy" bottom: "data" bottom: "label" top: "accuracy" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "loss" }
"""
RIGHT, WRONG = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))  # the losses of one image


def classifier(workshop: Any, batch: int = 2, layers: str = CLASSIFIER) -> Any:
    workshop.database("db", np.array(LOGITS, np.uint8).reshape(4, 2, 1, 1), LABELS)
    return workshop.load(DATA % batch + layers)


def score(net: Any, iterations: int, **settings: Any) -> Scores:
    return score_net(net, iterations, rng=np.random.default_rng(0), **settings)


def test_each_output_is_averaged_over_the_batches(workshop: Any) -> None:
    scores = score(classifier(workshop), 2)
    assert scores.of("accuracy") == 0.75
    assert scores.of("loss") == pytest.approx((3 * RIGHT + WRONG) / 4, abs=1e-6)
    assert scores.loss == pytest.approx(scores.of("loss"), abs=1e-7)
    assert scores.iterations == 2


def test_batches_wrap_around(workshop: Any) -> None:
    # The third batch is the first one again: 1, 0.5, 1.
    assert score(classifier(workshop), 3).of("accuracy") == pytest.approx(2.5 / 3, abs=1e-7)


def test_a_net_is_scored_from_the_first_record_on_each_time(workshop: Any) -> None:
    net = classifier(workshop)
    assert [score(net, 1).of("accuracy") for _ in range(2)] == [1, 1]


def test_the_log_is_that_of_caffes_test(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ristretto")
    score(classifier(workshop), 2)
    assert caplog.messages == [
        "Running for 2 iterations.",
        "Batch 0, accuracy = 1",
        "Batch 0, loss = 0.313262",
        "Batch 1, accuracy = 0.5",
        "Batch 1, loss = 0.813262",
        "Loss: 0.563262",
        "accuracy = 0.75",
        "loss = 0.563262 (* 1 = 0.563262 loss)",
    ]


def test_an_output_of_several_values_has_a_line_for_each(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ristretto")
    layers = """
        layer { name: "p" type: "Power" bottom: "data" top: "double" power_param { scale: 2 } }
        layer { name: "s" type: "Silence" bottom: "label" }
    """
    scores = score(classifier(workshop, 1, layers), 2)
    assert caplog.messages[1:] == [
        "Batch 0, double = 2",
        "Batch 0, double = 0",
        "Batch 1, double = 0",
        "Batch 1, double = 2",
        "Loss: 0",
        "double = 1",
        "double = 1",
    ]
    assert scores.of("double") == 1


def test_a_loss_counts_by_its_weight(workshop: Any) -> None:
    scores = score(classifier(workshop, 4, CLASSIFIER.replace('top: "loss"', 'top: "loss" loss_weight: 0.5')), 1)
    assert score_lines(scores) == [
        "Loss: 0.281631",
        "accuracy = 0.75",
        "loss = 0.563262 (* 0.5 = 0.281631 loss)",
    ]


def test_several_losses_are_added_up(workshop: Any) -> None:
    second = 'layer { name: "l2" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "l2" loss_weight: 4 }'
    scores = score(classifier(workshop, 4, CLASSIFIER + second), 1)
    assert score_lines(scores) == [
        "Loss: 2.81631",
        "accuracy = 0.75",
        "l2 = 0.563262 (* 4 = 2.25305 loss)",
        "loss = 0.563262 (* 1 = 0.563262 loss)",
    ]


def test_a_loss_that_another_layer_reads_counts_but_is_no_output(workshop: Any) -> None:
    reader = 'layer { name: "quiet" type: "Silence" bottom: "loss" }'
    scores = score(classifier(workshop, 4, CLASSIFIER + reader), 1)
    assert score_lines(scores) == ["Loss: 0.563262", "accuracy = 0.75"]


@pytest.mark.parametrize(("single_precision", "mean"), [(True, 5592405.5), (False, 5592406.0)])
def test_single_precision_loses_what_the_original_loses(workshop: Any, single_precision: bool, mean: float) -> None:
    # In float32, 2^24 + 1 is 2^24 again.
    workshop.database("db", np.array([2**24, 1, 1], np.float32).reshape(3, 1, 1, 1))
    only_data = DATA.replace('top: "label"', "") % 1
    net = workshop.load(only_data + 'layer { name: "p" type: "Power" bottom: "data" top: "y" }')
    assert score(net, 3, single_precision=single_precision).of("y") == mean


def test_progress_is_reported_batch_by_batch(workshop: Any) -> None:
    calls: list[tuple[int, int, str]] = []
    score(classifier(workshop), 3, label="testing", on_batch=lambda *args: calls.append(args))
    assert calls == [(1, 3, "testing"), (2, 3, "testing"), (3, 3, "testing")]


def test_a_score_that_is_no_number_is_warned_of(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    workshop.database("db", np.array([np.nan], np.float32).reshape(1, 1, 1, 1))
    layers = 'layer { name: "p" type: "Power" bottom: "data" top: "y" }'
    net = workshop.load(DATA.replace('top: "label"', "") % 1 + layers)
    assert math.isnan(score(net, 1).of("y"))
    assert caplog.messages == ["y is NaN or infinite, so the scores of this net are not reliable."]


def test_a_net_without_outputs_is_refused(workshop: Any) -> None:
    net = classifier(workshop, 2, 'layer { name: "s" type: "Silence" bottom: "data" bottom: "label" }')
    with pytest.raises(RistrettoError) as refused:
        score(net, 1)
    assert str(refused.value) == "net.prototxt: the net has no outputs to score"


def test_scores_as_json_hold_every_value() -> None:
    outputs = (Output("acc", 0.0, np.array([0.5])), Output("pair", 1.0, np.array([1.0, 3.0])))
    scores = Scores(outputs, loss=4.0, iterations=2)
    assert scores_as_json(scores) == {"loss": 4.0, "outputs": {"acc": [0.5], "pair": [1.0, 3.0]}}
    assert scores.of("pair") == 2


def test_a_score_that_is_no_output_is_refused_with_the_outputs(workshop: Any) -> None:
    net = classifier(workshop)
    assert check_score(net, "loss") == "loss"
    with pytest.raises(RistrettoError) as refused:
        check_score(net, "acuracy")
    assert str(refused.value) == (
        'net.prototxt: "acuracy" is not an output of the net. Did you mean accuracy? Outputs: accuracy, loss.'
    )
