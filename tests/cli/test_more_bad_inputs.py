"""Files in the wrong places, streams that are closed, databases that an output would destroy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ristretto_cli.cli.main import run

from .conftest import EXPORT, FORWARD, QUANTIZE, TEST, Job
from .conftest import NET as JOB_NET

NET, WEIGHTS = "--model=net.prototxt", "--weights=net.caffemodel"
TEXT_AS_WEIGHTS = (
    "net.prototxt: this is a text file, such as a prototxt, not weights. "
    "Use the .caffemodel or .h5 with the net's trained weights."
)
NO_PROTOTXT = "this is not a text file. Expected a prototxt, not a binary file."
LOOP = "too many levels of symbolic links"
OF_DATABASE = "belongs to a database. Choose another name."


def refused(args: tuple[str, ...], job: Job, capsys: pytest.CaptureFixture[str], code: int = 1) -> list[str]:
    """The error of a command line, without the prefix; the folder is unchanged."""
    before = job.files()
    assert run(args) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert job.files() == before
    lines = [line for line in err.splitlines() if line[:1] not in "IWE"]
    assert all(line.startswith("ristretto: ") for line in lines), err
    return [line.removeprefix("ristretto: ") for line in lines]


@pytest.mark.parametrize(
    ("args", "reported"),
    [
        (("test", NET, "--weights=net.prototxt"), TEXT_AS_WEIGHTS),
        (("forward", NET, "--weights=net.prototxt", "--output=o.npz"), TEXT_AS_WEIGHTS),
        (("export", "--format=npz", "--weights=net.prototxt", "--output=o.npz"), TEXT_AS_WEIGHTS),
        (("extract_features", "net.prototxt", "net.prototxt", "ip", "f", "1", "lmdb"), TEXT_AS_WEIGHTS),
        (
            ("extract_features", "net.caffemodel", "net.caffemodel", "ip", "f", "1", "lmdb"),
            f"net.caffemodel: {NO_PROTOTXT}",
        ),
        (("summary", "--model=net.caffemodel"), f"net.caffemodel: {NO_PROTOTXT}"),
        (("draw", "--model=db/data.mdb", "--output=o.dot"), f"db/data.mdb: {NO_PROTOTXT}"),
        (("time", "--model=db"), "db: is a folder, not a file"),
        (
            ("upgrade_net_proto_binary", "net.prototxt", "o"),
            "net.prototxt: this is a text file, not a caffemodel. Use upgrade_net_proto_text for a prototxt.",
        ),
        (("upgrade_net_proto_text", "net.caffemodel", "o"), f"net.caffemodel: {NO_PROTOTXT}"),
        (("upgrade_net_proto_text", "net.prototxt", "db"), "db: is a folder, not a file. Add a file name."),
        (("convert_imageset", "net.prototxt", "db", "o"), "db: is a folder, not a file"),
        (("compute_image_mean", "net.prototxt", "o"), "net.prototxt: is not a folder. Use the folder of the database."),
    ],
)
def test_a_file_instead_of_another_is_reported_in_a_line(
    args: tuple[str, ...], reported: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(args, job, capsys) == [reported]


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
@pytest.mark.parametrize(
    "args",
    [
        (*FORWARD[:-1], "--output={}"),
        (*EXPORT[:-1], "--output={}"),
        (*TEST[:-1], "--json={}"),
        (*QUANTIZE, "--json={}"),
        ("compute_image_mean", "db", "{}"),
        ("upgrade_net_proto_text", "net.prototxt", "{}"),
    ],
    ids=lambda args: args[0],
)
def test_an_output_does_not_destroy_a_database(
    args: tuple[str, ...], name: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"db/{name}"
    assert refused(tuple(arg.format(path) for arg in args), job, capsys) == [f"{path}: {OF_DATABASE}"]


@pytest.mark.parametrize("name", ["CURRENT", "LOCK", "MANIFEST-000002", "000003.log", "000005.ldb"])
def test_an_output_does_not_destroy_a_leveldb(name: str, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    (job.folder / "level").mkdir()
    job.write("level/CURRENT", "MANIFEST-000002\n")
    path = f"level/{name}"
    assert refused((*FORWARD[:-1], f"--output={path}"), job, capsys) == [f"{path}: {OF_DATABASE}"]
    assert run((*FORWARD[:-1], "--output=level/o.npz")) == 0


def test_a_loop_of_links_is_reported_where_it_is_read_and_where_it_is_written(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    (job.folder / "a").symlink_to("b")
    (job.folder / "b").symlink_to("a")
    assert run(("summary", "--model=a")) == 1
    assert capsys.readouterr().err == f"ristretto: a: cannot be read: {LOOP}\n"
    assert run((*FORWARD[:-1], "--output=a")) == 1
    assert capsys.readouterr().err == f"ristretto: a: cannot be written: {LOOP}\n"
    assert (job.folder / "a").is_symlink()


DATA = JOB_NET.splitlines()[1]
TOPS = 'layer { name: "data" top: "data" top: "label"'
IMAGES = f'{TOPS} type: "ImageData" image_data_param {{ source: "$" batch_size: 1 }} }}'
HDF5 = f'{TOPS} type: "HDF5Data" hdf5_data_param {{ source: "$" batch_size: 1 }} }}'
WINDOWS = (
    f'{TOPS} type: "WindowData" transform_param {{ crop_size: 4 }} window_data_param {{ source: "$" batch_size: 1 }} }}'
)
NO_FILE = "is not a regular file. Use a regular file."


@pytest.mark.parametrize("endless", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    ("layer", "named", "reported"),
    [
        (DATA.replace('"db"', '"$"'), "$", f"(Data): data_param.source $ {NO_FILE}"),
        (
            DATA.replace("data_param", 'transform_param { mean_file: "$" } data_param'),
            "$",
            f"(Data): mean_file $ {NO_FILE}",
        ),
        (IMAGES, "$", f"(ImageData): image_data_param.source $ {NO_FILE}"),
        (IMAGES, "list", "(ImageData): $: the image cannot be read: it is not a regular file"),
        (HDF5, "$", f"(HDF5Data): hdf5_data_param.source $ {NO_FILE}"),
        (HDF5, "list", f"(HDF5Data): list: the file $ {NO_FILE}"),
        (WINDOWS, "$", f"(WindowData): window_data_param.source $ {NO_FILE}"),
    ],
)
def test_a_net_does_not_make_a_command_read_what_has_no_end(
    layer: str, named: str, reported: str, endless: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    """layer: names $. named: what that is. reported: of $, which is the pipe or the device."""
    os.mkfifo("pipe")
    job.write("list", f"{endless} 0\n" if layer == IMAGES else f"{endless}\n")
    job.edit(DATA, layer.replace("$", named.replace("$", endless)))
    assert run(FORWARD) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f'ristretto: net.prototxt:2: layer "data" {reported.replace("$", endless)}'


def test_a_hard_link_to_an_input_does_not_change_it(job: Job) -> None:
    os.link("net.prototxt", "hard.prototxt")
    text = Path("net.prototxt").read_text()
    assert run([arg.replace("out.prototxt", "hard.prototxt") for arg in QUANTIZE]) == 0
    assert Path("net.prototxt").read_text() == text
    assert "ConvolutionRistretto" in Path("hard.prototxt").read_text()


# --- streams


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    """A line of sh in the current folder, in which $R is the program."""
    environment = {**os.environ, "PYTHON": sys.executable}
    line = line.replace("$R", '"$PYTHON" -m ristretto_cli')  # its path may have a space
    return subprocess.run(["sh", "-c", line], capture_output=True, env=environment, timeout=600, check=False)


@pytest.mark.parametrize(("closed", "result"), [(">&-", False), ("2>&-", True), ("<&-", True), ("<&- >&- 2>&-", False)])
def test_a_closed_stream_does_not_end_a_command(closed: str, result: bool, job: Job) -> None:
    done = shell(f"$R {' '.join(TEST)} {closed}")
    assert done.returncode == 0, done.stderr
    assert b"bug" not in done.stderr
    assert (job.folder / "out.json").stat().st_size > 0
    assert (b"accuracy = " in done.stdout) == result


def test_what_goes_to_a_closed_stream_does_not_end_up_in_a_file(job: Job) -> None:
    before = job.files()
    assert shell(f"$R {' '.join(TEST)} <&- >&- 2>&-").returncode == 0
    after = job.files()
    assert b"accuracy = " not in after.pop("out.json")  # type: ignore[operator]
    assert after == before


@pytest.mark.parametrize(
    ("command", "start"),
    [
        ("summary --model=net.prototxt --json=/dev/stdout", b"{"),
        ("draw --model=net.prototxt --output=/dev/stdout", b"digraph"),
        (" ".join([*FORWARD[:-1], "--output=/dev/stdout"]), b"PK"),
        (" ".join([*EXPORT[:-1], "--output=/dev/stdout"]), b"\x08"),
    ],
    ids=["summary", "draw", "forward", "export"],
)
def test_an_output_may_go_into_a_pipe(command: str, start: bytes, job: Job) -> None:
    if not Path("/dev/stdout").exists():
        pytest.skip("there is no /dev/stdout")
    done = shell(f"$R {command} | cat")
    assert done.stdout.startswith(start), done.stderr


def test_a_reader_that_has_seen_enough_is_no_fault(job: Job) -> None:
    done = shell("$R summary --model=net.prototxt | head -1")
    assert done.stdout.count(b"\n") == 1
    assert b"ristretto: " not in done.stderr
