"""The flags of glog and gflags, which every command takes, and the log files."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.main import called_as, run

from .conftest import TEST, Job

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def caffe(job: Job, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line on the tiny job, under the name of a program: exit code, stdout, stderr."""

    def call(*args: str, called: str = "caffe") -> tuple[int, str, str]:
        code = run(args, called=called)
        return code, *capsys.readouterr()

    return call


SCORE = ("test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=1")


def severities(text: str) -> str:
    """The letters with which lines of a log begin."""
    return "".join(sorted(set(re.findall(r"^([IWEF])\d{4} \d\d:", text, re.MULTILINE))))


def log_files(folder: str = "log") -> dict[str, Path]:
    return {path.name.split(".log.")[1].split(".")[0]: path for path in Path(folder).iterdir() if ".log." in path.name}


# -- the log


@pytest.mark.parametrize("spelling", [["-log_dir=./log"], ["--log_dir", "log"], ["-log-dir", "log"]], ids=" ".join)
def test_log_dir_writes_the_log_to_a_file_too(caffe: Run, spelling: list[str]) -> None:
    Path("log").mkdir()
    code, _, err = caffe(*SCORE, *spelling)
    assert code == 0
    assert "] accuracy = " in err
    files = log_files()
    assert set(files) == {"INFO"}  # files of higher severities begin with their first line
    assert re.fullmatch(rf"caffe\..+\.log\.INFO\.\d{{8}}-\d{{6}}\.{os.getpid()}", files["INFO"].name)
    text = files["INFO"].read_text()
    assert re.match(
        r"Log file created at: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\nRunning on machine: .+\nLog line format: ", text
    )
    assert text.split("\n", 3)[3] == err
    assert Path("log/caffe.INFO").readlink() == Path(files["INFO"].name)


def test_the_folder_of_log_files_is_created(caffe: Run) -> None:
    assert caffe(*SCORE, "--log_dir=a/b")[0] == 0
    assert set(log_files("a/b")) == {"INFO"}


def test_a_folder_that_cannot_be_written_is_named(caffe: Run) -> None:
    code, _, err = caffe(*SCORE, "--log_dir=net.prototxt")
    assert code == 1
    assert err.startswith("ristretto: net.prototxt: --log_dir: log files cannot be written there")


def test_each_severity_has_a_file_with_the_higher_ones(caffe: Run) -> None:
    code, _, err = caffe("test", "--model=none", "--weights=none", "--model=missing", "--log_dir=log")
    assert code == 1
    files = log_files()
    assert severities(files["INFO"].read_text()) == "EIW" if "Use CPU" in err else "EW"
    assert severities(files["WARNING"].read_text()) == "EW"
    assert severities(files["ERROR"].read_text()) == "E"
    assert "missing: this file does not exist" in files["ERROR"].read_text()


def test_logtostderr_writes_no_file(caffe: Run) -> None:
    code, _, err = caffe(*SCORE, "--log_dir=log", "--logtostderr=1")
    assert code == 0
    assert "] accuracy = " in err
    assert not Path("log").exists()


def test_glogs_settings_are_read_from_the_environment(caffe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_log_dir", "log")
    monkeypatch.setenv("GLOG_logtostderr", "0")
    assert caffe(*SCORE)[0] == 0
    assert set(log_files()) == {"INFO"}
    monkeypatch.setenv("GLOG_logtostderr", "1")
    assert caffe(*SCORE, "--log_dir=other")[0] == 0
    assert not Path("other").exists()
    assert caffe(*SCORE, "--log_dir=other", "--nologtostderr")[0] == 0
    assert set(log_files("other")) == {"INFO"}


WARNS = (*SCORE, "--iterations=1", "--stage=none")  # no layer has a rule for this stage


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], "IW"),
        (["--minloglevel=1"], "W"),
        (["--minloglevel", "2"], ""),
        (["--stderrthreshold=1"], "W"),
        (["--stderrthreshold=2"], ""),
        (["--stderrthreshold=2", "--alsologtostderr"], "IW"),
        (["--stderrthreshold=2", "--logtostderr"], "IW"),
        (["--noalsologtostderr"], ""),
        (["--alsologtostderr=false", "-stderrthreshold=0"], "IW"),
    ],
    ids=str,
)
def test_severities_on_stderr(caffe: Run, flags: list[str], shown: str) -> None:
    code, out, err = caffe(*WARNS, *flags)
    assert code == 0
    assert severities(err) == shown
    assert "accuracy = " in out


