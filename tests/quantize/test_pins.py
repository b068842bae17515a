"""Widths of single layers and layers that stay float, from the flags and the settings file to the result."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.cli import quantize as cli_quantize
from ristretto_cli.errors import RistrettoError
from ristretto_cli.quantize.pins import Pin, Skip, pin, read_settings
from ristretto_cli.quantize.pipeline import planned_nets, quantize
from ristretto_cli.quantize.result import QuantizationResult

from ..conftest import IDENTITY, NET

ALL = {"conv_params": 4, "fc_params": 4, "layer": 8}
DOTTED = NET.replace('name: "conv"', 'name: "block.1/conv"')


def written(outcome: QuantizationResult) -> dict[str, dict[str, int]]:
    """The widths in the prototxt, by layer."""
    return {
        layer.name: {
            field.name.removeprefix("bw_"): value
            for field, value in layer.quantization_param.ListFields()
            if field.name.startswith("bw_")
        }
        for layer in outcome.net_file.message.layer
        if layer.HasField("quantization_param")
    }


def command(*flags: str) -> Result:
    arguments = ["--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2", "--calibration_iterations=2"]
    return CliRunner().invoke(cli_quantize.command, [*arguments, *flags])


def pins(*given: tuple[str, int]) -> tuple[Pin, ...]:
    return tuple(pin(name, bits, f"--bw {name}={bits}") for name, bits in given)


def test_a_name_is_split_at_its_last_dot() -> None:
    assert pin("block.1/conv.params", 3, "x") == Pin("block.1/conv", "params", 3, "x")


def test_pinned_parts_have_their_width_and_the_others_that_of_their_group(two_classes: Any) -> None:
    given = pins(("conv.params", 7), ("fc.layer", 12), ("fc.params", 5))
    outcome = quantize(two_classes().job(bw=ALL, pins=given))
    assert written(outcome) == {
        "conv": {"layer_in": 8, "layer_out": 8, "params": 7},
        "fc": {"layer_in": 12, "layer_out": 12, "params": 5},
    }
    assert outcome.notes()[-3:-1] == [
        "Pinned: conv: params 7bit",
        "Pinned: fc: layer_in 12bit, layer_out 12bit, params 5bit",
    ]
    assert outcome.as_json()["pinned"] == {"conv": {"params": 7}, "fc": {"layer_in": 12, "layer_out": 12, "params": 5}}


def test_one_side_of_a_layer_may_be_pinned(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(bw=ALL, pins=pins(("conv.layer_out", 16))))
    assert written(outcome)["conv"] == {"layer_in": 8, "layer_out": 16, "params": 4}


def test_a_group_whose_layers_are_all_pinned_is_not_searched(two_classes: Any) -> None:
    config = two_classes().job(pins=pins(("conv.params", 4), ("conv.layer", 9), ("fc.layer", 4)))
    planned = planned_nets(config)
    assert not [name for name in planned if "CONV" in name or "activations" in name]
    assert any("2bit FC weights" in name for name in planned)
    outcome = quantize(config)
    lines = outcome.summary_lines()
    assert [line for line in lines if "given" in line] == ["4bit: \tgiven", "4-9bit: \tgiven"]
    assert [line for line in lines if "activations:" in line] == ["activations:", "4-9bit layer activations:"]
    assert written(outcome)["conv"] == {"layer_in": 9, "layer_out": 9, "params": 4}


def test_candidates_of_a_group_keep_pinned_widths(two_classes: Any) -> None:
    # Of 1 bit the weights of conv lose every image.
    searched = quantize(two_classes().job())
    pinned = quantize(two_classes().job(pins=pins(("conv.params", 4))))
    assert searched.search.groups[0].bits == 2
    assert (pinned.search.groups[0].bits, written(pinned)["conv"]["params"]) == (4, 4)


def test_a_biased_layer_may_have_a_format_for_its_biases(two_classes: Any) -> None:
    biased = NET.replace("kernel_size: 1 bias_term: false", "kernel_size: 1")
    made = two_classes(weights={"conv": [*IDENTITY["conv"], [6.0, 6.0]], "fc": IDENTITY["fc"]})
    outcome = quantize(made.job(text=biased, bw=ALL, pins=pins(("conv.bias", 12))))
    assert (written(outcome)["conv"]["bias"], "bias" in written(outcome)["fc"]) == (12, False)


@pytest.mark.parametrize(
    "mode", ["dynamic_fixed_point", "minifloat", "integer_power_of_2_weights", "static_fixed_point"]
)
@pytest.mark.parametrize(("name", "kept"), [("conv", "fc"), ("first", "fc"), ("last", "conv")])
def test_skipped_layers_stay_float_in_every_mode(two_classes: Any, mode: str, name: str, kept: str) -> None:
    outcome = quantize(two_classes().job(mode, skip=(Skip(name, "--skip"),)))
    types = {layer.name: layer.type for layer in outcome.net_file.message.layer}
    assert [name for name, kind in types.items() if kind.endswith("Ristretto")] == [kept]
    (other,) = {"conv", "fc"} - {kept}
    assert f"Skipped: {other}" in outcome.notes()
    assert outcome.as_json()["skipped"] == [other]
    # Of eight products for each image, four are in each layer.
    left = {"name": other, "parameters": 4, "share": 0.5, "macs_share": 0.5}
    assert [{key: layer[key] for key in left} for layer in outcome.as_json()["left_float"]] == [left]


def test_a_group_whose_layers_are_all_skipped_says_so(two_classes: Any) -> None:
    outcome = quantize(two_classes().job(skip=(Skip("fc", "--skip fc"),)))
    assert "none: the net has no other layers" in outcome.summary_lines()


def test_names_with_dots_and_slashes_work_on_the_command_line(two_classes: Any) -> None:
    two_classes().job(text=DOTTED)
    result = command(
        "--trimming_mode=dynamic_fixed_point",
        "--bw=conv_params=4,fc_params=4,layer=8,block.1/conv.params=6",
        "--allow_missing_weights",
    )
    assert result.exit_code == 0, result.output
    (conv,) = [layer for layer in read_net("quantized.prototxt").message.layer if layer.name == "block.1/conv"]
    assert conv.quantization_param.bw_params == 6


# --- the settings file


def test_a_settings_file_has_widths_of_groups_and_layers_and_skipped_layers(two_classes: Any) -> None:
    two_classes().job()
    Path("widths.txt").write_text("# known\nconv_params: 4\nlayer : 8  # bits\n\nconv.layer_out: 12\nskip: fc\n")
    result = command("--trimming_mode=dynamic_fixed_point", "--config=widths.txt", "--json=r.json")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("r.json").read_text())
    assert (found["pinned"], found["skipped"]) == ({"conv": {"layer_out": 12}}, ["fc"])
    assert found["layers"]["conv"]["quantization_param"]["bw_layer_in"] == 8


def test_flags_have_precedence_over_the_settings_file(two_classes: Any) -> None:
    two_classes().job()
    Path("widths.txt").write_text("conv_params: 4\nfc_params: 4\nlayer: 8\nconv.params: 3\nfc.layer: 5\n")
    flags = ("--trimming_mode=dynamic_fixed_point", "--config=widths.txt", "--json=r.json")
    result = command(*flags, "--bw=layer=16,conv.params=6,fc.layer_in=7")
    assert result.exit_code == 0, result.output
    layers = json.loads(Path("r.json").read_text())["layers"]
    conv, fc = (layers[name]["quantization_param"] for name in ("conv", "fc"))
    assert (conv["bw_params"], conv["bw_layer_in"], fc["bw_layer_in"], fc["bw_layer_out"]) == (6, 16, 7, 5)


def test_names_with_commas_are_quoted_and_those_with_colons_are_split_at_the_last(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('skip: "a, b"\nskip: c:d, e\nnet:0.params: 3\nwith#sign.layer: 4\n')
    found = read_settings(str(file))
    assert [skip.layer for skip in found.skips] == ["a, b", "c:d", "e"]
    assert [(each.layer, each.part, each.bits) for each in found.pins] == [
        ("net:0", "params", 3),
        ("with#sign", "layer", 4),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("conv_params 8", '1: expected "key: value" instead of "conv_params 8"'),
        ("\nconv.params: 0", '2: conv.params: "0" is not a width. Use 1 to 32 bits.'),
        ("conv.params: eight", '1: conv.params: "eight" is not a width'),
        ("layer: 8\nlayer: 4", "2: layer is given twice. The other line is settings.txt:1."),
        ("skip:", "1: skip without the name of a layer"),
        (": 8", '1: expected "key: value"'),
        (b"layer: 8\nskip: \xff", "2: not a text file in UTF-8"),
    ],
)
def test_errors_in_a_settings_file_name_its_line(workshop: Any, text: str | bytes, fault: str) -> None:
    Path("settings.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RistrettoError) as refused:
        read_settings("settings.txt")
    assert str(refused.value).startswith(f"settings.txt:{fault}")


def test_all_errors_in_a_settings_file_are_reported(workshop: Any) -> None:
    Path("settings.txt").write_text("a\nlayer: 8\nb\n")
    with pytest.raises(RistrettoError) as refused:
        read_settings("settings.txt")
    assert [line.split(": ")[0] for line in str(refused.value).splitlines()] == ["settings.txt:1", "settings.txt:3"]


# --- what is not possible


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (
            ("--bw=cnv.params=8",),
            '--bw cnv.params=8: the net has no layer "cnv" that can be quantized. Did you mean conv?',
        ),
        (("--bw=conv.param=8",), '--bw conv.param=8: a layer has no part "param". Did you mean params?'),
        (("--bw=pool.params=8",), '--bw pool.params=8: the net has no layer "pool" that can be quantized.'),
        (("--bw=loss.layer=8",), '--bw loss.layer=8: layer "loss" (SoftmaxWithLoss) cannot be quantized.'),
        (("--bw=conv.bias=8",), '--bw conv.bias=8: layer "conv" has no biases'),
        (
            ("--bw=conv.layer=8,conv.layer_in=4",),
            "--bw conv.layer_in=4: conv.layer_in is given twice, by layer and by layer_in",
        ),
        (("--bw=conv.params=8", "--skip=conv"), '--bw conv.params=8: layer "conv" is skipped, so it has no widths'),
        (("--skip=fcc",), '--skip fcc: the net has no layer "fcc" that can be quantized. Did you mean fc?'),
        (("--skip=first,last",), "net.prototxt: all layers that can be quantized are skipped"),
    ],
)
def test_a_pin_or_a_skip_that_is_not_possible_is_one_clear_error(two_classes: Any, flags: Any, fault: str) -> None:
    two_classes().job()
    result = command("--trimming_mode=dynamic_fixed_point", *flags, "--dry_run")
    assert result.exit_code == 1
    assert str(result.exception).startswith(fault)


def test_an_unknown_layer_in_a_settings_file_names_its_line(two_classes: Any) -> None:
    two_classes().job()
    Path("s.txt").write_text("\nskip: fc\ncnv.params: 3\n")
    result = command("--trimming_mode=dynamic_fixed_point", "--config=s.txt", "--dry_run")
    assert str(result.exception).startswith('s.txt:3: the net has no layer "cnv" that can be quantized.')


def test_an_unknown_group_in_a_settings_file_names_its_line(two_classes: Any) -> None:
    two_classes().job()
    Path("s.txt").write_text("conv: 3\n")
    result = command("--trimming_mode=dynamic_fixed_point", "--config=s.txt", "--dry_run")
    assert result.exit_code == 2
    assert 's.txt:1: dynamic_fixed_point has no group "conv"' in result.output


def test_the_missing_part_of_a_layer_with_dots_is_named(two_classes: Any) -> None:
    two_classes().job(text=DOTTED)
    result = command("--trimming_mode=dynamic_fixed_point", "--bw=block.1/conv=8", "--dry_run")
    assert str(result.exception).startswith('--bw block.1/conv=8: the part of layer "block.1/conv" is missing.')


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("minifloat", "minifloat has one width for the whole net, --bw net=, and no widths of single layers"),
        ("static_fixed_point", "static_fixed_point has one width for the whole net, --bw net=, and no widths"),
        ("integer_power_of_2_weights", "integer_power_of_2_weights has fixed widths, and no widths of single layers"),
    ],
)
def test_modes_without_widths_of_layers_refuse_them(two_classes: Any, mode: str, why: str) -> None:
    two_classes().job(mode)
    result = command(f"--trimming_mode={mode}", "--bw=conv.params=8", "--dry_run")
    assert result.exit_code == 1
    assert str(result.exception).startswith(f"--bw conv.params=8: {why}")


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (("--skip=conv",), "--skip has no effect with --legacy"),
        (("--config=s.txt",), "--config has no effect with --legacy"),
        (("--bw=conv.params=8",), "--bw conv.params= has no effect with --legacy"),
    ],
)
def test_the_original_has_neither(two_classes: Any, flags: Any, fault: str) -> None:
    two_classes().job()
    Path("s.txt").write_text("layer: 8\n")
    result = command("--trimming_mode=dynamic_fixed_point", "--legacy", *flags, "--dry_run")
    assert result.exit_code == 2
    assert fault in result.output


def test_a_width_of_a_group_without_layers_left_is_warned_of(two_classes: Any, caplog: Any) -> None:
    given = pins(("conv.params", 4))
    caplog.set_level(logging.INFO)
    quantize(two_classes().job(bw=ALL, skip=(Skip("fc", "--skip fc"),), pins=given))
    warnings = [
        record.message for record in caplog.records if record.levelname == "WARNING" and "--bw" in record.message
    ]
    assert warnings == [
        "--bw conv_params has no effect: all layers of this group have widths of their own.",
        "--bw fc_params has no effect: the net has no other layers of this group.",
    ]
    assert "Pinned: conv: params 4bit." in caplog.messages
    assert "Skipped: fc (InnerProduct) stays float." in caplog.messages
