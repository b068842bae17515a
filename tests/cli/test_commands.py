"""Every command as a user runs it: its stdout, its stderr and the files that it writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click import Context, Option

from ristretto_cli import __version__
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.cli.main import Shell, run

from ..conftest import IDENTITY, NET

GLOG = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] (.*)$")
QUANTIZE = ["quantize", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2"]
FIXED_POINT = [*QUANTIZE, "--trimming_mode=dynamic_fixed_point"]
TEST = ["test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2"]
SUMMARY = [
    "------------------------------",
    "Network accuracy analysis for",
    "Convolutional (CONV) and fully",
    "connected (FC) layers.",
    "Baseline 32bit float: 0.8",
    "Dynamic fixed point CONV",
    "weights: ",
    "8bit: \t0.8",
    "Dynamic fixed point FC",
    "weights: ",
    "8bit: \t0.8",
    "Dynamic fixed point layer",
    "activations:",
    "8bit: \t0.8",
    "Dynamic fixed point net:",
    "8bit CONV weights,",
    "8bit FC weights,",
    "8bit layer activations:",
    "Accuracy: 0.8",
    "Please fine-tune.",
]
NOTES = [
    "Scored by accuracy: higher is better.",
    "The error margin is kept: accuracy is equal to the baseline; the margin is 2 percentage points.",
    "Other outputs (float net, quantized net):",
    "loss: 0.559681, 0.562171",
    "Written to quantized.prototxt",
]


class Terminal:
    """Runs commands in the folder of the net of two classes and keeps what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out: list[str] = []
        self.err: list[str] = []

    def __call__(self, *args: str, code: int = 0) -> None:
        self._capsys.readouterr()
        found = run(args)
        out, err = self._capsys.readouterr()
        self.out, self.err = out.splitlines(), err.splitlines()
        assert found == code, err

    @property
    def log(self) -> list[str]:
        """The log's messages; every line of stderr has to be one."""
        lines = [GLOG.match(line) for line in self.err]
        assert all(lines), [line for line in self.err if not GLOG.match(line)]
        return [line[1] for line in lines if line]