def test_a_file_has_what_stderr_does_not_show(caffe: Run) -> None:
    _, _, err = caffe(*WARNS, "--stderrthreshold=2", "--log_dir=log")
    assert err == ""
    assert severities(log_files()["INFO"].read_text()) == "IW"
    caffe(*WARNS, "--minloglevel=1", "--log_dir=other")
    assert set(log_files("other")) == {"WARNING", "INFO"}
    assert severities(log_files("other")["INFO"].read_text()) == "W"


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], []),
        (["--v=0"], []),
        (["--v=1"], ["net", "weights"]),
        (["-v", "3"], ["net", "weights"]),
        (["--vmodule=weights=1"], ["weights"]),
        (["--vmodule=w*=1,net_file=0"], ["weights"]),
        (["--vmodule=weights=0", "--v=1"], ["net"]),
        (["--v=1", "--minloglevel=1"], []),
    ],
    ids=str,
)
def test_details_are_logged_on_request(caffe: Run, flags: list[str], shown: list[str]) -> None:
    code, _, err = caffe(*SCORE, *flags)
    assert code == 0
    assert sorted(set(re.findall(r"\] Reading the (\w+) in ", err))) == shown


def test_log_lines_may_have_no_prefix(caffe: Run) -> None:
    _, _, err = caffe(*SCORE, "--nolog_prefix")
    assert severities(err) == ""
    assert re.search("^accuracy = ", err, re.MULTILINE)


def test_a_flag_of_glog_that_has_no_effect_is_said_to_have_none(caffe: Run) -> None:
    code, _, err = caffe(*SCORE, "--logbufsecs=5", "--colorlogtostderr")
    assert code == 0
    assert "] --logbufsecs has no effect here." in err
    assert "] --colorlogtostderr has no effect here." in err


@pytest.mark.parametrize("flag", ["--minloglevel=9", "--v=x", "--vmodule=weights", "--stderrthreshold=-1"])
def test_a_bad_value_is_a_wrong_flag(caffe: Run, flag: str) -> None:
    code, _, err = caffe(*SCORE, flag)
    assert code == 2
    assert flag.partition("=")[0] in err or flag.partition("=")[2] in err


def test_files_on_a_full_disk_do_not_end_a_command(caffe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(self: Path, *args: object, **more: object) -> object:
        if ".log." in self.name:
            raise OSError(28, "No space left on device")
        return real(self, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    code, out, err = caffe(*SCORE, "--log_dir=log")
    assert code == 0
    assert "accuracy = " in out
    assert err.count("The log files cannot be written any more: No space left on device") == 1


# -- gflags


@click.command(cls=GflagsCommand)
@option("--model", "The net to trim.", unit="file", required=True)
@option("--iterations", "How many batches are scored.", type=int, default=50)
@option("--gpu", "Run on a GPU.", is_flag=True)
def scale(**values: object) -> None:
    """Echo the flags."""


def parse(*args: str) -> dict[str, object]:
    return dict(scale.make_context("scale", list(args)).params)


def refusal(*args: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        parse(*args)
    return caught.value.format_message()


def test_flags_may_be_in_a_file(workshop: object) -> None:
    Path("flags").write_text("# for LeNet\n\n--model=a\n  -iterations=5\n--gpu\n")
    assert parse("--flagfile=flags") == {"model": "a", "iterations": 5, "gpu": True}


def test_the_place_of_a_flag_file_decides_which_value_is_the_last(workshop: object) -> None:
    Path("flags").write_text("--iterations=5\n--model a\n")
    assert parse("--iterations=1", "--flagfile", "flags")["iterations"] == 5
    assert parse("--flagfile", "flags", "--iterations=1")["iterations"] == 1


def test_flag_files_may_name_others_but_not_themselves(workshop: object) -> None:
    Path("one").write_text("--model=a\n--flagfile=two\n")
    Path("two").write_text("--iterations=7\n")
    Path("loop").write_text("--flagfile=loop\n")
    assert parse("--flagfile=one")["iterations"] == 7
    assert parse("--flagfile=one,two")["iterations"] == 7
    assert "--flagfile=loop is given twice, or by itself" in refusal("--flagfile=loop", "--model=a")


def test_lines_of_a_flag_file_may_be_for_other_programs(workshop: object) -> None:
    Path("flags").write_text("--model=a\ncaffe */train_*\n--iterations=1\nsc*\n--gpu\n")
    assert parse("--flagfile=flags") == {"model": "a", "iterations": 50, "gpu": True}


def test_a_bad_flag_file_is_reported(workshop: object) -> None:
    Path("flags").write_text("--model=a\n--iteration=5\n")
    assert refusal("--flagfile=flags") == "unknown flag --iteration. Did you mean --iterations?"
    assert "--flagfile: none: this file does not exist" in refusal("--flagfile=none", "--model=a")
    Path("flags").write_text("--iterations 5 6\n")
    assert refusal("--flagfile=flags", "--model=a") == "flags:1: expected one flag, such as --iterations=100"


def test_flags_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGS_model", "a")
    monkeypatch.setenv("FLAGS_gpu", "true")
    assert parse("--fromenv=model,gpu") == {"model": "a", "iterations": 50, "gpu": True}
    assert parse("--tryfromenv=model,iterations") == {"model": "a", "iterations": 50, "gpu": False}
    assert "there is no variable FLAGS_iterations" in refusal("--fromenv=model,iterations")
    monkeypatch.setenv("FLAGS_iterations", "x")
    assert "'x' is not a valid integer" in refusal("--fromenv=model,iterations")


def test_some_flags_may_be_unknown() -> None:
    assert parse("--model=a", "--undefok=solver,fast", "--solver=x", "--nofast") == parse("--model=a")
    assert parse("--model=a", "--solver=x", "--undefok", "solver") == parse("--model=a")
    assert refusal("--model=a", "--undefok=solver", "--zzzzz=1") == "unknown flag --zzzzz"
    assert refusal("--undefok=solver", "--solver=x") == "missing: --model"


def test_own_flags_are_suggested_before_common_ones() -> None:
    assert refusal("--modle=a") == "unknown flag --modle. Did you mean --model?"
    assert refusal("--model=a", "--log_dirr=x") == "unknown flag --log_dirr. Did you mean --log_dir?"


@pytest.mark.parametrize("flag", ["--helpmatch=iter", "--help=ITER", "--helpon", "-helpmatch"])
def test_help_for_some_flags(caffe: Run, flag: str) -> None:
    code, out, err = caffe("test", flag, *([] if "=" in flag else ["iter"]))
    assert (code, err) == (0, "")
    assert out.startswith("Usage: caffe test")
    assert re.search(r"--iterations INTEGER.* +Number of batches to run\.", out)
    assert "--weights" not in out


def test_help_for_no_flag(caffe: Run) -> None:
    code, _, err = caffe("test", "--helpmatch=zzz")
    assert code == 2
    assert 'no flag has "zzz" in its name' in err


def test_full_and_short_help(caffe: Run) -> None:
    _, plain, _ = caffe("test", "--help")
    assert "--helpfull" in plain
    assert "--minloglevel" not in plain
    _, full, _ = caffe("test", "--helpfull")
    assert re.search(r"--minloglevel.* +The lowest severity to log", full)
    assert "--iterations" in full
    code, short, _ = caffe("test", "-helpshort")
    assert code == 0
    assert "--iterations" in short
    assert "Number of batches" not in short


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_every_command_shows_the_version(caffe: Run, flag: str) -> None:
    code, out, err = caffe("test", flag)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"ristretto \d+\.\d+\.\d+\n", out)


# -- names of the program


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/ristretto", "ristretto"),
        ("./build/tools/caffe.bin", "caffe"),
        ("build/tools/caffe-d", "caffe"),
        ("/x/ristretto_cli/__main__.py", "ristretto"),
        ("examples/mnist/convert_mnist_data.bin", "convert_mnist_data"),
    ],
)
def test_the_name_of_the_program(path: str, name: str) -> None:
    assert called_as(path) == name


