# ruff: noqa: E501 - a row's messages are lines as they are
"""Bad inputs of every format that holds an integer program: what the user is told, and that nothing is left behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.exports.exporter import EXPORTS
from ristretto_cli.exports.program_exporter import ProgramExporter

FORMATS = [name for name, each in EXPORTS.registered().items() if isinstance(each, ProgramExporter)]
IN_FOLDERS = [name for name in FORMATS if EXPORTS.get(name).writes_folder]

Q = "bw_params: 8 fl_params: 7 bw_layer_in: 8 fl_layer_in: 6 bw_layer_out: 8 fl_layer_out: 5"
NET = """name: "tiny"
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 2 dim: 6 dim: 6 }} }} }}
layer {{ name: "c1" type: "ConvolutionRistretto" bottom: "x" top: "c1" convolution_param {{ num_output: 4 kernel_size: 1 }} quantization_param {{ {first} }} }}
{middle}
layer {{ name: "c2" type: "ConvolutionRistretto" bottom: "{bottom}" top: "c2" convolution_param {{ num_output: 2 kernel_size: 1 }} quantization_param {{ {second} }} }}
"""
BEFORE_LAST = "Train the net without it, or move it after the last trimmed layer."


@dataclass(frozen=True)
class Bad:
    """A net without an integer form. middle: the layers between two trimmed ones; first, second: their formats."""

    name: str
    lines: tuple[str, ...]
    middle: str = ""
    first: str = Q
    second: str = Q

    @property
    def text(self) -> str:
        bottom = "m" if self.middle else "c1"
        return NET.format(first=self.first, middle=self.middle, second=self.second, bottom=bottom)


def layer(kind: str, param: str = "") -> str:
    return f'layer {{ name: "m" type: "{kind}" bottom: "c1" top: "m" {param} }}'


def between(name: str, kind: str, param: str = "", why: str = "", remedy: str = BEFORE_LAST, **settings: str) -> Bad:
    why = why or f"{kind} has no integer form"
    line = f'net.prototxt:4: layer "m" ({kind}): {why}, and the trimmed layer "c2" reads it. {remedy}'
    return Bad(name, (line,), layer(kind, param), **settings)


def last(name: str, why: str, second: str) -> Bad:
    return Bad(name, (f'net.prototxt:5: layer "c2" (ConvolutionRistretto): {why}',), second=second)


def first(name: str, why: str, first: str) -> Bad:
    return Bad(name, (f'net.prototxt:3: layer "c1" (ConvolutionRistretto): {why}',), first=first)


def changed(**settings: int) -> str:
    found = Q
    for name, value in settings.items():
        found = re.sub(rf"\b{name}: \S+", f"{name}: {value}", found)
    return found


BITS_16 = changed(bw_layer_out=16)
POW2 = "precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1 bw_layer_in: 8 fl_layer_in: 6 bw_layer_out: 8 fl_layer_out: 5"
TOO_WIDE = "a format of {} bits is too wide. Use at most 61 bits."
TOO_FAR = "a fractional length of {} is out of range. Use -300 to 300."
NETS = [
    between("LRN between trimmed layers", "LRN"),
    between("Sigmoid", "Sigmoid"),
    between("Sigmoid of 16 bits", "Sigmoid", first=BITS_16),
    between("TanH", "TanH"),
    between("ELU", "ELU"),
    between("Softmax", "Softmax"),
    between("MVN", "MVN"),
    between("ArgMax", "ArgMax", "argmax_param { axis: 1 top_k: 4 }"),
    between("Power with an exponent", "Power", "power_param { power: 2.5 }"),
    between("Im2col", "Im2col", "convolution_param { kernel_size: 1 }"),
    between("stochastic pooling", "Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"),
    between("a mean without the padding", "Pooling", "pooling_param { pool: AVE_EXC_PAD kernel_size: 3 pad: 1 }"),
    between(
        "a Reshape that mixes images",
        "Reshape",
        "reshape_param { shape { dim: 4 dim: 4 dim: 3 dim: 6 } }",
        "its first axis is not that of the images",
    ),
    between(
        "statistics of the batch",
        "BatchNorm",
        "batch_norm_param { use_global_stats: false }",
        "it normalizes by the statistics of each batch",
        "Set use_global_stats: true.",
    ),
    between(
        "a convolution that is not trimmed",
        "Convolution",
        "convolution_param { num_output: 4 kernel_size: 1 }",
        "its weights are not trimmed to fixed point",
        "Trim it to fixed point with `ristretto quantize`.",
    ),
    Bad(
        "Slice of images",
        (
            'net.prototxt:4: layer "m" (Slice): it moves elements between images, and the trimmed layer "c2" reads it. '
            + BEFORE_LAST,
        ),
        'layer { name: "m" type: "Slice" bottom: "c1" top: "m" top: "n" slice_param { axis: 0 } }',
    ),
    Bad(
        "Concat of images",
        ('net.prototxt:4: layer "m" (Concat): it joins images, and the trimmed layer "c2" reads it. ' + BEFORE_LAST,),
        'layer { name: "m" type: "Concat" bottom: "c1" bottom: "c1" top: "m" concat_param { axis: 0 } }',
    ),
    Bad(
        "two layers without integer form",
        (
            'net.prototxt:4: layer "n" (TanH): TanH has no integer form, and the trimmed layer "c3" reads it. '
            + BEFORE_LAST,
            'net.prototxt:4: layer "m" (MVN): MVN has no integer form, and the trimmed layer "c2" reads it. '
            + BEFORE_LAST,
        ),
        'layer { name: "n" type: "TanH" bottom: "c1" top: "n" } layer { name: "c3" type: "ConvolutionRistretto" bottom: "n" top: "c3" '
        f'convolution_param {{ num_output: 4 kernel_size: 1 }} quantization_param {{ {Q} }} }} layer {{ name: "m" type: "MVN" bottom: "c3" top: "m" }}',
    ),
    Bad(
        "LSTM",
        (
            'net.prototxt:4: layer "m" (LSTM): its first axis is not that of the images, and the trimmed layer "c2" reads it. '
            + BEFORE_LAST,
        ),
        'layer { name: "r" type: "Reshape" bottom: "c1" top: "r" reshape_param { shape { dim: 2 dim: 2 dim: 72 } } } '
        'layer { name: "one" type: "DummyData" top: "one" dummy_data_param { shape { dim: 2 dim: 2 } } } '
        'layer { name: "m" type: "LSTM" bottom: "r" bottom: "one" top: "l" recurrent_param { num_output: 4 } } '
        'layer { name: "back" type: "Reshape" bottom: "l" top: "m" reshape_param { shape { dim: 2 dim: 4 dim: 2 dim: 1 } } }',
    ),
    last(
        "minifloat",
        "it is trimmed to minifloats. Trim it to fixed point.",
        "precision: MINIFLOAT mant_bits: 3 exp_bits: 4",
    ),
    last(
        "powers of two",
        "its biases are not trimmed to fixed point. Trim it to fixed point with `ristretto quantize`.",
        POW2,
    ),
    first(
        "powers of two in the first layer",
        "its biases are not trimmed to fixed point. Trim it to fixed point with `ristretto quantize`.",
        POW2,
    ),
    last(
        "stochastic rounding",
        "it draws random numbers. Remove rounding_scheme: STOCHASTIC.",
        f"rounding_scheme: STOCHASTIC {Q}",
    ),
    last("weights of 64 bits", TOO_WIDE.format(64), changed(bw_params=64)),
    last("outputs of 64 bits", TOO_WIDE.format(64), changed(bw_layer_out=64)),
    first("inputs of 64 bits", TOO_WIDE.format(64), changed(bw_layer_in=64)),
    last("weights of 0 bits", "a width of 0 bits is out of range. Use 1 to 128.", changed(bw_params=0)),
    last("weights far below 1", TOO_FAR.format(1000), changed(fl_params=1000)),
    last("weights far above 1", TOO_FAR.format(-2000), changed(fl_params=-2000)),
    last("outputs far below 1", TOO_FAR.format(1000), changed(fl_layer_out=1000)),
    first("inputs far below 1", TOO_FAR.format(2000000000), changed(fl_layer_in=2000000000)),
    first(
        "inputs of another unit than biases",
        "its biases and its sums have units that differ by 2^200. Use narrower widths.",
        changed(fl_layer_in=200),
    ),
    first(
        "sums of more than 61 bits",
        "its sums need 64 bits, more than 61. Use narrower widths.",
        changed(bw_params=32, fl_params=31, bw_layer_in=32, fl_layer_in=30),
    ),
]


@pytest.fixture
def job(workshop: Any, tmp_path: Path) -> Any:
    """A net that every format takes, its weights, and images."""
    workshop.net(Bad("", ()).text)
    rng = np.random.default_rng(0)
    weights = {
        "c1": [rng.normal(size=(4, 2, 1, 1)) / 2, np.full(4, 0.3)],
        "c2": [rng.normal(size=(2, 4, 1, 1)) / 2, np.full(2, 0.3)],
        "c3": [rng.normal(size=(4, 4, 1, 1)) / 2, np.full(4, 0.3)],
    }
    workshop.weights(weights)
    np.savez("x.npz", x=rng.normal(size=(4, 2, 6, 6)).astype(np.float32))
    return workshop


def arguments(name: str, *more: str) -> list[str]:
    given = {"--format": name, "--model": "net.prototxt", "--weights": "net.caffemodel", "--output": "out"}
    given.update(each.split("=", 1) for each in more if "=" in each)  # type: ignore[misc]
    return [
        "export",
        *(f"{key}={value}" for key, value in given.items() if value),
        *(each for each in more if "=" not in each),
    ]


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def messages(err: str) -> list[str]:
    return [line.removeprefix("ristretto: ") for line in err.splitlines() if line.startswith("ristretto: ")]


@pytest.mark.parametrize("name", FORMATS)
def test_the_job_is_good_before_it_is_broken(name: str, job: Any) -> None:
    assert run(arguments(name, "--input=x.npz", "--vectors=3", "--check=3")) == 0
    assert Path("out").exists()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", NETS, ids=lambda bad: bad.name)
def test_a_net_without_an_integer_form_is_refused_by_layer(
    bad: Bad, name: str, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    job.net(bad.text)
    before = listing(job.folder)
    assert run(arguments(name, "--allow_missing_weights")) == 1
    out, err = capsys.readouterr()
    assert (messages(err), out) == (list(bad.lines), "")
    assert "Traceback" not in err
    assert listing(job.folder) == before


@dataclass(frozen=True)
class Row:
    """A bad command line, or bad files for a good one. change: makes the files. formats: those that it is about."""

    name: str
    flags: tuple[str, ...]
    lines: tuple[str, ...]
    code: int = 1
    change: Callable[[Any], object] = field(default=lambda job: None)
    formats: tuple[str, ...] = tuple(FORMATS)


def other_files(job: Any) -> None:
    (job.folder / "out").mkdir()
    (job.folder / "out" / "mine.txt").write_text("mine")


def an_export_and_a_file(job: Any) -> None:
    (job.folder / "out").mkdir()
    (job.folder / "out" / "manifest.json").write_text('{"files": {"net.json": ""}}')
    (job.folder / "out" / "net.json").write_text("{}")
    (job.folder / "out" / "mine.txt").write_text("mine")


def a_bad_manifest(job: Any) -> None:
    (job.folder / "out").mkdir()
    (job.folder / "out" / "manifest.json").write_text("{}")


def a_locked_folder(job: Any) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (job.folder / "locked").mkdir(mode=0o555)


def weights_of(**shapes: tuple[int, ...]) -> Callable[[Any], object]:
    return lambda job: job.weights({name: [np.ones(shape), np.ones(shape[0])] for name, shape in shapes.items()})


def arrays(**found: Any) -> Callable[[Any], object]:
    return lambda job: np.savez("x.npz", **found)


def text(name: str, content: str) -> Callable[[Any], object]:
    return lambda job: (job.folder / name).write_text(content)


def untrimmed(job: Any) -> None:
    job.net(re.sub("quantization_param {[^}]*}", "", Bad("", ()).text).replace("Ristretto", ""))


def no_layers(job: Any) -> None:
    job.net('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 6 dim: 6 } } }')


NO_DATA = 'net.prototxt:2: layer "x" (Input): there is no data for x. Give arrays with --input x.npz: x (Nx2x6x6); or replace it with a data layer such as Data.'
ROUNDINGS = "'half_even', 'half_up', 'away', 'floor'"
OTHER_FILES = "out: this folder holds other files. Choose a new folder, or that of an earlier export."
TABLE = [
    Row("no model", ("--model=",), ("this format needs --model",)),
    Row("no weights", ("--weights=",), ("net.prototxt: no weights file is named in its header. Use --weights.",)),
    Row("model missing", ("--model=none.prototxt",), ("none.prototxt: this file does not exist",)),
    Row("weights missing", ("--weights=none.caffemodel",), ("none.caffemodel: this file does not exist",)),
    Row(
        "arrays as the model",
        ("--model=x.npz",),
        ("x.npz: this is not a text file. Expected a prototxt, not a binary file.",),
    ),
    Row(
        "weights are empty",
        (),
        ("net.caffemodel: the file is empty. Is it a complete caffemodel?",),
        change=text("net.caffemodel", ""),
    ),
    Row(
        "a layer without weights",
        (),
        (
            'net.prototxt:5: layer "c2" has no weights in net.caffemodel. Layers there: c1. --allow_missing_weights initializes it with its filler.',
        ),
        change=weights_of(c1=(4, 2, 1, 1)),
    ),
    Row(
        "weights of another net",
        (),
        (
            'net.caffemodel: parameter 0 of layer "c1" is 4x3x1x1 in the file and 4x2x1x1 in the net. Use the weights of this net, or rename the layer to train it from scratch.',
        ),
        change=weights_of(c1=(4, 3, 1, 1), c2=(2, 4, 1, 1)),
    ),
    Row(
        "no trimmed layers",
        (),
        ("net.prototxt: the net has no layer that is trimmed to fixed point. Trim it: `ristretto quantize`.",),
        change=untrimmed,
    ),
    Row(
        "no layers",
        ("--allow_missing_weights",),
        ("net.prototxt: the net has no layer that is trimmed to fixed point. Trim it: `ristretto quantize`.",),
        change=no_layers,
    ),
    Row(
        "unknown rounding",
        ("--rounding=even",),
        (f"Invalid value for '--rounding': 'even' is not one of {ROUNDINGS}.",),
        2,
    ),
    Row(
        "rounding in capitals",
        ("--rounding=HALF_EVEN",),
        (f"Invalid value for '--rounding': 'HALF_EVEN' is not one of {ROUNDINGS}.",),
        2,
    ),
    Row(
        "no affine bits",
        ("--affine_bits=0",),
        ("Invalid value for '--affine_bits': 0 is not in the range 1<=x<=32.",),
        2,
    ),
    Row(
        "many affine bits",
        ("--affine_bits=33",),
        ("Invalid value for '--affine_bits': 33 is not in the range 1<=x<=32.",),
        2,
    ),
    Row("no vectors", ("--vectors=0",), ("Invalid value for '--vectors': 0 is not in the range x>=1.",), 2),
    Row(
        "vectors are a word",
        ("--vectors=all",),
        ("Invalid value for '--vectors': 'all' is not a valid integer range.",),
        2,
    ),
    Row("check no images", ("--check=0",), ("Invalid value for '--check': 0 is not in the range x>=1.",), 2),
    Row("check without data", ("--check=2",), (NO_DATA,)),
    Row("vectors without data", ("--vectors=2",), (NO_DATA,)),
    Row("arrays missing", ("--check=2", "--input=none.npz"), ("none.npz: this file does not exist",)),
    Row(
        "arrays of another shape",
        ("--check=2", "--input=x.npz"),
        (
            'net.prototxt: "x" of --input has the shape 4x3x6x6; expected Nx2x6x6. N is any number of images; for another '
            "size of an Input layer use test --input_shape.",
        ),
        change=arrays(x=np.zeros((4, 3, 6, 6), np.float32)),
    ),
    Row(
        "arrays of no images",
        ("--vectors=2", "--input=x.npz"),
        (
            'net.prototxt: "x" of --input has the shape 0x2x6x6; expected Nx2x6x6. N is any number of images; for another '
            "size of an Input layer use test --input_shape.",
        ),
        change=arrays(x=np.zeros((0, 2, 6, 6), np.float32)),
    ),
    Row(
        "arrays of another input",
        ("--check=2", "--input=x.npz"),
        ('net.prototxt: "y" of --input is not an input of the net. Inputs: x.', NO_DATA),
        change=arrays(y=np.zeros((4, 2, 6, 6), np.float32)),
    ),
    Row(
        "arrays of words",
        ("--check=2", "--input=x.npz"),
        ("x.npz: not an .npz file of numbers. Write it with numpy.savez.",),
        change=arrays(x=np.array(["a"])),
    ),
    Row(
        "images missing",
        ("--check=2", "--images=none"),
        ("--images none does not exist. Relative paths start at the current folder.",),
    ),
    Row(
        "no images in the folder",
        ("--check=2", "--images=empty"),
        ("empty: the folder has no images. Known: PNG, JPEG, BMP, TIFF, WebP, PNM.",),
        change=lambda job: (job.folder / "empty").mkdir(),
    ),
    Row("arrays for nothing", ("--input=x.npz",), ("--input has no effect without --vectors or --check",), 2),
    Row(
        "a mean for no images",
        ("--check=2", "--input=x.npz", "--mean=1"),
        ("--mean has no effect without --images",),
        2,
    ),
    Row(
        "parent missing",
        ("--output=none/out",),
        ("none/out: the folder none does not exist. Create it first.",),
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "parent is a file",
        ("--output=net.prototxt/out",),
        ("net.prototxt/out: the folder net.prototxt does not exist. Create it first.",),
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "parent is locked",
        ("--output=locked/out",),
        ("locked/out: cannot be written: permission denied",),
        change=a_locked_folder,
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "output is a file",
        ("--output=x.npz",),
        ("x.npz: is a file, not a folder. Choose another --output.",),
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "output is the model",
        ("--output=net.prototxt",),
        ("net.prototxt: is a file, not a folder. Choose another --output.",),
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "output is a broken link",
        ("--output=link",),
        ("link: is a file, not a folder. Choose another --output.",),
        change=lambda job: (job.folder / "link").symlink_to("nowhere"),
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "output is this folder",
        ("--output=.",),
        (".: is not the name of a new folder. Choose another --output.",),
        formats=tuple(IN_FOLDERS),
    ),
    Row("output has other files", (), (OTHER_FILES,), change=other_files, formats=tuple(IN_FOLDERS)),
    Row("an export with another file", (), (OTHER_FILES,), change=an_export_and_a_file, formats=tuple(IN_FOLDERS)),
    Row(
        "a manifest of nothing",
        (),
        ("out/manifest.json: is not a manifest of an export",),
        change=a_bad_manifest,
        formats=tuple(IN_FOLDERS),
    ),
    Row(
        "a flag of other formats",
        ("--batch=2",),
        ("--batch has no effect with --format=integers",),
        2,
        formats=("integers",),
    ),
    Row("packed integers", ("--pack",), ("--pack has no effect with --format=integers",), 2, formats=("integers",)),
    Row(
        "no weights on a line",
        ("--per_line=0",),
        ("Invalid value for '--per_line': 0 is not in the range x>=1.",),
        2,
        formats=("mem",),
    ),
    Row(
        "a line that is too long",
        ("--per_line=8193",),
        ("--per_line: words of 65544 bits are wider than Verilog's 65536. Use a smaller number.",),
        formats=("mem",),
    ),
]


@pytest.mark.parametrize("row, name", [pytest.param(row, name, id=f"{row.name}, {name}") for row in TABLE for name in row.formats])  # fmt: skip
def test_a_bad_input_is_reported_in_a_line_and_leaves_no_trace(
    row: Row, name: str, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    row.change(job)
    before = listing(job.folder)
    assert run(arguments(name, *row.flags)) == row.code
    out, err = capsys.readouterr()
    assert (messages(err), out) == (list(row.lines), "")
    assert "Traceback" not in err
    assert listing(job.folder) == before


def checked(count: int, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the check ran on that many images, or said why it did not."""
    out = capsys.readouterr().out
    return re.search(rf"^checked: {count} images, .*: 0 differ;", out, flags=re.MULTILINE) is not None or (
        re.search("^not checked: .", out, flags=re.MULTILINE) is not None
    )


