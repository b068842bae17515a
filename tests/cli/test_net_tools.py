# ruff: noqa: E501 - a row's files and messages are lines as they are
"""upgrade_*, time, summary and draw, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_net_binary, write_weights
from ristretto_cli.cli.main import run

from .conftest import Job

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GLOG = re.compile(r"[IWEF]\d{4} [0-9:.]+ +\d+ \w+\.py:\d+\] ")
TEXT, BINARY, SOLVER = "upgrade_net_proto_text", "upgrade_net_proto_binary", "upgrade_solver_proto_text"
V1 = 'name: "n"\nlayers { name: "r" type: RELU bottom: "x" top: "x" }\n'
V2 = 'name: "n"\nlayer {\n  name: "r"\n  type: "ReLU"\n  bottom: "x"\n  top: "x"\n}\n'


def log_of(err: str) -> list[str]:
    """The messages of the log, in which every line of stderr has to be one."""
    assert all(map(GLOG.match, err.splitlines())), err
    return [GLOG.sub("", line) for line in err.splitlines()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    return tmp_path


# --- upgrade_*


def recorded(operation: str) -> list[Any]:
    """The recorded cases of an upgrade: the folder, and the exit code of Caffe's tool."""
    found = []
    for file in sorted(SHARED.glob("golden/io/*/case.json")):
        case = json.loads(file.read_text())
        if case.get("operation") == operation:
            found.append(pytest.param(file.parent, case["exit_code"], id=file.parent.name))
    return found or [pytest.param(None, 0, marks=pytest.mark.skip(reason=f"no recorded cases at {SHARED}"))]


@pytest.mark.parametrize(("folder", "code"), recorded("upgrade_net_text"))
def test_nets_are_upgraded_as_by_caffes_tool_with_its_exit_code(folder: Path, code: int, here: Path) -> None:
    assert run([TEXT, str(folder / "input.prototxt"), "out.prototxt"]) == code
    assert Path("out.prototxt").read_text() == (folder / "expected.prototxt").read_text()


@pytest.mark.parametrize(("folder", "code"), recorded("upgrade_net_binary"))
def test_caffemodels_are_upgraded_as_by_caffes_tool_with_its_exit_code(folder: Path, code: int, here: Path) -> None:
    assert run([BINARY, str(folder / "input.caffemodel"), "out.caffemodel"]) == code
    assert read_net_binary("out.caffemodel") == read_net_binary(folder / "expected.caffemodel")


@pytest.mark.parametrize(("folder", "code"), recorded("upgrade_solver_text"))
def test_solvers_are_upgraded_as_by_caffes_tool_with_its_exit_code(folder: Path, code: int, here: Path) -> None:
    assert run([SOLVER, str(folder / "input.prototxt"), "out.prototxt"]) == code
    assert Path("out.prototxt").read_text() == (folder / "expected.prototxt").read_text()


