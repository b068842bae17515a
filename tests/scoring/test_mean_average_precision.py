"""Nets that find objects, scored by mean average precision."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.average_precision import ApVersion
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.metrics import check_score, default_score, is_loss
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.scoring.score import score_net
from ristretto_cli.scoring.scores import Scores, score_lines

SETTINGS = "detection_evaluate_param { num_classes: 2 overlap_threshold: 0.5 }"


def detector(folder: Any, text: str | None = None) -> Any:
    """The net of `bright_halves`, or another one with its weights."""
    if text is not None:
        folder.net(text)
    return load_net("net.prototxt", "net.caffemodel", NetState(), rng=np.random.default_rng(0))


def score(net: Any, iterations: int = 2, **settings: Any) -> Scores:
    return score_net(net, iterations, rng=np.random.default_rng(0), **settings)


@pytest.mark.parametrize(
    ("version", "expected"),
    # Right, right, wrong, wrong, of three objects: recalls up to 0.6 are reached, always with a precision of 1.
    [(ApVersion.INTEGRAL, 2 / 3), (ApVersion.MAX_INTEGRAL, 2 / 3), (ApVersion.ELEVEN_POINTS, 7 / 11)],
)
def test_detections_of_all_batches_are_evaluated_together(
    bright_halves: Any, version: ApVersion, expected: float
) -> None:
    scores = score(detector(bright_halves), metric_options=MetricOptions(version))
    assert scores.of("detection_eval") == pytest.approx(expected, abs=1e-6)
    (output,) = scores.outputs
    assert output.parts == {"class1": pytest.approx(expected, abs=1e-6)}


def test_it_is_no_mean_over_the_batches(bright_halves: Any) -> None:
    # Only the first batch: both objects are found first. Only the second: nothing right is found.
    net = detector(bright_halves)
    assert score(net, 1).of("detection_eval") == 1
    assert score(net, 4).of("detection_eval") == pytest.approx(2 / 3, abs=1e-6)


def test_the_log_has_a_line_for_each_class_and_none_for_each_batch(
    bright_halves: Any, caplog: pytest.LogCaptureFixture
) -> None:
    net = detector(bright_halves)
    caplog.set_level(logging.INFO, "ristretto")
    scores = score(net)
    lines = ["Loss: 0", "class1: 0.666667", "detection_eval = 0.666667"]
    assert score_lines(scores) == lines
    assert caplog.messages == ["Running for 2 iterations.", *lines]


def test_it_is_the_default_score_and_higher_is_better(bright_halves: Any) -> None:
    net = detector(bright_halves)
    assert default_score(net) == "detection_eval"
    assert not is_loss(net, "detection_eval")


def test_other_outputs_keep_their_means(bright_halves: Any) -> None:
    text = (bright_halves.folder / "net.prototxt").read_text()
    text += 'layer { name: "a" type: "Reduction" bottom: "data" top: "sum" reduction_param { axis: 0 } }'
    scores = score(detector(bright_halves, text))
    assert [output.blob for output in scores.outputs] == ["detection_eval", "sum"]
    assert scores.of("sum") == 550 / 256 / 2
    assert scores.of("detection_eval") == pytest.approx(2 / 3, abs=1e-6)


def test_a_truth_from_the_graph_is_read_by_the_host_layer(workshop: Any) -> None:
    import h5py

    with h5py.File("data.h5", "w") as file:
        file["found"] = np.array([[[[0, 1, 0.5, 0, 0, 1, 1]]], [[[0, 1, 0.25, 0, 0, 1, 1]]]], np.float32)
        file["truth"] = np.array([[[[0, 1, 0, 0, 0, 1, 1, 0]]], [[[-1] * 8]]], np.float32)
    (workshop.folder / "list.txt").write_text("data.h5\n")
    net = workshop.load(f"""
        layer {{ name: "d" type: "HDF5Data" top: "found" top: "truth"
                 hdf5_data_param {{ source: "list.txt" batch_size: 1 }} }}
        layer {{ name: "p" type: "Power" bottom: "found" top: "same" }}
        layer {{ name: "e" type: "DetectionEvaluate" bottom: "same" bottom: "truth" top: "map" {SETTINGS} }}
    """)
    # By score: right, wrong; of one object. Recall is complete at once.
    assert score(net).of("map") == 1


def test_outputs_with_as_many_items_as_the_data_makes_have_no_score(
    bright_halves: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = (bright_halves.folder / "net.prototxt").read_text().split('layer { name: "eval"')[0]
    net = detector(bright_halves, text)
    caplog.set_level(logging.INFO, "ristretto")
    assert [blob.name for blob in net.outputs] == ["found", "label"]
    assert [output.blob for output in score(net).outputs] == ["found"]
    assert caplog.messages[0] == "label (1x1x?x8) has a variable number of items and no score."
    with pytest.raises(RistrettoError, match='"label" is not an output of the net'):
        check_score(net, "label")


def test_a_net_of_nothing_but_such_outputs_is_refused(bright_halves: Any) -> None:
    net = detector(
        bright_halves,
        """
        layer { name: "d" type: "AnnotatedData" top: "data" top: "label"
                data_param { source: "test_db" backend: LMDB batch_size: 2 } }
        layer { name: "s" type: "Silence" bottom: "data" }
        """,
    )
    with pytest.raises(RistrettoError, match="the net has no outputs to score"):
        score(net)


def test_what_the_data_have_wrong_is_reported_with_the_layers_place(bright_halves: Any) -> None:
    text = (bright_halves.folder / "net.prototxt").read_text()
    classes = "detection_evaluate_param { num_classes: 2"
    net = detector(bright_halves, text.replace(classes, f"{classes} background_label_id: 1"))
    with pytest.raises(RistrettoError) as refused:
        score(net)
    line = text[: text.index('name: "eval"')].count("\n") + 1
    assert str(refused.value) == (
        f'net.prototxt:{line}: layer "eval" (DetectionEvaluate): there is an object of the background class in '
        "the detection results"
    )