@pytest.fixture
def terminal(two_classes: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    two_classes()
    return Terminal(capsys)


# --- quantize


def test_quantize_prints_the_summary_and_writes_the_net_next_to_the_model(terminal: Terminal) -> None:
    terminal(*FIXED_POINT, "--bit_widths=8")
    assert terminal.out == [*SUMMARY, *NOTES]
    types = [layer.type for layer in read_net("quantized.prototxt").message.layer]
    assert types[2:4] == ["ConvolutionRistretto", "FcRistretto"]


def test_quantize_logs_as_the_original_does_its_summary_last(terminal: Terminal) -> None:
    terminal(*FIXED_POINT, "--bit_widths=8", "--calibration_iterations=1")
    log = terminal.log
    assert log[0] == "Use CPU."
    first_score = log.index("Scoring the float net.")
    assert log[first_score : first_score + 9] == [
        "Scoring the float net.",
        "Running for 2 iterations.",
        "Batch 0, accuracy = 0.8",
        "Batch 0, loss = 0.559681",
        "Batch 1, accuracy = 0.8",
        "Batch 1, loss = 0.559681",
        "Loss: 0.559681",
        "accuracy = 0.8",
        "loss = 0.559681 (* 1 = 0.559681 loss)",
    ]
    assert "Running for 1 iterations." in log
    ours = len(SUMMARY) + len(NOTES)
    assert log[-ours:] == [*NOTES, *SUMMARY]
    assert log[first_score - 1] == NOTES[0]


def test_quantize_names_the_file_next_to_a_model_in_another_folder(terminal: Terminal) -> None:
    Path("sub").mkdir()
    Path("sub/net.prototxt").write_text(Path("net.prototxt").read_text())
    terminal(*FIXED_POINT, "--bit_widths=8", "--model=sub/net.prototxt", "--json=found.json")
    assert terminal.out[-1] == "Written to sub/quantized.prototxt"
    assert Path("sub/quantized.prototxt").exists()
    assert json.loads(Path("found.json").read_text())["model_quantized"] == "sub/quantized.prototxt"


def test_legacy_has_the_same_notes_without_the_margin(terminal: Terminal) -> None:
    terminal(*FIXED_POINT, "--bit_widths=8", "--legacy")
    assert terminal.out[: len(SUMMARY)] == SUMMARY
    notes = terminal.out[len(SUMMARY) :]
    assert (notes[0], notes[-1]) == (NOTES[0], NOTES[-1])
    assert "margin" not in "".join(notes)


AUXILIARY = """
    layer { name: "aux" type: "Accuracy" bottom: "data" bottom: "label" top: "aux" include { phase: TEST } }
"""


def test_quantize_is_scored_by_the_deepest_head_or_the_one_that_is_named(terminal: Terminal, workshop: Any) -> None:
    at = NET.index('layer { name: "conv"')
    flat = 'layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }\n'
    workshop.net(NET[:at] + flat + AUXILIARY.replace('bottom: "data"', 'bottom: "flat"') + NET[at:])
    warning = (
        "The net has 2 heads. The score is accuracy, at the end of the longest path; others: aux. Choose with --score."
    )
    for flags, judged in (((), "accuracy"), (("--score=aux",), "aux"), (("--legacy",), "accuracy")):
        terminal(*FIXED_POINT, "--bit_widths=8", "--json=found.json", *flags)
        assert f"Scored by {judged}: higher is better." in terminal.out
        assert f"Scored by {judged}: higher is better." in terminal.log
        assert json.loads(Path("found.json").read_text())["score"] == judged
        assert (warning in terminal.log) == (not flags)


def test_quantize_tells_what_stays_float(terminal: Terminal, workshop: Any) -> None:
    scale = 'layer { name: "s" type: "Scale" bottom: "conv" top: "conv" scale_param { filler { value: 1 } } }\n'
    at = NET.index('layer { name: "fc"')
    workshop.net(NET[:at] + scale + NET[at:])
    workshop.weights({**IDENTITY, "s": [[1, 1]]})
    terminal(*FIXED_POINT, "--bit_widths=8", "--json=found.json")
    # Two factors in addition to two layers of four weights.
    at = terminal.out.index("Left float:")
    assert terminal.out[at + 1] == "s (Scale): 20.0 % of the parameters, no MACs"
    assert json.loads(Path("found.json").read_text())["left_float"] == [
        {"name": "s", "type": "Scale", "parameters": 2, "share": 0.2, "macs_share": 0.0}
    ]


def test_quantize_writes_to_the_given_file(terminal: Terminal) -> None:
    Path("out").mkdir()
    terminal(*FIXED_POINT, "--bit_widths=8", "--model_quantized=out/q.prototxt")
    assert terminal.out[-1] == "Written to out/q.prototxt"
    assert [path.name for path in Path("out").iterdir()] == ["q.prototxt"]
    assert not Path("quantized.prototxt").exists()


@pytest.mark.parametrize(
    "spelling",
    [
        ["-model", "net.prototxt", "-weights", "net.caffemodel", "-trimming_mode", "dynamic_fixed_point"],
        ["--model=net.prototxt", "-weights=net.caffemodel", "--trimming-mode", "fixed_point"],
    ],
)
def test_quantize_takes_every_spelling_of_gflags(terminal: Terminal, spelling: list[str]) -> None:
    terminal("quantize", *spelling, "-iterations=2", "--error_margin", "2", "-gpu=", "-bit-widths", "8")
    assert terminal.out == [*SUMMARY, *NOTES]


def test_quantize_takes_all_of_the_originals_flags(terminal: Terminal) -> None:
    terminal(
        *("quantize", "--model=net.prototxt", "--weights=net.caffemodel"),
        *("--model_quantized=q.prototxt", "--trimming_mode=minifloat", "--iterations=2", "--error_margin=3"),
    )
    assert terminal.out[5:9] == ["Minifloat net:", "16bit: \t0.8", "8bit: \t0.8", "Please fine-tune."]


def test_quantize_writes_json(terminal: Terminal) -> None:
    terminal(*FIXED_POINT, "--bit_widths=8", "--json=found.json")
    found = json.loads(Path("found.json").read_text())
    assert found["summary"] == terminal.out == [*SUMMARY, *NOTES]
    assert found["combined"]["score"] == pytest.approx(0.8, abs=1e-7)
    assert found["layers"]["conv"]["il_params"] == 1


def test_quantize_ends_well_where_the_margin_is_missed(terminal: Terminal) -> None:
    terminal(*QUANTIZE, "--trimming_mode=dynamic_fixed_point", "--bit_widths=1")
    end = terminal.out.index("Please fine-tune.") + 1
    assert terminal.out[end - 9 : end] == [
        "Dynamic fixed point layer",
        "activations:",
        "1bit: \t0",
        "Dynamic fixed point net:",
        "32bit CONV weights,",
        "32bit FC weights,",
        "32bit layer activations:",
        "Accuracy: 0.8",
        "Please fine-tune.",
    ]


def test_a_dry_run_lists_the_nets_and_writes_none(terminal: Terminal) -> None:
    before = sorted(Path().iterdir())
    terminal(*FIXED_POINT, "--bit_widths=8", "--dry_run")
    assert terminal.out == [
        "the float net, 2 iterations",
        "calibration on TRAIN data, 10 iterations",
        "8bit CONV weights, 2 iterations",
        "8bit FC weights, 2 iterations",
        "8bit layer activations, 2 iterations",
        "the combined net, 2 iterations",
    ]
    assert sorted(Path().iterdir()) == before


def test_a_run_that_fails_leaves_the_old_net_and_no_json(terminal: Terminal, workshop: Any) -> None:
    Path("quantized.prototxt").write_text("of yesterday")
    workshop.database("train_db", np.full((1, 2, 1, 1), np.nan, np.float32))
    before = sorted(Path().iterdir())
    terminal(*FIXED_POINT, "--json=found.json", code=1)
    assert terminal.out == []
    assert terminal.err[-1].startswith(
        'ristretto: net.prototxt:9: the input of layer "conv" has NaN or infinite values'
    )
    assert Path("quantized.prototxt").read_text() == "of yesterday"
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("flag", ["--json", "--model_quantized"])
def test_a_file_that_cannot_be_written_is_reported_before_anything_is_scored(terminal: Terminal, flag: str) -> None:
    terminal(*FIXED_POINT, f"{flag}=nowhere/file", code=1)
    (line,) = terminal.err
    assert line.startswith("ristretto: nowhere/file: the folder ")
    assert line.endswith("nowhere does not exist. Create it first.")


# --- test

# Of an image that is named rightly the loss is ln(1 + e^-d), d = 150 / 256; of the others it is d more.
SCORES = ["Loss: 0.559681", "accuracy = 0.8", "loss = 0.559681 (* 1 = 0.559681 loss)"]


def test_test_prints_the_means_as_caffe_does(terminal: Terminal) -> None:
    terminal(*TEST)
    assert terminal.out == SCORES


def test_test_logs_as_caffe_does(terminal: Terminal) -> None:
    terminal(*TEST)
    log = terminal.log
    assert log[0] == "Use CPU."
    assert (
        log[-8:]
        == [
            "Running for 2 iterations.",
            "Batch 0, accuracy = 0.8",
            "Batch 0, loss = 0.559681",
            "Batch 1, accuracy = 0.8",
            "Batch 1, loss = 0.559681",
            *SCORES,
        ]
        or log[-len(SCORES) :] == SCORES
    )


def test_test_in_the_folder_of_the_last_quantize_scores_its_net(terminal: Terminal) -> None:
    terminal(*FIXED_POINT, "--bit_widths=8")
    terminal("test", "--iterations", "2")
    assert terminal.out[1] == "accuracy = 0.8"
    assert terminal.err[0] == "Scoring quantized.prototxt with net.caffemodel, named in its header."
    assert terminal.out[0] != SCORES[0]  # the loss is the trimmed net's


def test_test_of_a_net_elsewhere_finds_the_weights_that_it_names(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(*FIXED_POINT, "--bit_widths=8")
    Path("elsewhere").mkdir()
    for name in ("train_db", "test_db"):
        Path("elsewhere", name).symlink_to(Path(name).resolve())
    monkeypatch.chdir("elsewhere")
    terminal("test", "--model=../quantized.prototxt", "--iterations=2")
    assert terminal.err[0] == ("Scoring ../quantized.prototxt with ../net.caffemodel, named in its header.")
    assert terminal.out[1] == "accuracy = 0.8"


def test_test_without_a_net_says_which_is_missing(terminal: Terminal) -> None:
    terminal("test", code=2)
    assert terminal.err == [
        "ristretto: missing: --model (and no quantized.prototxt in the current folder)",
        "Try 'ristretto test --help'.",
    ]


def test_test_of_a_net_that_names_no_weights_asks_for_them(terminal: Terminal) -> None:
    terminal("test", "--model=net.prototxt", code=1)
    assert terminal.err == ["ristretto: net.prototxt: no weights file is named in its header. Use --weights."]


def test_test_writes_json(terminal: Terminal) -> None:
    terminal(*TEST, "--json=scores.json")
    found = json.loads(Path("scores.json").read_text())
    assert (found["model"], found["weights"]) == ("net.prototxt", "net.caffemodel")
    assert found["outputs"]["accuracy"] == pytest.approx([0.8], abs=1e-7)
    assert found["loss"] == pytest.approx(0.559681, abs=1e-6)


def test_test_takes_level_and_stage(terminal: Terminal, workshop: Any) -> None:
    named = 'layer { name: "%s" type: "Power" bottom: "fc" top: "%s" include { %s } }'
    workshop.net(NET + named % ("high", "high", "min_level: 2") + named % ("deploy", "deploy", 'stage: "a" stage: "b"'))
    extra = []
    for flags in ([], ["--level=2"], ["-stage", "a,b"], ["--stage=a"]):
        terminal(*TEST, *flags)
        extra.append({line.split(" ")[0] for line in terminal.out} - {"Loss:", "accuracy", "loss"})
    assert extra == [set(), {"high"}, {"deploy"}, set()]


def test_less_is_logged_with_glogs_own_variable(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "1")
    terminal(*TEST)
    assert (terminal.out, terminal.err) == (SCORES, [])


# --- forward


def test_forward_writes_every_blob_and_tells_their_shapes(terminal: Terminal) -> None:
    terminal("forward", "--model=net.prototxt", "--weights=net.caffemodel", "--output=blobs.npz")
    assert terminal.out == [
        "data: 5x2x1x1",
        "label: 5",
        "conv: 5x2x1x1",
        "fc: 5x2",
        "accuracy: scalar",
        "loss: scalar",
        "@total_loss: scalar",
    ]
    blobs = np.load("blobs.npz")
    assert blobs["fc"][:2].tolist() == [[200 / 256, 50 / 256], [50 / 256, 200 / 256]]
    assert blobs["accuracy"] == np.float32(0.8)


def test_forward_feeds_what_it_is_given(terminal: Terminal) -> None:
    np.savez("x.npz", data=np.full((5, 2, 1, 1), 3.0), label=np.zeros(5))
    terminal(
        *("forward", "--model=net.prototxt", "--weights=net.caffemodel"),
        *("--input=x.npz", "--output=blobs.npz", "--blobs=fc,accuracy"),
    )
    blobs = np.load("blobs.npz")
    assert {key: blobs[key].tolist() for key in ("fc", "accuracy")} == {"fc": [[3, 3]] * 5, "accuracy": 0}
    assert "conv" not in blobs.files


def test_forward_without_weights_fills_them_alike_for_a_seed(terminal: Terminal, workshop: Any) -> None:
    filler = 'bias_term: false weight_filler { type: "gaussian" std: 1 }'
    workshop.net(NET.replace("bias_term: false", filler))
    found = []
    for seed in ("1", "1", "2"):
        terminal("forward", "-model", "net.prototxt", "-output=blobs.npz", f"--seed={seed}")
        found.append(np.load("blobs.npz")["fc"].tolist())
    assert found[0] == found[1] != found[2]


def test_forward_runs_the_given_phase(terminal: Terminal) -> None:
    terminal("forward", "--model=net.prototxt", "--weights=net.caffemodel", "--output=b.npz", "--phase=TRAIN")
    assert "accuracy: scalar" not in terminal.out
    assert "loss: scalar" in terminal.out


# --- export


def test_export_writes_onnx(terminal: Terminal) -> None:
    terminal("export", "--format=onnx", "--model=net.prototxt", "--weights=net.caffemodel", "--output=net.onnx")
    (line,) = terminal.out
    assert re.fullmatch(r"net\.onnx: \d+ nodes, inputs data, outputs fc", line)
    onnx.checker.check_model(onnx.load("net.onnx"))


def test_export_writes_weights_without_a_net(terminal: Terminal) -> None:
    terminal("export", "--format=npz", "--weights=net.caffemodel", "--output=w.npz")
    assert terminal.out == ["w.npz: 2 blobs of 2 layers"]
    assert sorted(np.load("w.npz").files) == ["conv/0", "fc/0"]


def test_export_of_an_unknown_format_lists_those_there_are(terminal: Terminal) -> None:
    terminal("export", "--format=tflite", "--weights=net.caffemodel", "--output=w", code=2)
    assert re.search(r'unknown export format "tflite"\. Known: .*npz, onnx.*\.$', terminal.err[0])


# --- all of them

COMMANDS = Shell("ristretto_cli.cli").list_commands(Context(Shell("ristretto_cli.cli")))


def test_the_help_lists_every_command_with_a_line(terminal: Terminal) -> None:
    terminal("--help")
    listed = terminal.out[terminal.out.index("Commands:") + 1 :]
    listed = [line for line in listed[: listed.index("")] if line[2] != " "]  # a long text continues below
    assert [line.split()[0] for line in listed] == COMMANDS
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_a_line_of_help(terminal: Terminal, command: str) -> None:
    import importlib

    terminal(command, "--help")
    shown = "\n".join(terminal.out)
    params = importlib.import_module(f"ristretto_cli.cli.{command}").command.params
    for param in (param for param in params if isinstance(param, Option) and not param.hidden):
        assert f"--{param.name} " in shown
        assert param.help


def test_a_misspelt_flag_is_met_with_the_right_one(terminal: Terminal) -> None:
    terminal(*FIXED_POINT, "--error_margn=3", code=2)
    assert terminal.err == [
        "ristretto: unknown flag --error_margn. Did you mean --error_margin?",
        "Try 'ristretto quantize --help'.",
    ]


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--iterations=0", "ristretto: Invalid value for '--iterations': 0 is not in the range x>=1."),
        ("--error_margin=-1", "ristretto: Invalid value for '--error_margin': -1.0 is not in the range 0<=x<=100."),
        (
            "--bit_widths=16,x",
            "ristretto: Invalid value for '--bit_widths': \"16,x\": expected a list of numbers such as 16,8,4",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(terminal: Terminal, flag: str, line: str) -> None:
    terminal(*FIXED_POINT, flag, code=2)
    assert terminal.err == [line, "Try 'ristretto quantize --help'."]


def test_the_program_runs_as_a_module_of_its_own(two_classes: Any) -> None:
    two_classes()
    done = subprocess.run(
        [sys.executable, "-m", "ristretto_cli", *TEST], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.splitlines() == SCORES
    assert all(GLOG.match(line) for line in done.stderr.splitlines())


def test_the_version_is_the_packages(terminal: Terminal) -> None:
    terminal("--version")
    assert terminal.out == [f"ristretto {__version__}"]