def test_caffe_takes_the_same_commands(caffe: Run) -> None:
    assert caffe(*SCORE)[1] == caffe(*SCORE, called="ristretto")[1]
    code, out, _ = caffe("--help")
    assert code == 0
    assert out.startswith("Usage: caffe COMMAND")
    assert caffe("tset")[2].endswith("Try 'caffe --help'.\n")


def test_a_program_named_as_a_command_is_that_command(caffe: Run) -> None:
    code, _, _ = caffe("net.prototxt", "new.prototxt", called="upgrade_net_proto_text")
    assert code == 0
    assert Path("new.prototxt").exists()
    assert caffe("--model=net.prototxt", called="summary") == caffe("summary", "--model=net.prototxt")
    assert caffe("--help", called="upgrade_net_proto_text")[1].startswith("Usage: ristretto upgrade_net_proto_text")


def test_a_program_of_another_name_takes_commands(caffe: Run) -> None:
    assert caffe(*SCORE, called="my_ristretto")[0] == 0


def test_log_files_have_the_name_of_the_program(caffe: Run) -> None:
    caffe("net.prototxt", "new.prototxt", "--log_dir=log", called="upgrade_net_proto_text")
    assert all(path.name.startswith("upgrade_net_proto_text.") for path in Path("log").iterdir())


@pytest.mark.parametrize("called", ["caffe", "ristretto"])
def test_the_example_of_a_tutorial_runs_word_for_word(caffe: Run, called: str) -> None:
    code, out, err = caffe("-gpu=0", *TEST[:-1], "--logtostderr=1", "-log_dir", "log", called=called)
    assert code == 0
    assert "accuracy = " in out
    assert "the GPU cannot be used" in err


def test_a_mean_of_a_database_by_the_tools_own_name(caffe: Run) -> None:
    assert caffe("-backend=lmdb", "db", "mean.binaryproto", called="compute_image_mean")[0] == 0
    assert new("BlobProto").FromString(Path("mean.binaryproto").read_bytes()).width == 4


def test_the_process_is_named_by_its_file(job: Job) -> None:
    program = Path("convert_imageset.bin")
    program.write_text(f"#!{sys.executable}\nfrom ristretto_cli.cli.main import main\nmain()\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(["./convert_imageset.bin", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ristretto convert_imageset")