@pytest.mark.parametrize("name", FORMATS)
def test_vectors_are_at_most_one_pass_over_arrays(name: str, job: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(name, "--input=x.npz", "--vectors=9", "--check=9")) == 0
    assert checked(4, capsys)


@pytest.mark.parametrize("name", FORMATS)
def test_vectors_of_a_data_layer_begin_anew_as_in_caffe(
    name: str, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = 'type: "Data" top: "x" data_param { source: "db" batch_size: 2 backend: LMDB }'
    job.net(re.sub(r'type: "Input".*?} } }', data + " }", Bad("", ()).text, count=1))
    job.database("db", np.arange(3 * 72, dtype=np.uint8).reshape(3, 2, 6, 6))
    assert run(arguments(name, "--vectors=7", "--check=7")) == 0
    assert checked(7, capsys)


ODD_NAMES = ["conv2_1/x", "3x3", "../x", "/x", "int", "begin", "Int", "INT", "x y", "été ∞", "a\\nb", "x.npy", "con", "@", "x" * 200]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_names_that_are_no_names_of_files_or_variables_are_changed_and_stay_different(
    name: str, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, bottom = [], "x"
    weights: dict[str, Any] = {}
    for i, each in enumerate(ODD_NAMES):
        lines.append(
            f'layer {{ name: "{each}" type: "ConvolutionRistretto" bottom: "{bottom}" top: "{each}" convolution_param '
            f"{{ num_output: 2 kernel_size: 1 }} quantization_param {{ {Q} }} }}"
        )
        bottom = each
        weights[each.replace("\\n", "\n")] = [np.random.default_rng(i).normal(size=(2, 2, 1, 1)), np.full(2, 0.1 * i)]
    head = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 6 dim: 6 } } }'
    job.net("\n".join([head, *lines]))
    job.weights(weights)
    before = set(listing(job.folder.parent))
    assert run(arguments(name, "--input=x.npz", "--vectors=2", "--check=2")) == 0
    assert checked(2, capsys)
    new = set(listing(job.folder.parent)) - before
    assert all(each.startswith(f"{job.folder.name}/out") for each in new)
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", each) for each in new)
