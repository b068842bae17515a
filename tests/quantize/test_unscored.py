"""--noscore, and nets without an output to score by: the widths are given, ranges are measured, no net is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.errors import RistrettoError
from ristretto_cli.quantize import caching_scorer
from ristretto_cli.quantize.pipeline import quantize

from ..conftest import NET

FLAGS = ["quantize", "--model=net.prototxt", "--weights=net.caffemodel", "--json=found.json"]
FIXED = [*FLAGS, "--trimming_mode=dynamic_fixed_point"]
ALL = {"conv_params": 3, "fc_params": 2, "layer": 5}
GIVEN = "--bw=conv_params=3,fc_params=2,layer=5"
START = NET.index('    layer { name: "fc"')
CONVOLUTION_ALONE = NET[:START]


def without(net: str, *types: str) -> str:
    """The text of a net less the layers of some types, each of which stands on lines of its own."""
    layers = net.split("    layer {")
    return "    layer {".join(each for each in layers if not any(f'type: "{name}"' in each for name in types))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is scored while the test runs."""
    made: list[object] = []
    inner = caching_scorer.Scorer.run

    def run_and_note(scorer: caching_scorer.Scorer, wanted: caching_scorer.ScoringOptions) -> Any:
        made.append(wanted.label)
        return inner(scorer, wanted)

    monkeypatch.setattr(caching_scorer.Scorer, "run", run_and_note)
    return made


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("mode", "bw"),
    [("dynamic_fixed_point", ALL), ("minifloat", {"net": 9}), ("integer_power_of_2_weights", {"net": 4})],
)
def test_the_net_is_the_one_that_is_written_with_scores(
    two_classes: Any, scored: list[object], mode: str, bw: dict[str, int], legacy: bool
) -> None:
    files = two_classes()
    expected = quantize(files.job(mode, bw=bw, legacy=legacy))
    assert scored
    scored.clear()
    outcome = quantize(files.job(mode, bw=bw, legacy=legacy, noscore=True))
    assert not scored
    assert outcome.net_file.message == expected.net_file.message
    assert outcome.search.widths == expected.search.widths
    assert (outcome.baseline, outcome.search.combined) == (None, None)


def test_the_summary_and_the_json_say_that_nothing_was_scored(
    two_classes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    two_classes()
    assert run([*FIXED, GIVEN, "--noscore", "--model_quantized=q.prototxt"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[4:] == [
        "Baseline 32bit float: not scored",
        "Dynamic fixed point CONV",
        "weights: ",
        "3bit: \tgiven",
        "Dynamic fixed point FC",
        "weights: ",
        "2bit: \tgiven",
        "Dynamic fixed point layer",
        "activations:",
        "5bit: \tgiven",
        "Dynamic fixed point net:",
        "3bit CONV weights,",
        "2bit FC weights,",
        "5bit layer activations:",
        "Accuracy: not scored",
        "Please fine-tune.",
        "Written to q.prototxt",
    ]
    found = json.loads(Path("found.json").read_text())
    assert found["summary"] == out
    unknown = ("iterations", "error_margin", "score", "score_goal", "ap_version", "baseline", "combined")
    assert {key: found[key] for key in unknown} == dict.fromkeys(unknown)
    assert found["layers"]["conv"]["quantization_param"]["bw_params"] == 3
    assert "bw_params: 3" in Path("q.prototxt").read_text()


def test_a_part_that_the_net_has_no_layers_for_need_not_be_given(two_classes: Any) -> None:
    job = two_classes().job(text=CONVOLUTION_ALONE, bw={"conv_params": 3, "layer": 5}, noscore=True)
    outcome = quantize(job)
    assert [group.skipped for group in outcome.search.groups] == [False, True, False]
    assert "none: the net has no such layers" in outcome.summary_lines()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--bw=conv_params=3", "--noscore"],
            "--noscore needs all widths, but --bw does not give fc_params, layer. "
            "Add fc_params=8,layer=8, for example.",
        ),
        (
            ["--noscore"],
            "--noscore needs all widths, but --bw does not give conv_params, fc_params, layer. "
            "Add conv_params=8,fc_params=8,layer=8, for example.",
        ),
        (
            [GIVEN, "--noscore", "--score=loss", "--iterations=3", "--early_stop"],
            "--iterations has no effect with --noscore\n"
            "ristretto: --score has no effect with --noscore\n"
            "ristretto: --early_stop has no effect with --noscore\n",
        ),
        ([GIVEN, "--noscore", "--bit_widths=8"], "--bit_widths has no effect with --noscore"),
        ([GIVEN, "--noscore", "--error_margin=2"], "--error_margin has no effect with --noscore"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    two_classes()
    assert run([*FIXED, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not Path("found.json").exists()


def test_a_dry_run_lists_only_the_ranges(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    without_json = [flag for flag in FIXED if not flag.startswith("--json")]
    assert run([*without_json, GIVEN, "--noscore", "--dry_run"]) == 0
    assert capsys.readouterr().out == "calibration on TRAIN data, 10 iterations\n"


@pytest.mark.parametrize("flags", [[], ["--noscore"]])
def test_a_net_without_an_output_to_score_by_is_written(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    two_classes().workshop.net(without(NET, "Accuracy", "SoftmaxWithLoss"))
    assert run([*FIXED, GIVEN, *flags]) == 0
    reported = capsys.readouterr()
    assert "Accuracy: not scored" in reported.out
    warning = (
        "All widths are given, so the net is written without scoring; scoring flags have no effect. "
        "net.prototxt: the net has no Accuracy layer and no loss to score by."
    )
    assert (warning in reported.err) == (not flags)
    assert "bw_params: 3" in Path("quantized.prototxt").read_text()


def test_such_a_net_is_not_searched(two_classes: Any) -> None:
    job = two_classes().job(text=without(NET, "Accuracy", "SoftmaxWithLoss"), bw={"conv_params": 3, "layer": 5})
    with pytest.raises(RistrettoError, match="has no Accuracy layer and no loss to score by"):
        quantize(job)


@pytest.mark.parametrize("flags", [[], [GIVEN], [GIVEN, "--noscore"]])
def test_a_deploy_net_is_rejected_first_for_its_missing_data(
    two_classes: Any, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    layers = without(NET, "Data", "Accuracy", "SoftmaxWithLoss")
    two_classes().workshop.net(
        'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 1 dim: 1 } } }' + layers
    )
    assert run([*FIXED, *flags]) == 1
    assert (
        'net.prototxt:1: layer "in" (Input): there is no data for data. '
        "Give arrays with --input x.npz: data (Nx2x1x1); or replace it with a data layer such as Data."
    ) in capsys.readouterr().err
