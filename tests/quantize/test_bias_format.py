"""Biases with a format of their own, from `--bw bias=` to the net that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.cli import quantize as cli_quantize
from ristretto_cli.net.build import NetState
from ristretto_cli.quantize.header import weights_of
from ristretto_cli.quantize.pipeline import planned_nets, quantize
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.net_files import score_file

from ..conftest import IDENTITY, NET

BIASED = NET.replace("kernel_size: 1 bias_term: false", "kernel_size: 1")
# A bias of 6 would cost the weights of conv three bits; it is the same for both classes.
WEIGHTS = {"conv": [*IDENTITY["conv"], [6.0, 6.0]], "fc": IDENTITY["fc"]}
ALL = {"conv_params": 4, "fc_params": 4, "layer": 16}


def fields(outcome: QuantizationResult, name: str) -> dict[str, int]:
    (layer,) = [each for each in outcome.net_file.message.layer if each.name == name]
    return {field.name: value for field, value in layer.quantization_param.ListFields()}


def test_weights_have_their_full_precision_and_only_layers_with_biases_get_the_fields(two_classes: Any) -> None:
    made = two_classes(weights=WEIGHTS)
    shared = quantize(made.job(text=BIASED, bw=ALL))
    own = quantize(made.job(text=BIASED, bw={**ALL, "bias": 12}))
    assert fields(shared, "conv")["fl_params"] == 0
    assert (fields(own, "conv")["fl_params"], fields(own, "fc")["fl_params"]) == (3, 3)
    assert (fields(own, "conv")["bw_bias"], fields(own, "conv")["fl_bias"]) == (12, 8)
    assert "bw_bias" not in fields(own, "fc")


def test_without_the_part_no_field_of_ours_is_written(two_classes: Any) -> None:
    outcome = quantize(two_classes(weights=WEIGHTS).job(text=BIASED, bw=ALL))
    outcome.write()
    text = Path("quantized.prototxt").read_text()
    assert "bias: " not in text
    assert "of their own" not in text


def test_the_other_parts_are_searched_and_biases_are_trimmed_with_the_weights(two_classes: Any) -> None:
    # Of two bits, biases of -0.2 and -0.76 become 0 and -1, which makes every image one of the first class.
    made = two_classes(weights={**WEIGHTS, "conv": [*IDENTITY["conv"], [-0.2, -0.76]]})
    config = made.job(text=BIASED, bw={"bias": 2}, error_margin_percent=100.0)
    assert not any("bias" in name for name in planned_nets(config))
    found = {group.group.name: group for group in quantize(config).search.groups}
    assert (found["bias"].given, found["bias"].bits, found["bias"].trials) == (True, 2, ())
    baseline = next(trial.score for trial in found["layer"].trials)
    assert next(trial.score for trial in found["fc_params"].trials) == baseline
    assert next(trial.score for trial in found["conv_params"].trials) != baseline


def test_the_summary_names_the_part_after_those_of_the_original(two_classes: Any) -> None:
    outcome = quantize(two_classes(weights=WEIGHTS).job(text=BIASED, bw={**ALL, "bias": 16}))
    lines = outcome.summary_lines()
    at = lines.index("Dynamic fixed point")
    assert lines[at : at + 3] == ["Dynamic fixed point", "biases:", "16bit: \tgiven"]
    assert "16bit biases:" in lines


def test_the_net_that_is_written_scores_as_the_search_did_and_says_who_reads_it(two_classes: Any) -> None:
    outcome = quantize(two_classes(weights=WEIGHTS).job(text=BIASED, bw={**ALL, "bias": 16}))
    outcome.write()
    assert outcome.search.combined is not None
    head = Path("quantized.prototxt").read_text().splitlines()[:3]
    assert head[1:] == [
        "# Weights: net.caffemodel",
        "# Biases have a format of their own, bw_bias and fl_bias, which the original cannot read.",
    ]
    scores = score_file("quantized.prototxt", weights_of("quantized.prototxt"), 2, state=NetState())
    assert {output.blob: output.score for output in scores.outputs}["accuracy"] == outcome.search.combined.score
    assert read_net("quantized.prototxt").message == outcome.net_file.message


def test_a_net_without_biases_is_warned_of_and_the_part_is_skipped(
    two_classes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = quantize(two_classes().job(bw={**ALL, "bias": 16}))
    assert "--bw bias has no effect: the net has no layers of this group." in caplog.text
    assert outcome.search.groups[-1].skipped
    assert "bias" not in outcome.as_json()["combined"]["bits"]


def run(*flags: str) -> Result:
    arguments = ["--model=net.prototxt", "--weights=net.caffemodel", *flags]
    return CliRunner().invoke(cli_quantize.command, arguments)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--trimming_mode=minifloat", "--bw=bias=16"), 'minifloat has no group "bias"; its groups: net'),
        (
            ("--trimming_mode=dynamic_fixed_point", "--bw=biases=16"),
            'dynamic_fixed_point has no group "biases"; its groups: conv_params, fc_params, layer, bias',
        ),
        (
            ("--trimming_mode=dynamic_fixed_point", "--bw=bias=16", "--legacy"),
            "--bw bias= has no effect with --legacy, which writes only what the original reads",
        ),
        (
            ("--trimming_mode=dynamic_fixed_point", "--bw=conv_params=8,fc_params=8,layer=8,bias=8", "--early_stop"),
            "--early_stop has no effect with --bw, which gives all widths",
        ),
    ],
)
def test_flags_that_contradict_the_part_are_refused(two_classes: Any, flags: tuple[str, ...], message: str) -> None:
    two_classes()
    result = run(*flags)
    assert result.exit_code != 0
    assert message in result.output


def test_bit_widths_still_apply_where_only_biases_are_given(two_classes: Any) -> None:
    two_classes(weights=WEIGHTS).workshop.net(BIASED)
    result = run(
        *("--trimming_mode=dynamic_fixed_point", "--bw=bias=16", "--bit_widths=16,8", "--iterations=2"), "--json=-"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["groups"][-1]["name"] == "bias"
    assert found["layers"]["conv"]["quantization_param"]["bw_bias"] == 16