def test_an_upgrade_tells_what_it_does_in_caffes_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.prototxt").write_text(V1)
    assert run([TEXT, "old.prototxt", "new.prototxt"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert log_of(err) == [
        "Attempting to upgrade input file specified using deprecated V1LayerParameter: old.prototxt",
        "Successfully upgraded file specified using deprecated V1LayerParameter",
        "Wrote upgraded NetParameter text proto to new.prototxt",
    ]
    assert Path("new.prototxt").read_text() == V2


def test_an_upgrade_may_write_over_its_input(here: Path) -> None:
    Path("net.prototxt").write_text(V1)
    assert run([TEXT, "net.prototxt", "net.prototxt"]) == 0
    assert Path("net.prototxt").read_text() == V2


@pytest.mark.parametrize(("command", "text"), [(TEXT, V2), (SOLVER, 'net: "n"\ntype: "Adam"\n')], ids=["net", "solver"])
def test_what_is_up_to_date_is_written_as_it_is_and_reported(
    command: str, text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in").write_text(text)
    assert run([command, "in", "out"]) == 0
    assert Path("out").read_text() == text
    assert log_of(capsys.readouterr().err)[0] == "File already in latest proto format: in"


def test_a_dropped_field_ends_with_code_1_after_a_whole_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old").write_text(
        'input: "x" input_dim: [1, 1, 1, 1] layers { layer { name: "r" type: "relu" num_output: 3 } bottom: "x" top: "x" }'
    )
    assert run([TEXT, "old", "new"]) == 1
    assert read_net("new").message.layer[1].type == "ReLU"
    assert log_of(capsys.readouterr().err)[-2:] == [
        "Encountered error(s) while upgrading prototxt; see details above.",
        "Wrote upgraded NetParameter text proto to new",
    ]


def test_arrays_of_a_caffemodel_survive_its_upgrade(here: Path) -> None:
    old = new("NetParameter")
    layer = old.layers.add(name="fc", type=14)
    layer.blobs.add(num=1, channels=1, height=1, width=3, data=[1.5, -2, 3])
    Path("old").write_bytes(old.SerializeToString())
    assert run([BINARY, "old", "new"]) == 0
    (upgraded,) = read_net_binary("new").layer
    assert (upgraded.name, upgraded.type, list(upgraded.blobs[0].data)) == ("fc", "InnerProduct", [1.5, -2, 3])


def test_a_solver_type_becomes_a_name_and_nothing_else_changes(here: Path) -> None:
    Path("solver").write_text('base_lr: 0.5\nsolver_type: NESTEROV\nnet: "n"\n')
    assert run([SOLVER, "solver", "out"]) == 0
    assert Path("out").read_text() == 'base_lr: 0.5\nnet: "n"\ntype: "Nesterov"\n'


# --- summary


def test_summary_needs_only_the_net_and_writes_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "x" data_param { source: "none" batch_size: 9 } }\n'
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 3 } }\n'
    )
    assert run(["summary", "--model=net.prototxt", "-input_shape", "x=2,5", "--json=s.json"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[4].split(), err) == (["fc", "InnerProduct", "2x3", "18", "15"], "")
    found = json.loads(Path("s.json").read_text())
    assert (found["parameters"], found["macs"], found["batch"], found["macs_are_for_inputs"]) == (18, 15, 2, 1)
    assert found["layers"][1] == {
        "name": "fc",
        "type": "InnerProduct",
        "tops": [{"name": "fc", "shape": [2, 3]}],
        "parameters": 18,
        "macs": 15,
        "bits": None,
    }
    assert list(found["shapes_not_from_data"]) == ["d"]


# --- draw


def test_draw_prints_graphvizs_text_or_writes_it(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["draw", "--model=net.prototxt", "--rankdir=tb"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith('digraph "tiny" {\n  rankdir=TB;\n')
    assert run(["draw", "--model=net.prototxt", "--rankdir=TB", "--output=net.dot"]) == 0
    assert Path("net.dot").read_text() == printed
    assert capsys.readouterr() == ("", "")


def test_draw_shows_all_phases_or_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = 'layer { name: "%s" type: "Silence" bottom: "x" %s }\n'
    Path("net").write_text(layer % ("a", "include { phase: TRAIN }") + layer % ("b", "exclude { phase: TRAIN }"))
    shown = []
    for phase in ("ALL", "TRAIN", "TEST"):
        assert run(["draw", "--model=net", f"--phase={phase}"]) == 0
        shown.append(re.findall(r'label="(\w)\\n', capsys.readouterr().out))
    assert shown == [["a", "b"], ["a"], ["b"]]


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called dot, a shell script, in the place of graphviz's."""
    folder.mkdir()
    (folder / "dot").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_draw_has_graphviz_make_pictures(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", 'echo "$1"; head -n 1', monkeypatch)
    assert run(["draw", "--model=net.prototxt", "--output=net.SVG"]) == 0
    assert Path("net.SVG").read_text() == '-Tsvg\ndigraph "tiny" {\n'


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_understands_the_text(job: Job) -> None:
    job.edit('name: "conv"', r'name: "c\"o\\nv<&>{|}é"')
    assert run(["draw", "--model=net.prototxt", "--output=net.svg"]) == 0
    assert Path("net.svg").read_text(encoding="utf-8").count("<polygon") > 10


def test_a_picture_without_graphviz_is_refused(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    before = job.files()
    assert run(["draw", "--model=net.prototxt", "--output=net.svg"]) == 1
    assert capsys.readouterr() == (
        "",
        "ristretto: net.svg: rendering an image requires graphviz (dot). Install graphviz, or write dot source: --output=net.dot.\n",
    )
    assert job.files() == before


def test_a_picture_that_graphviz_fails_at_leaves_nothing(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "echo half; echo no memory >&2; exit 3", monkeypatch)
    before = job.files()
    assert run(["draw", "--model=net.prototxt", "--output=net.svg"]) == 1
    assert capsys.readouterr().err == "ristretto: net.svg: dot ended with code 3: no memory\n"
    assert job.files() == before


# --- time

LINES = re.compile(
    r"""Layer times are kernel times from onnxruntime's profiler; for data layers, the time to read a batch\.
Average time per layer:[ ]
      data\tforward: \S+ ms\.
      conv\tforward: \S+ ms\.
        ip\tforward: \S+ ms\.
  accuracy\tforward: \S+ ms\.
      loss\tforward: \S+ ms\.
Kernels not attributed to a layer: \S+ ms. Time outside kernels: \S+ ms\.
Profiled pass, without reading data: \S+ ms. Without profiling:
Average Forward pass: \S+ ms\.
Total Time: \S+ ms\.
"""
)


@pytest.mark.parametrize("weights", [[], ["--weights=net.caffemodel"]])
def test_time_tells_each_layer_and_the_whole(weights: list[str], job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["time", "--model=net.prototxt", "-iterations", "2", *weights]) == 0
    out, err = capsys.readouterr()
    assert LINES.fullmatch(out)
    log = log_of(err)
    assert log[0] == "Use CPU."
    assert log[-11:] == out.splitlines()
    assert [line.split(":")[0] for line in log if line.startswith("Iteration")] == ["Iteration", "Iteration"]


def test_time_runs_the_train_phase_by_default_as_in_caffe(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.edit('top: "accuracy" }', 'top: "accuracy" include { phase: TEST } }')
    found = []
    for flags in ([], ["--phase=test"]):
        assert run(["time", "--model=net.prototxt", "--iterations=1", *flags]) == 0
        found.append("  accuracy\tforward" in capsys.readouterr().out)
    assert found == [False, True]


def test_time_works_without_the_data(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.remove("db")
    assert run(["time", "--model=net.prototxt", "--iterations=1", "--input_shape=data=3,1,4,4"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Zeros instead of data: data, label."


def test_time_fills_missing_weights_where_it_is_allowed(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    write_weights("half.caffemodel", {"conv": [np.zeros((2, 1, 3, 3), np.float32), np.zeros(2, np.float32)]})
    args = ["time", "--model=net.prototxt", "--weights=half.caffemodel", "--iterations=1"]
    assert run(args) == 1
    assert "--allow_missing_weights initializes it" in capsys.readouterr().err
    assert run([*args, "--allow_missing_weights"]) == 0


def test_names_do_not_steer_the_terminal(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.edit('name: "conv"', r'name: "c\033[2J"')
    for command in (["summary"], ["time", "--iterations=1"], ["draw"]):
        assert run([*command, "--model=net.prototxt"]) == 0
        out = capsys.readouterr().out
        assert "[2J" in out
        assert "\033" not in out


# --- bad inputs

NET_FLAG = "--model=net.prototxt"
# fmt: off
BAD = {
    "no arguments": ((TEXT,), 2, "Missing argument 'IN'."),
    "no output": ((TEXT, "net.prototxt"), 2, "Missing argument 'OUT'."),
    "three arguments": ((TEXT, "a", "b", "c"), 2, "Got unexpected extra argument (c)"),
    "missing net": ((TEXT, "x", "out"), 1, "x: this file does not exist"),
    "binary as text": ((TEXT, "net.caffemodel", "out"), 1, "net.caffemodel: this is not a text file. Expected a prototxt, not a binary file."),
    "empty net": ((TEXT, "empty", "out"), 1, "empty: the file is empty"),
    "text as binary": ((BINARY, "net.prototxt", "out"), 1, "net.prototxt: this is a text file, not a caffemodel. Use upgrade_net_proto_text for a prototxt."),
    "empty binary": ((BINARY, "empty", "out"), 1, re.compile("empty: .*")),
    "missing binary": ((BINARY, "x", "out"), 1, "x: this file does not exist"),
    "net as solver": ((SOLVER, "net", "out"), 1, 'net:1:1: unknown field "layer" in SolverParameter. It is a field of NetParameter: is this file a net?'),
    "empty solver": ((SOLVER, "empty", "out"), 1, "empty: the file is empty"),
    "output is a folder": ((TEXT, "net.prototxt", "db"), 1, "db: is a folder, not a file. Add a file name."),
    "output in no folder": ((SOLVER, "net.prototxt", "no/out"), 1, re.compile("no/out: the folder .*/no does not exist. Create it first.")),
    "summary without a model": (("summary",), 2, "missing: --model"),
    "summary of a missing model": (("summary", "--model=x"), 1, "x: this file does not exist"),
    "summary over the model": (("summary", NET_FLAG, "--json=net.prototxt"), 1, "net.prototxt: is an input of this command. Choose another name for the output."),
    "summary of a net that does not fit": (("summary", NET_FLAG, "--input_shape=data=1,1,2,2", "--json=out"), 1, re.compile(r'net\.prototxt:3: layer "conv" \(Convolution\): kernel 3x3 .* is larger than the input 2x2 .*')),
    "shape without a name": (("summary", NET_FLAG, "--input_shape=1,2,3"), 2, "Invalid value for '--input_shape': \"1,2,3\": expected a shape such as data=1,3,224,224"),
    "shape without numbers": (("summary", NET_FLAG, "--input_shape=data="), 2, "Invalid value for '--input_shape': \"data=\": expected a shape such as data=1,3,224,224"),
    "shape of nothing": (("summary", NET_FLAG, "--input_shape=data=0,1"), 2, "Invalid value for '--input_shape': \"data=0,1\": every dimension must be at least 1"),
    "shape of too much": (("summary", NET_FLAG, "--input_shape=data=99999999,99999999"), 1, '"data" has the shape 99999999x99999999, which is too large for a blob'),
    "shape of no input": (("summary", NET_FLAG, "--input_shape=conv=1,2"), 1, 'net.prototxt: "conv" is not an input of the net. Inputs: data, label.'),
    "draw to nowhere": (("draw", NET_FLAG, "--output=no/x.dot"), 1, re.compile("no/x.dot: the folder .*")),
    "draw to the left side": (("draw", NET_FLAG, "--rankdir=left"), 2, "Invalid value for '--rankdir': 'LEFT' is not one of 'LR', 'RL', 'TB', 'BT'."),
    "draw over the model": (("draw", NET_FLAG, "--output=net.prototxt"), 1, "net.prototxt: is an input of this command. Choose another name for the output."),
    "draw solver": (("draw", "--model=solver"), 1, re.compile("solver:1:1: .*")),
    "time without iterations": (("time", NET_FLAG, "--iterations=0"), 2, "Invalid value for '--iterations': 0 is not in the range x>=1."),
    "time with a prototxt as weights": (("time", NET_FLAG, "--weights=net.prototxt"), 1, "net.prototxt: this is a text file, such as a prototxt, not weights. Use the .caffemodel or .h5 with the net's trained weights."),
    "time in no phase": (("time", NET_FLAG, "--phase=DEPLOY"), 2, "Invalid value for '--phase': 'DEPLOY' is not one of 'TRAIN', 'TEST'."),
}
# fmt: on


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_reported_in_a_line_and_leaves_no_trace(
    name: str, job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "1")
    args, code, reported = BAD[name]
    job.write("empty", "")
    job.write("solver", "solver_type: ADAM")
    job.write("net", "layer { }")
    before = job.files()
    assert run(args) == code
    out, err = capsys.readouterr()
    first, *more = [line for line in err.splitlines() if not GLOG.match(line)]
    assert re.fullmatch(
        reported if isinstance(reported, re.Pattern) else re.escape(reported), first.removeprefix("ristretto: ")
    )
    assert more == ([f"Try 'ristretto {args[0]} --help'."] if code == 2 else [])
    assert out == ""
    assert job.files() == before


WRITERS = {
    "text": ((TEXT, "net.prototxt", "out"), "out"),
    "binary": ((BINARY, "net.caffemodel", "out"), "out"),
    "solver": ((SOLVER, "solver", "out"), "out"),
    "over the input": ((TEXT, "net.prototxt", "net.prototxt"), "net.prototxt"),
    "summary": (("summary", NET_FLAG, "--json=out"), "out"),
    "draw": (("draw", NET_FLAG, "--output=out"), "out"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_breaks_off_leaves_the_folder_as_it_was(
    writer: str, job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write("solver", "solver_type: ADAM")
    before = job.files()

    def full(temporary: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    args, output = WRITERS[writer]
    assert run(args) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    line = f"ristretto: {output}: cannot be written: no space left on device."
    assert last == f"{line} Free some space, or write to another disk."
    assert job.files() == before
