"""The summary, line for line as the original prints it, and where it says more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST, Message, new
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.formats.number_format import LOSSLESS_BITS, MODES, Ranges
from ristretto_cli.net.ir import Layer
from ristretto_cli.quantize.config import QuantizeConfig
from ristretto_cli.quantize.margin import Goal, Margin
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.quantize.search import Evaluation, GroupResult, SearchResult
from ristretto_cli.quantize.trimmable import LeftFloat, Trimmable
from ristretto_cli.scoring.scores import Output, Scores

RULE = "------------------------------"


def scores(value: float) -> Scores:
    return Scores((Output("accuracy", 0.0, np.array([value], np.float32)),), loss=0.5, iterations=10)


def trial(bits: int, score: float, passed: bool = True) -> Evaluation:
    return Evaluation(bits, score, passed, scores(score))


def job(mode: str, **settings: Any) -> QuantizeConfig:
    return QuantizeConfig("net.prototxt", "net.caffemodel", "q.prototxt", mode, **settings)


def outcome(mode: str, groups: list[GroupResult], combined: Evaluation | None, baseline: float) -> QuantizationResult:
    conv = Layer("conv1", "Convolution", TEST, new("LayerParameter"), (), ())
    return QuantizationResult(
        config=job(mode),
        mode=MODES.get(mode),
        score_blob="accuracy",
        margin=Margin(baseline, 2.0),
        baseline_scores=scores(baseline),
        layers=(Trimmable(conv, "CONV", Ranges(1.0, 6.0, 0.75)),),
        search=SearchResult(tuple(groups), {}, combined),
        net_file=NetFile("net.prototxt", _net(), ()),
    )


def summary_lines(config: QuantizeConfig, found: QuantizationResult) -> list[str]:
    return replace(found, config=config).summary_lines()


def notes(config: QuantizeConfig, found: QuantizationResult) -> list[str]:
    return replace(found, config=config).notes()


def as_json(config: QuantizeConfig, found: QuantizationResult) -> dict[str, Any]:
    return replace(found, config=config).as_json()


def groups(mode: str, *found: tuple[list[Evaluation], int]) -> list[GroupResult]:
    return [
        GroupResult(group, tuple(trials), bits, skipped=not trials)
        for group, (trials, bits) in zip(MODES.get(mode).groups, found, strict=True)
    ]


DYNAMIC = "dynamic_fixed_point"
LENET = groups(
    DYNAMIC,
    ([trial(16, 0.992), trial(8, 0.992), trial(4, 0.9913), trial(2, 0.5971, False)], 4),
    ([trial(16, 0.992), trial(8, 0.992), trial(4, 0.9897), trial(2, 0.428, False)], 4),
    ([trial(16, 0.9904), trial(8, 0.9898), trial(4, 0.9639, False)], 8),
)


def test_dynamic_fixed_point_reads_as_the_originals_log_of_lenet() -> None:
    found = outcome(DYNAMIC, LENET, trial(4, 0.9873), 0.992)
    expected = [
        RULE,
        "Network accuracy analysis for",
        "Convolutional (CONV) and fully",
        "connected (FC) layers.",
        "Baseline 32bit float: 0.992",
        "Dynamic fixed point CONV",
        "weights: ",
        "16bit: \t0.992",
        "8bit: \t0.992",
        "4bit: \t0.9913",
        "2bit: \t0.5971",
        "Dynamic fixed point FC",
        "weights: ",
        "16bit: \t0.992",
        "8bit: \t0.992",
        "4bit: \t0.9897",
        "2bit: \t0.428",
        "Dynamic fixed point layer",
        "activations:",
        "16bit: \t0.9904",
        "8bit: \t0.9898",
        "4bit: \t0.9639",
        "Dynamic fixed point net:",
        "4bit CONV weights,",
        "4bit FC weights,",
        "8bit layer activations:",
        "Accuracy: 0.9873",
        "Please fine-tune.",
    ]
    for legacy in (True, False):
        assert summary_lines(job(DYNAMIC, legacy=legacy), found) == expected


def test_minifloat_reads_as_the_originals_log_of_lenet() -> None:
    trials = [trial(16, 0.992), trial(8, 0.9903)]
    found = outcome("minifloat", groups("minifloat", (trials, 8)), trials[1], 0.992)
    expected = [
        RULE,
        "Network accuracy analysis for",
        "Convolutional (CONV) and fully",
        "connected (FC) layers.",
        "Baseline 32bit float: 0.992",
        "Minifloat net:",
        "16bit: \t0.992",
        "8bit: \t0.9903",
        "Please fine-tune.",
    ]
    for legacy in (True, False):
        assert summary_lines(job("minifloat", legacy=legacy), found) == expected


def test_power_of_two_weights_read_as_the_originals_log_of_lenet() -> None:
    mode = "integer_power_of_2_weights"
    only = trial(4, 0.9896)
    found = outcome(mode, groups(mode, ([only], 4)), only, 0.992)
    assert summary_lines(job(mode), found) == [
        RULE,
        "Network accuracy analysis for",
        "Integer-power-of-two weights",
        "in Convolutional (CONV) and",
        "fully connected (FC) layers.",
        "Baseline 32bit float: 0.992",
        "Quantized net:",
        "4bit: \t0.9896",
        "Please fine-tune.",
    ]


def test_a_width_that_was_given_is_reported_as_that() -> None:
    given = GroupResult(MODES.get(DYNAMIC).groups[1], (), 3, given=True)
    lines = summary_lines(job(DYNAMIC), outcome(DYNAMIC, [LENET[0], given, LENET[2]], trial(8, 0.98), 0.99))
    assert lines[lines.index("Dynamic fixed point FC") :][:4] == [
        "Dynamic fixed point FC",
        "weights: ",
        "3bit: \tgiven",
        "Dynamic fixed point layer",
    ]
    assert "3bit FC weights," in lines
    whole = GroupResult(MODES.get("minifloat").groups[0], (), 9, given=True)
    for legacy in (True, False):
        lines = summary_lines(job("minifloat", legacy=legacy), outcome("minifloat", [whole], trial(9, 0.98), 0.99))
        assert lines[lines.index("Minifloat net:") :] == [
            "Minifloat net:",
            "9bit: \tgiven",
            "9bit: \t0.98",
            "Please fine-tune.",
        ]


def test_a_group_without_layers_is_reported_and_left_out_of_the_net() -> None:
    found = outcome(DYNAMIC, [LENET[0], *groups(DYNAMIC, ([], 1), ([], 1), ([], 1))[1:2], LENET[2]], None, 0.99)
    lines = summary_lines(job(DYNAMIC), found)
    assert lines[lines.index("Dynamic fixed point FC") :][:4] == [
        "Dynamic fixed point FC",
        "weights: ",
        "none: the net has no such layers",
        "Dynamic fixed point layer",
    ]
    assert lines[-4:] == [
        "Dynamic fixed point net:",
        "4bit CONV weights,",
        "8bit layer activations:",
        "Please fine-tune.",
    ]


# --- what the original does not say


def test_the_notes_name_the_scored_output_and_the_file() -> None:
    found = outcome(DYNAMIC, LENET, trial(8, 0.9, passed=False), 0.925)
    for legacy, verdict in (
        (False, ["The error margin is missed: accuracy is 2.5 percentage points below the baseline; the margin is 2."]),
        (True, []),
    ):
        assert notes(job(DYNAMIC, legacy=legacy), found) == [
            "Scored by accuracy: higher is better.",
            *verdict,
            "Written to q.prototxt",
        ]


def test_a_net_that_was_not_scored_has_a_file_without_the_margin() -> None:
    found = outcome("minifloat", groups("minifloat", ([trial(16, 0.1, False)], 32)), None, 0.9)
    assert notes(job("minifloat"), found) == ["Written to q.prototxt"]


@pytest.mark.parametrize(
    ("baseline", "score", "margin", "verdict"),
    [
        (0.861111, 0.8, 3.0, "missed: accuracy is 6.1 percentage points below the baseline; the margin is 3."),
        (0.9, 0.895, 2.0, "kept: accuracy is 0.5 percentage points below the baseline; the margin is 2."),
        (0.9, 0.89, 2.0, "kept: accuracy is 1 percentage point below the baseline; the margin is 2."),
        (0.9, 0.907, 2.0, "kept: accuracy is 0.7 percentage points above the baseline; the margin is 2."),
        (0.9, 0.9, 2.5, "kept: accuracy is equal to the baseline; the margin is 2.5 percentage points."),
        (0.9, 0.8698, 3.0, "missed: accuracy is 3.02 percentage points below the baseline; the margin is 3."),
        (0.9, 0.8996, 2.0, "kept: accuracy is 0.04 percentage points below the baseline; the margin is 2."),
        (0.92, 0.9, 2.0, "kept: accuracy is 2 percentage points below the baseline; the margin is 2."),
        (0.9, math.nan, 2.0, "missed: accuracy is not a finite number."),
    ],
)
def test_the_margin_of_an_accuracy_is_in_percentage_points(
    baseline: float, score: float, margin: float, verdict: str
) -> None:
    assert _verdict(Margin(baseline, margin), score) == verdict


@pytest.mark.parametrize(
    ("baseline", "score", "verdict"),
    [
        (0.5, 0.6, "missed: accuracy is 20 % above the baseline; the margin is 2 %."),
        (0.5, 0.505, "kept: accuracy is 1 % above the baseline; the margin is 2 %."),
        (0.5, 0.45, "kept: accuracy is 10 % below the baseline; the margin is 2 %."),
        (-0.5, -0.25, "missed: accuracy is 50 % above the baseline; the margin is 2 %."),
        (0.0, 0.0, "kept: accuracy is equal to the baseline; the margin is 2 %."),
        (0.0, 0.25, "missed: accuracy is 0.25 above the baseline, 0; the margin is 2 % of the baseline."),
        (1e-15, 2e-9, "missed: accuracy is 2e-09 above the baseline, 1e-15; the margin is 2 % of the baseline."),
    ],
)
def test_the_margin_of_a_loss_is_in_percent_of_it_where_that_says_something(
    baseline: float, score: float, verdict: str
) -> None:
    assert _verdict(Margin(baseline, 2.0, goal=Goal.MIN), score) == verdict


def _verdict(margin: Margin, score: float) -> str:
    found = outcome(DYNAMIC, LENET, trial(8, score, margin.allows(score)), margin.baseline)
    line = notes(job(DYNAMIC), replace(found, margin=margin))[1]
    assert line.startswith("The error margin is ")
    return line.removeprefix("The error margin is ")


def test_other_outputs_of_one_number_are_reported_for_both_nets() -> None:
    def several(accuracy: float, loss: float) -> Scores:
        values = {"accuracy": [accuracy], "classes": [0.5, 0.7], "loss": [loss], "zacc": [accuracy / 2]}
        outputs = (Output(name, 0.0, np.array(each, np.float64)) for name, each in values.items())
        return Scores(tuple(outputs), loss=loss, iterations=10)

    combined = Evaluation(8, 0.75, True, several(0.75, 0.5))
    found = replace(outcome(DYNAMIC, LENET, combined, 0.75), baseline_scores=several(0.75, 0.25))
    for legacy in (False, True):
        lines = notes(job(DYNAMIC, legacy=legacy), found)
        at = lines.index("Other outputs (float net, quantized net):")
        assert lines[at + 1 :] == ["loss: 0.25, 0.5", "zacc: 0.375, 0.375", "Written to q.prototxt"]
    assert as_json(job(DYNAMIC), found)["other_outputs"] == {
        "loss": {"float": 0.25, "combined": 0.5},
        "zacc": {"float": 0.375, "combined": 0.375},
    }


def test_layers_left_float_are_reported_by_type_with_their_share() -> None:
    layers = (
        LeftFloat("bn1", "BatchNorm", 3, 0.0003),
        LeftFloat("memory", "LSTM", 910, 0.91),
        *(LeftFloat(f"s{i}", "Scale", 4, 0.004, 0.001) for i in range(1, 6)),
    )
    found = replace(outcome(DYNAMIC, LENET, trial(8, 0.99), 0.99), left_float=layers)
    lines = notes(job(DYNAMIC), found)
    assert lines[lines.index("Left float:") :] == [
        "Left float:",
        "memory (LSTM): 91.0 % of the parameters, no MACs",
        "s1, s2, s3 and 2 more (Scale): 2.0 % of the parameters, 0.5 % of the MACs",
        "bn1 (BatchNorm): less than 0.1 % of the parameters, no MACs",
        "Written to q.prototxt",
    ]
    data = as_json(job(DYNAMIC), found)["left_float"]
    assert data[1] == {"name": "memory", "type": "LSTM", "parameters": 910, "share": 0.91, "macs_share": 0.0}
    assert len(data) == 7


def test_a_32_bit_minifloat_net_that_had_to_be_scored_has_its_line() -> None:
    found = outcome("minifloat", groups("minifloat", ([trial(16, 0.1, False)], 32)), trial(LOSSLESS_BITS, 0.9), 0.9)
    assert summary_lines(job("minifloat"), found)[-3:] == ["16bit: \t0.1", "32bit: \t0.9", "Please fine-tune."]


def test_the_original_leaves_the_unscored_net_out() -> None:
    found = outcome("minifloat", groups("minifloat", ([trial(16, 0.1, False)], 32)), None, 0.9)
    assert summary_lines(job("minifloat", legacy=True), found)[-2:] == ["16bit: \t0.1", "Please fine-tune."]


def test_numbers_have_six_significant_digits() -> None:
    found = outcome(DYNAMIC, LENET, trial(4, 0.04058049), 0.57678123)
    lines = summary_lines(job(DYNAMIC), found)
    assert "Baseline 32bit float: 0.576781" in lines
    assert "Accuracy: 0.0405805" in lines


def test_a_score_that_is_no_number_is_printed_as_such() -> None:
    found = outcome(DYNAMIC, LENET, trial(4, math.nan), 0.9)
    assert "Accuracy: nan" in summary_lines(job(DYNAMIC), found)


def test_json_holds_the_job_the_ranges_and_every_trial() -> None:
    found = outcome(DYNAMIC, LENET, trial(8, 0.9873), 0.992)
    data = as_json(job(DYNAMIC, iterations=100), found)
    given = ("model", "weights", "model_quantized", "trimming_mode", "score", "score_goal")
    assert {key: data[key] for key in given} == {
        "model": "net.prototxt",
        "weights": "net.caffemodel",
        "model_quantized": "q.prototxt",
        "trimming_mode": "dynamic_fixed_point",
        "score": "accuracy",
        "score_goal": "max",
    }
    assert (data["iterations"], data["calibration_iterations"], data["error_margin"]) == (100, 10, 2.0)
    assert data["error_margin_unit"] == "percentage points"
    assert data["legacy"] is False
    assert data["baseline"]["score"] == 0.992
    assert data["layers"] == {
        "conv1": {
            "family": "CONV",
            "max_in": 1.0,
            "max_out": 6.0,
            "max_params": 0.75,
            "il_in": 0,
            "il_out": 3,
            "il_params": 1,
            "bits": None,  # no quantized type
            "quantization_param": {"precision": "MINIFLOAT", "mant_bits": 3},
        }
    }
    assert [(g["part"], g["bits"], g["skipped"]) for g in data["groups"]] == [
        ("CONV weights", 4, False),
        ("FC weights", 4, False),
        ("layer activations", 8, False),
    ]
    assert [t["bits"] for t in data["groups"][0]["trials"]] == [16, 8, 4, 2]
    assert [t["passed"] for t in data["groups"][0]["trials"]] == [True, True, True, False]
    assert data["groups"][0]["trials"][3]["loss"] == 0.5
    assert [g["name"] for g in data["groups"]] == ["conv_params", "fc_params", "layer"]
    assert data["combined"]["score"] == 0.9873
    assert data["combined"]["bits"] == {"conv_params": 4, "fc_params": 4, "layer": 8}
    assert data["combined"]["worse_by"] == pytest.approx(0.47)
    asked = job(DYNAMIC, iterations=100)
    assert data["summary"] == [*summary_lines(asked, found), *notes(asked, found)]


def test_json_has_no_bits_for_a_part_without_layers() -> None:
    found = outcome(DYNAMIC, [LENET[0], *groups(DYNAMIC, ([], 1), ([], 1), ([], 1))[1:2], LENET[2]], trial(8, 0.9), 0.9)
    assert as_json(job(DYNAMIC), found)["combined"]["bits"] == {"conv_params": 4, "layer": 8}


def test_json_of_a_net_that_was_not_scored() -> None:
    data = as_json(job(DYNAMIC), outcome(DYNAMIC, LENET, None, 0.9))
    assert (data["combined"], data["other_outputs"]) == (None, {})


def _net() -> Message:
    net = new("NetParameter")
    layer = net.layer.add(name="conv1")
    layer.quantization_param.precision = layer.quantization_param.MINIFLOAT
    layer.quantization_param.mant_bits = 3
    return net
