"""Whole jobs on a net of two classes that can be followed by hand."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.build import NetState
from ristretto_cli.quantize.header import weights_of
from ristretto_cli.quantize.pipeline import planned_nets, quantize
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.net_files import score_file

from ..conftest import IDENTITY, NET

ORIGINAL_RANGES = {"fl_layer": "original"}


def bits(outcome: QuantizationResult) -> list[int]:
    return [group.bits for group in outcome.search.groups]


def quantization_params(outcome: QuantizationResult) -> dict[str, dict[str, int]]:
    return {
        layer.name: {field.name: value for field, value in layer.quantization_param.ListFields()}
        for layer in outcome.net_file.message.layer
        if layer.HasField("quantization_param")
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_dynamic_fixed_point_finds_the_widths_that_can_be_worked_out_by_hand(two_classes: Any, legacy: bool) -> None:
    job = two_classes().job(legacy=legacy, mode_options=ORIGINAL_RANGES)
    outcome = quantize(job)
    assert outcome.summary_lines()[4:] == [
        "Baseline 32bit float: 0.8",
        "Dynamic fixed point CONV",
        "weights: ",
        *(f"{n}bit: \t0.8" for n in (16, 8, 4, 2)),
        "1bit: \t0",
        "Dynamic fixed point FC",
        "weights: ",
        *(f"{n}bit: \t0.8" for n in (16, 8, 4, 2)),
        "1bit: \t0",
        "Dynamic fixed point layer",
        "activations:",
        *(f"{n}bit: \t0.8" for n in (16, 8, 4)),
        "2bit: \t0",
        "Dynamic fixed point net:",
        "2bit CONV weights,",
        "2bit FC weights,",
        "4bit layer activations:",
        "Accuracy: 0.8",
        "Please fine-tune.",
    ]
    # 200 / 256 lies below 2^0, and a weight of 1 is 2^0: one bit left of the point for the sign
    expected = {
        "bw_layer_in": 4,
        "fl_layer_in": 4,
        "bw_layer_out": 4,
        "fl_layer_out": 4,
        "bw_params": 2,
        "fl_params": 1,
    }
    assert quantization_params(outcome) == {"conv": expected, "fc": expected}


def test_groups_that_pass_separately_but_not_together_are_widened(two_classes: Any) -> None:
    # With 2-bit weights 100 / 256 and 200 / 256 come out of the 4-bit net as 2/16 both.
    outcome = quantize(two_classes(low=100).job(mode_options=ORIGINAL_RANGES))
    assert bits(outcome) == [4, 2, 4]
    assert outcome.notes()[1:3] == [
        "The error margin is kept: accuracy is equal to the baseline; the margin is 2 percentage points.",
        "Widened from the net with 2bit CONV weights, 2bit FC weights, 4bit layer activations, which has accuracy 0.",
    ]
    found = outcome.as_json()
    assert found["combined"]["bits"] == {"conv_params": 4, "fc_params": 2, "layer": 4}
    assert found["widened_from"]["bits"] == {"conv_params": 2, "fc_params": 2, "layer": 4}
    assert [each["passed"] for each in found["widenings"]] == [True]


def test_a_margin_that_no_width_holds_is_reported_with_the_best_net(two_classes: Any) -> None:
    outcome = quantize(two_classes(low=100).job(bit_widths=(4, 2), bw={"layer": 1}))
    assert outcome.search.combined is not None
    assert not outcome.search.combined.passed
    assert "No combination of the bit widths 4,2 was found that keeps the error margin." in outcome.notes()


def test_the_combined_net_may_miss_the_margin_where_it_need_not_be_held(two_classes: Any) -> None:
    outcome = quantize(two_classes(low=100).job(hold_margin=False, mode_options=ORIGINAL_RANGES))
    assert bits(outcome) == [2, 2, 4]
    assert outcome.summary_lines()[-2:] == ["Accuracy: 0", "Please fine-tune."]
    verdict = "The error margin is missed: accuracy is 80 percentage points below the baseline; the margin is 2."
    assert outcome.notes()[1] == verdict


@pytest.mark.parametrize("mode", ["minifloat", "mini_floating_point"])
def test_minifloat_under_its_name_and_its_old_one(two_classes: Any, mode: str) -> None:
    outcome = quantize(two_classes().job(mode))
    assert bits(outcome) == [8]
    expected = {"precision": 1, "mant_bits": 3, "exp_bits": 4}
    assert quantization_params(outcome) == {"conv": expected, "fc": expected}


@pytest.mark.parametrize("mode", ["integer_power_of_2_weights", "power_of_2_weights"])
def test_power_of_two_weights_under_their_name_and_their_old_one(two_classes: Any, mode: str) -> None:
    outcome = quantize(two_classes().job(mode))
    assert outcome.search.combined is not None
    assert outcome.search.combined.score == pytest.approx(0.8, abs=1e-7)
    expected = {
        "precision": 2,
        "exp_min": -8,
        "exp_max": -1,
        "bw_layer_in": 8,
        "fl_layer_in": 8,
        "bw_layer_out": 8,
        "fl_layer_out": 8,
    }
    assert quantization_params(outcome) == {"conv": expected, "fc": expected}


def test_fixed_point_is_the_old_name_of_dynamic_fixed_point(two_classes: Any) -> None:
    assert bits(quantize(two_classes().job("fixed_point"))) == [2, 2, 4]


def test_an_unknown_mode_is_refused_with_the_nearest_one(two_classes: Any) -> None:
    with pytest.raises(RistrettoError) as refused:
        quantize(two_classes().job("dynamic_fixpoint"))
    assert str(refused.value) == ('unknown trimming mode "dynamic_fixpoint". Did you mean dynamic_fixed_point?')


def test_bit_widths_choose_what_is_tried(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(bit_widths=(6, 3)))
    assert [[t.bits for t in group.trials] for group in outcome.search.groups] == [[6, 3]] * 3


# --- the score


def test_a_net_is_scored_by_its_accuracy_whatever_its_name(two_classes: Any) -> None:
    text = NET.replace('"accuracy"', '"zacc"')
    outcome = quantize(two_classes().job(text=text))
    assert (outcome.score_blob, bits(outcome)) == ("zacc", [2, 2, 4])


def test_the_original_scores_by_the_first_output_of_the_alphabet(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(text=NET.replace('"accuracy"', '"zacc"'), legacy=True))
    assert outcome.score_blob == "loss"
    # The loss of a net that knows nothing, 0.69, is higher than its own, so that every width passes.
    assert bits(outcome) == [1, 1, 1]


def test_a_score_can_be_named(two_classes: Any) -> None:
    assert quantize(two_classes().job(score="loss", bit_widths=(16,))).score_blob == "loss"


def test_a_score_that_is_no_output_is_refused(two_classes: Any) -> None:
    with pytest.raises(RistrettoError, match='"fc" is not an output of the net'):
        quantize(two_classes().job(score="fc"))


# --- the ranges


def fl_layer_in(outcome: QuantizationResult) -> int:
    return quantization_params(outcome)["conv"]["fl_layer_in"]


@pytest.mark.parametrize("legacy", [False, True])
def test_ranges_are_measured_on_training_data(two_classes: Any, legacy: bool) -> None:
    # 100 / 256 lies below 2^-1, 200 / 256 below 2^0; the original's format ends at half of these.
    learn_from_100 = quantize(two_classes(train=100).job(bit_widths=(8,), legacy=legacy))
    assert fl_layer_in(learn_from_100) == (9 if legacy else 8)
    learn_from_200 = quantize(two_classes(train=200).job(bit_widths=(8,), legacy=legacy))
    assert fl_layer_in(learn_from_200) == (8 if legacy else 7)


@pytest.mark.parametrize(
    ("fl_layer", "bits", "frac_bits"),
    # With steps of 2^-7, 8 bits have both pixels, 200 / 256 and 50 / 256; with steps of 2^-8, 200 / 256 saturates.
    [("original", 8, 8), ("range", 8, 7), ("mse", 8, 7), ("auto", 8, 7), ("original", 16, 16), ("range", 16, 14)],
)
def test_the_rule_for_activations_can_be_chosen(two_classes: Any, fl_layer: str, bits: int, frac_bits: int) -> None:
    outcome = quantize(two_classes().job(bit_widths=(bits,), mode_options={"fl_layer": fl_layer}))
    assert [trim["fl_layer_in"] for trim in quantization_params(outcome).values()] == [frac_bits] * 2
    assert outcome.as_json()["fl_layer"] == fl_layer


def test_legacy_implies_the_originals_rule(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(bit_widths=(8,), legacy=True))
    assert outcome.as_json()["fl_layer"] == "original"
    assert quantize(two_classes().job(bit_widths=(8,))).as_json()["fl_layer"] == "auto"


def test_with_few_bits_the_range_fits_and_fewer_bits_suffice(two_classes: Any) -> None:
    # With 4 bits, 200 / 256 is 6 eighths; in sixteenths it would saturate at 7. With 2 bits it is 1, which is closer
    # than 1 half, and 50 / 256 is 0.
    outcome = quantize(two_classes().job())
    assert [(trial.bits, trial.passed) for trial in outcome.search.groups[2].trials] == [
        (16, True),
        (8, True),
        (4, True),
        (2, True),
        (1, False),
    ]
    assert quantization_params(quantize(two_classes().job(bit_widths=(4,))))["conv"]["fl_layer_in"] == 3
    assert quantization_params(quantize(two_classes().job(bit_widths=(2,))))["conv"]["fl_layer_in"] == 0


def without(text: str, first_word: str) -> str:
    """A net without its first layer that has a word in its first lines."""
    layers = text.split("\n    layer {")
    index = next(i for i, layer in enumerate(layers) if first_word in layer)
    return "\n    layer {".join(layers[:index] + layers[index + 1 :])


def test_without_training_data_the_test_data_is_used_with_a_warning(
    two_classes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    outcome = quantize(two_classes(train=100).job(text=without(NET, "train_db"), bit_widths=(8,)))
    assert caplog.messages == ["net.prototxt has no data layers for TRAIN: calibrating on TEST data."]
    assert fl_layer_in(outcome) == 7


def test_the_original_needs_training_data(two_classes: Any) -> None:
    with pytest.raises(RistrettoError, match="data"):
        quantize(two_classes().job(text=without(NET, "train_db"), legacy=True))


def test_the_number_of_batches_that_ranges_are_read_from_can_be_chosen(
    two_classes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ristretto")
    quantize(two_classes().job(calibration_iterations=3, bit_widths=(8,)))
    lines = caplog.messages
    assert lines[lines.index("Measuring ranges.") + 1] == "Running for 3 iterations."


def test_integer_lengths_are_logged_in_the_originals_words(two_classes: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ristretto")
    quantize(two_classes().job(bit_widths=(8,)))
    assert [line for line in caplog.messages if line.startswith("Layer ")] == [
        f"Layer {name}, integer length input=0, integer length output=0, integer length parameters=1"
        for name in ("conv", "fc")
    ]


def test_dropout_takes_no_bit_of_the_layer_after_it_except_in_legacy(two_classes: Any) -> None:
    dropout = 'layer { name: "drop" type: "Dropout" bottom: "conv" top: "dropped" }\n    layer { name: "fc"'
    text = NET.replace('layer { name: "fc"', dropout, 1).replace(
        'bottom: "conv" top: "fc"', 'bottom: "dropped" top: "fc"'
    )
    fl_of_fc = [
        quantization_params(
            quantize(two_classes().job(text=text, bit_widths=(8,), legacy=legacy, mode_options=ORIGINAL_RANGES))
        )["fc"]["fl_layer_in"]
        for legacy in (False, True)
    ]
    assert fl_of_fc == [8, 7]


# --- layers of one phase


EXTRA = """
    layer { name: "extra" type: "Convolution" bottom: "data" top: "extra" include { phase: %s }
            convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
    layer { name: "quiet" type: "Silence" bottom: "extra" include { phase: %s } }
"""
EXTRA_WEIGHTS = {**IDENTITY, "extra": [[[[[1]], [[1]]]]]}


@pytest.mark.parametrize(
    ("phase", "legacy", "trimmed"),
    [("TRAIN", False, False), ("TRAIN", True, False), ("TEST", False, True), ("TEST", True, False)],
)
def test_a_layer_of_one_phase_does_no_harm(two_classes: Any, phase: str, legacy: bool, trimmed: bool) -> None:
    made = two_classes(weights=EXTRA_WEIGHTS)
    outcome = quantize(made.job(text=NET + EXTRA % (phase, phase), bit_widths=(8,), legacy=legacy))
    assert quantization_params(outcome).keys() == {"conv", "fc"} | ({"extra"} if trimmed else set())


def test_a_layer_of_both_phases_is_trimmed_in_both(two_classes: Any) -> None:
    head, conv = NET.split('    layer { name: "conv"')[0], NET.split("\n    layer {")[3]
    both = "".join(
        f"    layer {{{conv.replace('top:', f'include {{ phase: {phase} }} top:', 1)}\n" for phase in ("TRAIN", "TEST")
    )
    text = head + both + '    layer { name: "fc"' + NET.split('    layer { name: "fc"')[1]
    outcome = quantize(two_classes().job(text=text, bit_widths=(8,)))
    convs = [layer for layer in outcome.net_file.message.layer if layer.name == "conv"]
    assert [layer.type for layer in convs] == ["ConvolutionRistretto"] * 2
    assert convs[0].quantization_param == convs[1].quantization_param


def test_a_net_without_layers_to_trim_is_refused(two_classes: Any) -> None:
    text = without(without(NET, '"Convolution"'), '"InnerProduct"').replace('bottom: "fc"', 'bottom: "data"')
    with pytest.raises(RistrettoError) as refused:
        quantize(two_classes().job(text=text))
    assert str(refused.value) == (
        "net.prototxt: the net has no layers to quantize. Only Convolution and InnerProduct layers can be quantized."
    )


# --- what is planned


@pytest.mark.parametrize("mode", ["dynamic_fixed_point", "minifloat", "integer_power_of_2_weights"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("fc", [True, False])
def test_the_plan_lists_what_is_scored_if_all_pass(
    two_classes: Any, caplog: pytest.LogCaptureFixture, mode: str, legacy: bool, fc: bool
) -> None:
    text = NET if fc else without(NET, '"InnerProduct"').replace('bottom: "fc"', 'bottom: "conv"')
    job = two_classes().job(mode, text=text, legacy=legacy, error_margin_percent=100.0)
    planned = planned_nets(job)
    caplog.set_level(logging.INFO, "ristretto")
    quantize(job)
    scored = [
        line.removeprefix("Scoring ").removesuffix(".") + ", 2 iterations"
        for line in caplog.messages
        if line.startswith("Scoring ")
    ]
    assert scored == [planned[0], *planned[2:]]
    assert planned[1] == "calibration on TRAIN data, 2 iterations"


@pytest.mark.parametrize("legacy", [False, True])
def test_planned_nets_of_minifloat_without_possible_widths_are_those_scored(
    two_classes: Any, caplog: pytest.LogCaptureFixture, legacy: bool
) -> None:
    config = two_classes().job("minifloat", bit_widths=(4, 2), legacy=legacy)
    planned = planned_nets(config)
    caplog.set_level(logging.INFO, "ristretto")
    quantize(config)
    assert caplog.messages.count("Scoring the combined net.") == (not legacy)
    assert planned[2:] == ([] if legacy else ["the combined net, 2 iterations"])


def test_planned_nets_need_no_weights(two_classes: Any) -> None:
    config = two_classes().job(bit_widths=(8,))
    expected = planned_nets(config)
    Path(config.weights).unlink()
    assert planned_nets(config) == expected
    with pytest.raises(RistrettoError, match=r"net\.caffemodel"):
        quantize(config)


def test_planned_nets_read_weights_neither_of_test_nor_of_train(
    two_classes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ristretto_cli.quantize import prepare

    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(prepare, "read_weights", refuse)
    monkeypatch.setattr(prepare, "load_weights", refuse)
    for legacy in (False, True):
        assert len(planned_nets(two_classes().job(bit_widths=(8,), legacy=legacy))) == 6


def test_the_plan_tells_where_ranges_come_from_test_data(two_classes: Any) -> None:
    assert planned_nets(two_classes().job(text=without(NET, "train_db"), bit_widths=(8,))) == [
        "the float net, 2 iterations",
        "calibration on TEST data, 2 iterations",
        "8bit CONV weights, 2 iterations",
        "8bit FC weights, 2 iterations",
        "8bit layer activations, 2 iterations",
        "the combined net, 2 iterations",
    ]


# --- what is given


def test_widths_that_are_given_are_neither_planned_nor_scored(two_classes: Any) -> None:
    job = two_classes().job(bit_widths=(8,), bw={"conv_params": 4, "layer": 8})
    assert planned_nets(job)[2:] == ["8bit FC weights, 2 iterations", "the combined net, 2 iterations"]
    outcome = quantize(job)
    assert bits(outcome) == [4, 8, 8]
    assert quantization_params(outcome)["conv"]["bw_params"] == 4
    assert quantization_params(outcome)["fc"]["bw_layer_in"] == 8


def test_a_width_for_layers_that_the_net_has_not_is_warned_of(
    two_classes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = without(NET, '"InnerProduct"').replace('bottom: "fc"', 'bottom: "conv"')
    planned_nets(two_classes().job(text=text, bw={"fc_params": 4, "layer": 8}))
    assert [line for line in caplog.messages if "--bw" in line] == [
        "--bw fc_params has no effect: the net has no layers of this group."
    ]


@pytest.mark.parametrize(("mode", "bits"), [("minifloat", 5), ("integer_power_of_2_weights", 8)])
def test_a_width_that_a_mode_has_not_is_refused(two_classes: Any, mode: str, bits: int) -> None:
    with pytest.raises(RistrettoError, match=f"--bw net={bits}: {mode} has no such width for this net"):
        quantize(two_classes().job(mode, bw={"net": bits}))


def test_a_width_of_minifloat_is_scored_and_written(two_classes: Any) -> None:
    outcome = quantize(two_classes().job("minifloat", bw={"net": 9}))
    assert (quantization_params(outcome)["conv"]["mant_bits"], quantization_params(outcome)["conv"]["exp_bits"]) == (
        4,
        4,
    )
    assert outcome.search.combined is not None
    assert outcome.search.combined.score == outcome.baseline


def test_with_mse_small_weights_are_kept_rather_than_the_largest(two_classes: Any) -> None:
    """In halves 0.55 becomes 0.5, and each 0.3 as well, an error of 0.2; in quarters up to 0.25, it loses 0.05."""
    files = two_classes(weights={**IDENTITY, "conv": [[[[[0.55]], [[0.3]]], [[[0.3]], [[0.3]]]]]})
    by_max, by_mse = (
        quantization_params(quantize(files.job(bw={"conv_params": 2}, mode_options={"fl_params": rule})))["conv"]
        for rule in ("max", "mse")
    )
    assert (by_max["fl_params"], by_mse["fl_params"]) == (1, 2)
    assert by_max["fl_layer_in"] == by_mse["fl_layer_in"]


def test_quantize_refuses_an_option_of_another_mode_naming_the_mode_that_has_it(two_classes: Any) -> None:
    with pytest.raises(RistrettoError) as refused:
        quantize(two_classes().job("minifloat", mode_options={"fl_params": "max"}))
    start = 'trimming mode "minifloat" has no option fl_params. Only with dynamic_fixed_point'
    assert str(refused.value).startswith(start)  # and others that have it


# --- what is written


def write(two_classes: Any, target: str = "quantized.prototxt", **settings: Any) -> QuantizationResult:
    job = two_classes().job(bit_widths=(8,), **settings)
    job = type(job)(**{**vars(job), "model_quantized": target})
    outcome = quantize(job)
    Path(target).parent.mkdir(exist_ok=True)
    Path(target).write_text(outcome.prototxt())
    return outcome


def test_the_written_net_begins_with_how_it_was_made_and_its_weights(two_classes: Any) -> None:
    from ristretto_cli import __version__

    write(two_classes)
    lines = Path("quantized.prototxt").read_text().splitlines()
    assert lines[:3] == [
        f"# Trimmed by ristretto {__version__}, dynamic_fixed_point.",
        "# Weights: net.caffemodel",
        'name: "two classes"',
    ]
    assert weights_of("quantized.prototxt") == "net.caffemodel"


def test_the_written_net_has_the_reported_score(two_classes: Any) -> None:
    outcome = write(two_classes)
    scores = score_file("quantized.prototxt", "net.caffemodel", 2, state=NetState())
    assert outcome.search.combined is not None
    assert scores.of("accuracy") == outcome.search.combined.score == pytest.approx(0.8, abs=1e-7)


def test_weights_are_named_relative_to_the_written_net(two_classes: Any) -> None:
    write(two_classes, "out/q.prototxt")
    assert Path("out/q.prototxt").read_text().splitlines()[1] == "# Weights: ../net.caffemodel"
    assert weights_of("out/q.prototxt") == "net.caffemodel"


def test_a_tree_that_was_moved_still_finds_its_weights(
    two_classes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(two_classes, "out/q.prototxt")
    new_place = tmp_path.parent / f"{tmp_path.name}_moved"
    monkeypatch.chdir(tmp_path.parent)
    shutil.move(tmp_path, new_place)
    assert Path(weights_of(str(new_place / "out" / "q.prototxt"))).resolve() == new_place / "net.caffemodel"
    monkeypatch.chdir(new_place / "out")
    assert weights_of("q.prototxt") == "../net.caffemodel"


def test_the_line_with_the_weights_survives_comments_of_the_users(workshop: Any) -> None:
    workshop.net('# mine\n# Weights: sub/a b.caffemodel\nname: "x"\n# Weights: other')
    assert weights_of("net.prototxt") == "sub/a b.caffemodel"


@pytest.mark.parametrize("text", ['name: "x"\n# Weights: late.caffemodel\n', ""])
def test_a_net_that_names_no_weights_asks_for_them(workshop: Any, text: str) -> None:
    workshop.net(text)
    with pytest.raises(RistrettoError) as refused:
        weights_of("net.prototxt")
    assert str(refused.value) == "net.prototxt: no weights file is named in its header. Use --weights."


def test_the_written_net_keeps_sources_and_leaves_the_input_net_unchanged(two_classes: Any) -> None:
    write(two_classes)
    assert Path("net.prototxt").read_text().count("Ristretto") == 0
    message = read_net("quantized.prototxt").message
    assert [layer.data_param.source for layer in message.layer[:2]] == ["train_db", "test_db"]


def test_a_net_that_was_written_is_not_trimmed_again(two_classes: Any) -> None:
    write(two_classes)
    job = two_classes().job()
    job = type(job)(**{**vars(job), "model": "quantized.prototxt"})
    with pytest.raises(RistrettoError, match="is already quantized"):
        quantize(job)


def test_a_job_gives_the_same_net_every_time(two_classes: Any) -> None:
    first, second = (quantize(two_classes().job()) for _ in range(2))
    assert first.net_file.message == second.net_file.message
    assert first.search.combined is not None
    assert second.search.combined is not None
    assert first.search.combined.score == second.search.combined.score
