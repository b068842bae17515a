# ruff: noqa: E501 - a row's files and messages are lines as they are
"""A table of bad inputs: a job that works, broken in one way each, and what the user is reported.

A row says how the tiny job of conftest.py is broken, which command is run on it, and the fault's lines, word for
word or as a pattern. For all of them: the exit code, nothing on stdout, no traceback, one `ristretto: ` line a
fault, and the folder as it was - no output, no temporary file, nothing changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import cv2
import h5py
import numpy as np
import onnxruntime
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.caffe_io.weights import write_weights
from ristretto_cli.cli.main import run

from .conftest import EXPORT, FORWARD, NET, QUANTIZE, TEST, Job, datum

Change = Callable[[Job], object]
# ... ends the lines of a fault of which further lines may follow.
Line = str | re.Pattern[str] | EllipsisType


@dataclass(frozen=True)
class Row:
    """One bad input. lines: the faults, a line each, without the `ristretto: ` in front."""

    name: str
    args: tuple[str, ...]
    change: Change
    lines: tuple[Line, ...]
    code: int = 1


def bad(name: str, args: tuple[str, ...], change: Change, *lines: Line, code: int = 1) -> Row:
    return Row(name, args, change, lines, code)


def nothing(job: Job) -> None:
    """The files are good; the flags are not."""


def without_cuda(job: Job) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use a GPU")


def with_plyvel(job: Job) -> None:
    pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")


def with_dev_full(job: Job) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")


def edit(old: str, new: str) -> Change:
    return lambda job: job.edit(old, new)


def insert(line: str, after: int) -> Change:
    return lambda job: job.insert(line, after)


def write(name: str, content: str | bytes) -> Change:
    return lambda job: job.write(name, content)


def remove(name: str) -> Change:
    return lambda job: job.remove(name)


def folder(name: str) -> Change:
    """A folder of that name, instead of the file if there is one."""

    def change(job: Job) -> None:
        if (job.folder / name).exists():
            job.remove(name)
        (job.folder / name).mkdir()

    return change


def cut(name: str, size: int) -> Change:
    """Only the first `size` bytes of a file; the last -size are lost if it is negative."""
    return lambda job: job.write(name, (job.folder / name).read_bytes()[:size])


def both(*changes: Change) -> Change:
    def change(job: Job) -> None:
        for each in changes:
            each(job)

    return change


def data_layer(text: str) -> Change:
    """Another layer instead of the Data layer, on the same line."""
    return lambda job: job.edit(NET.split("\n")[1], text)


def lines(*numbers: int, end: str = "") -> Change:
    """Only these lines of net.prototxt, counted from 1, and one more."""
    kept = [NET.split("\n")[number - 1] for number in numbers]
    return lambda job: job.write("net.prototxt", "\n".join([*kept, end]) + "\n")


def every_layer(text: str) -> Change:
    """More in each layer of the net."""
    return lambda job: job.write("net.prototxt", NET.replace(" }\n", f" {text} }}\n"))


def weights(change: Callable[[dict[str, list[np.ndarray]]], object]) -> Change:
    return lambda job: job.weights(lambda layers: (change(layers), None)[1])


def poison(value: float) -> Change:
    """One of the ip layer's weights is that."""
    return weights(lambda layers: layers["ip"][0].__setitem__((1, 2), value))


def one_value_as(*dims: int) -> Change:
    """A caffemodel of one layer with one blob, which holds one value and says to be of that shape."""
    blob = new("BlobProto", shape={"dim": dims}, data=[1.0])
    net = new("NetParameter", layer=[new("LayerParameter", name="conv", blobs=[blob])])
    return write("net.caffemodel", net.SerializeToString())


def records(*values: bytes) -> Change:
    return lambda job: job.records(values)


def npz(**arrays: object) -> Change:
    return lambda job: np.savez(job.folder / "in.npz", **arrays)


def h5_weights(**shapes: list[tuple[int, ...]]) -> Change:
    """HDF5 weights in net.h5: zeros of these shapes."""
    return lambda job: write_weights(job.folder / "net.h5", {k: [np.zeros(n) for n in v] for k, v in shapes.items()})


def flags(args: tuple[str, ...], *more: str, without: str = "") -> tuple[str, ...]:
    """A command line with more flags, which win over those before, and without the one that is named."""
    return (*(arg for arg in args if not without or not arg.startswith(f"--{without}=")), *more)


HDF5_TEST = flags(TEST, "--weights=net.h5")

# A row: the change, and below it the expected message.
# fmt: off
WEIGHTS = [
    bad("caffemodel missing", QUANTIZE, remove("net.caffemodel"),
        "net.caffemodel: this file does not exist"),
    bad("caffemodel empty", TEST, write("net.caffemodel", b""),
        "net.caffemodel: the file is empty. Is it a complete caffemodel?"),
    bad("caffemodel a folder", TEST, folder("net.caffemodel"),
        "net.caffemodel: is a folder, not a file"),
    bad("caffemodel a prototxt", TEST, write("net.caffemodel", NET),
        "net.caffemodel: this is a text file, such as a prototxt, not weights. Use the .caffemodel or .h5 with the net's trained weights."),
    bad("caffemodel of one byte", TEST, cut("net.caffemodel", 1),
        "net.caffemodel: the file is damaged or not a caffemodel: unterminated varint at byte 1. Is it a complete caffemodel?"),
    bad("caffemodel cut off in its first layer", TEST, cut("net.caffemodel", 40),
        "net.caffemodel: the file is damaged or not a caffemodel: 107 bytes are declared at byte 3, but 37 are available. Is it a complete caffemodel?"),
    bad("caffemodel cut off in the middle", QUANTIZE, cut("net.caffemodel", 150),
        "net.caffemodel: the file is damaged or not a caffemodel: 131 bytes are declared at byte 114, but 36 are available. Is it a complete caffemodel?"),
    bad("caffemodel cut off by one byte", TEST, cut("net.caffemodel", -1),
        "net.caffemodel: the file is damaged or not a caffemodel: 131 bytes are declared at byte 114, but 130 are available. Is it a complete caffemodel?"),
    bad("caffemodel of noise", TEST, write("net.caffemodel", b"\xff" * 100),
        "net.caffemodel: the file is damaged or not a caffemodel: unterminated varint at byte 10. Is it a complete caffemodel?"),
    bad("caffemodel an HDF5 file without weights", TEST, lambda job: h5py.File(job.folder / "net.caffemodel", "w").close(),
        "net.caffemodel: the file has no group `data`, so no weights"),
    bad("caffemodel half an HDF5 file", TEST, write("net.caffemodel", b"\x89HDF\r\n\x1a\n" + bytes(20)),
        re.compile(r"net\.caffemodel: the HDF5 file is damaged: .*")),
    bad("caffemodel lacks a layer, but has one of a near name", QUANTIZE, weights(lambda w: w.update(ip1=w.pop("ip"))),
        'net.prototxt:4: layer "ip" has no weights in net.caffemodel. Did you mean ip1? Layers there: conv, ip1. --allow_missing_weights initializes it with its filler.'),
    bad("caffemodel lacks all layers", TEST, weights(lambda w: (w.clear(), w.update(other=[np.zeros(1)]))),
        'net.prototxt:3: layer "conv" has no weights in net.caffemodel',
        'net.prototxt:4: layer "ip" has no weights in net.caffemodel. Layers there: other. --allow_missing_weights initializes layers with their fillers.'),
    bad("caffemodel has one blob too few", TEST, weights(lambda w: w["conv"].pop()),
        'net.caffemodel: layer "conv" has 2 parameters, but 1 in the file'),
    bad("caffemodel has one blob too many", TEST, weights(lambda w: w["conv"].append(np.zeros(2))),
        'net.caffemodel: layer "conv" has 2 parameters, but 3 in the file'),
    bad("weights of another shape", TEST, weights(lambda w: w["ip"].__setitem__(0, np.zeros((3, 9)))),
        'net.caffemodel: parameter 0 of layer "ip" is 3x9 in the file and 3x8 in the net. Use the weights of this net, or rename the layer to train it from scratch.'),
    bad("weights of other shapes in two layers", TEST, weights(lambda w: (w["ip"].__setitem__(0, np.zeros((9, 3))), w["conv"].__setitem__(1, np.zeros(3)))),
        'net.caffemodel: parameter 1 of layer "conv" is 3 in the file and 2 in the net. Use the weights of this net, or rename the layer to train it from scratch.',
        'net.caffemodel: parameter 0 of layer "ip" is 9x3 in the file and 3x8 in the net. Use the weights of this net, or rename the layer to train it from scratch.'),
    bad("weights with NaN", QUANTIZE, poison(np.nan),
        'net.caffemodel: parameter 0 of layer "ip" contains NaN or infinite values. The training diverged or the file is damaged.'),
    bad("weights with infinity", TEST, poison(-np.inf),
        'net.caffemodel: parameter 0 of layer "ip" contains NaN or infinite values. The training diverged or the file is damaged.'),
    bad("a blob's shape and its values disagree", TEST, one_value_as(2, 3),
        'net.caffemodel: layer "conv" blob 0: the shape 2x3 has 6 values, but 1 are stored'),
    bad("a blob of an absurd shape", TEST, one_value_as(10**9, 10**9),
        'net.caffemodel: layer "conv" blob 0: the shape 1000000000x1000000000 has 1000000000000000000 values, but 1 are stored'),
    bad("unknown filler for missing weights", flags(FORWARD, without="weights"), edit("kernel_size: 3", 'kernel_size: 3 weight_filler { type: "xaver" }'),
        'net.prototxt:3: layer "conv" (Convolution): parameter 0: unknown filler "xaver". Did you mean xavier?'),
    bad("unknown filler for allowed missing weights", flags(TEST, "--allow_missing_weights"), both(edit("kernel_size: 3", 'kernel_size: 3 weight_filler { type: "xaver" }'), weights(lambda w: w.pop("conv"))),
        'net.prototxt:3: layer "conv" (Convolution): parameter 0: unknown filler "xaver". Did you mean xavier?'),
    bad("weights with NaN and a missing layer", flags(TEST, "--allow_missing_weights"), weights(lambda w: (w.pop("conv"), w["ip"][0].fill(np.nan))),
        'net.caffemodel: parameter 0 of layer "ip" contains NaN or infinite values. The training diverged or the file is damaged.'),
    bad("filler that cannot fill the shape", flags(FORWARD, without="weights"), both(edit("kernel_size: 3", 'kernel_size: 3 bias_filler { type: "bilinear" }'), edit("num_output: 3", 'num_output: 3 weight_filler { type: "gaussian" std: 0 }')),
        'net.prototxt:3: layer "conv" (Convolution): parameter 1: filler bilinear cannot fill the shape (2,). It needs (N, C, K, K).',
        'net.prototxt:4: layer "ip" (InnerProduct): parameter 0: filler gaussian has std 0. It must be positive.'),
    bad("HDF5 weights that lack a layer", HDF5_TEST, h5_weights(conv=[(2, 1, 3, 3), (2,)]),
        'net.prototxt:4: layer "ip" has no weights in net.h5. Layers there: conv. --allow_missing_weights initializes it with its filler.'),
    bad("HDF5 weights of another shape", HDF5_TEST, h5_weights(conv=[(2, 1, 3, 3), (2,)], ip=[(8, 3), (3,)]),
        'net.h5: parameter 0 of layer "ip" is 8x3 in the file and 3x8 in the net. Use the weights of this net, or rename the layer to train it from scratch.'),
    bad("HDF5 weights cut off", HDF5_TEST, both(h5_weights(conv=[(2, 1, 3, 3), (2,)], ip=[(3, 8), (3,)]), cut("net.h5", 2000)),
        re.compile(r"net\.h5: the HDF5 file is damaged: .*")),
]

TEXT = [
    bad("prototxt missing", QUANTIZE, remove("net.prototxt"),
        "net.prototxt: this file does not exist"),
    bad("prototxt empty", QUANTIZE, write("net.prototxt", ""),
        "net.prototxt: the file is empty"),
    bad("prototxt of comments", TEST, write("net.prototxt", "# nothing\n\n"),
        "net.prototxt: the file is empty"),
    bad("prototxt a folder", TEST, folder("net.prototxt"),
        "net.prototxt: is a folder, not a file"),
    bad("prototxt a caffemodel", TEST, lambda job: job.write("net.prototxt", (job.folder / "net.caffemodel").read_bytes()),
        "net.prototxt: this is not a text file. Expected a prototxt, not a binary file."),
    bad("prototxt a solver", TEST, write("net.prototxt", 'net: "net.prototxt"\nbase_lr: 0.1\n'),
        'net.prototxt:1:1: unknown field "net" in NetParameter. It is a field of SolverParameter: is this file a solver?',
        'net.prototxt:2:1: unknown field "base_lr" in NetParameter. It is a field of SolverParameter: is this file a solver?'),
    bad("prototxt without layers", TEST, write("net.prototxt", 'name: "tiny"\n'),
        "net.prototxt: the net has no layers"),
    bad("typo in a field of a layer", TEST, edit('bottom: "data"', 'bottem: "data"'),
        'net.prototxt:3:42: unknown field "bottem" in LayerParameter. Did you mean bottom?'),
    bad("typo in a field of a message inside", QUANTIZE, edit("kernel_size: 3", "kernelsize: 3"),
        'net.prototxt:3:103: unknown field "kernelsize" in ConvolutionParameter. Did you mean kernel_size?'),
    bad("typos on two lines", QUANTIZE, both(edit("kernel_size: 3", "kernelsize: 3"), edit("num_output: 3", "num_outputs: 3")),
        'net.prototxt:3:103: unknown field "kernelsize" in ConvolutionParameter. Did you mean kernel_size?',
        'net.prototxt:4:88: unknown field "num_outputs" in InnerProductParameter. Did you mean num_output?'),
    bad("typo in an enum", TEST, edit("backend: LMDB", "backend: LMBD"),
        "net.prototxt:2:109: backend: LMBD is not a value of DB. Did you mean LMDB? Known: LEVELDB, LMDB."),
    bad("enum in quotes", TEST, edit("backend: LMDB", 'backend: "LMDB"'),
        "net.prototxt:2:109: backend: expected a name of DB without quotes, found a string"),
    bad("brace not closed", TEST, edit("kernel_size: 3 } }", "kernel_size: 3 }"),
        'net.prototxt:4:1: expected "}" before this: LayerParameter of line 3 is still open. Add it.'),
    bad("brace too many", TEST, edit("kernel_size: 3 } }", "kernel_size: 3 } } }"),
        'net.prototxt:3:122: unmatched "}"'),
    bad("string instead of a number", TEST, edit("kernel_size: 3", 'kernel_size: "3"'),
        'net.prototxt:3:116: kernel_size: expected a non-negative integer, found "3"'),
    bad("fraction instead of an integer", TEST, edit("kernel_size: 3", "kernel_size: 3.0"),
        "net.prototxt:3:116: kernel_size: expected a non-negative integer, found 3.0"),
    bad("negative instead of an unsigned number", TEST, edit("batch_size: 2", "batch_size: -2"),
        re.compile(r"net\.prototxt:2:98: batch_size: expected a non-negative integer, found -.*")),
    bad("number instead of a string", TEST, edit('top: "ip"', "top: 7"),
        "net.prototxt:4:61: top: expected a string in quotes, found 7"),
    bad("number beyond its range", TEST, edit("num_output: 2", "num_output: 5000000000"),
        "net.prototxt:3:101: num_output: 5000000000 is out of range (0 to 4294967295)"),
    bad("number instead of a message", TEST, edit("convolution_param { num_output: 2 kernel_size: 3 }", "convolution_param: 3"),
        'net.prototxt:3:88: expected "{" after convolution_param, found "3"'),
    bad("string not closed", TEST, edit('name: "tiny"', 'name: "tiny'),
        'net.prototxt:1:7: this string has no closing " on its line'),
    bad("field given twice", TEST, edit("num_output: 3", "num_output: 3 num_output: 4"),
        'net.prototxt:4:102: "num_output" of InnerProductParameter is given twice, first on line 4. Remove one of them.'),
    bad("bytes that are not UTF-8", TEST, lambda job: job.write("net.prototxt", NET.replace("tiny", "tin\xff").encode("latin-1")),
        "net.prototxt:1:7: name: the string is not UTF-8"),
    bad("line break in a layer's name", TEST, both(edit('name: "ip"', r'name: "i\np"'), edit("num_output: 3", "")),
        'net.prototxt:4: layer "i p" (InnerProduct): num_output is missing. Set the number of outputs, 1 or more.'),
    bad("terminal codes in a layer's name", TEST, both(edit('name: "ip"', r'name: "i\033[2Jp"'), edit("num_output: 3", "")),
        'net.prototxt:4: layer "i\\x1b[2Jp" (InnerProduct): num_output is missing. Set the number of outputs, 1 or more.'),
    bad("layers of two formats", TEST, insert('layers { name: "x" type: TANH bottom: "ip" top: "x" }', 6),
        'net.prototxt:7: the net has both `layer` (with types as strings) and `layers` (the old format). Write all of them as layer { type: "..." }.'),
    bad("unknown type in the old format", TEST, write("net.prototxt", 'layers { name: "x" type: TANHH bottom: "ip" top: "x" }'),
        "net.prototxt:1:26: type: TANHH is not a value of LayerType. Did you mean TANH?"),
    bad("input without its shape", FORWARD, write("net.prototxt", 'input: "data"\n' + "\n".join(NET.split("\n")[2:4])),
        'net.prototxt:2: layer "conv" (Convolution): no layer produces its bottom "data". Blobs so far: none.'),
    bad("byte order mark", TEST, lambda job: job.write("net.prototxt", NET.encode("utf-8-sig")),
        "net.prototxt:1:1: '\\ufeff' is only allowed in strings and comments (a byte order mark: save the file without it)",
        ...),
    bad("colon missing", TEST, edit("kernel_size: 3", "kernel_size 3"),
        'net.prototxt:3:115: expected ":" after kernel_size, found "3"'),
    bad("brackets of a list not closed", TEST, edit("kernel_size: 3", "kernel_size: [3, 3"),
        'net.prototxt:3:122: expected "," or "]" in the list, found "}"'),
    bad("equals sign instead of a colon", TEST, edit("kernel_size: 3", "kernel_size = 3"),
        'net.prototxt:3:115: expected ":" after kernel_size, found "="'),
]

CONNECTIONS = [
    bad("unknown layer type with a near name", QUANTIZE, edit('"InnerProduct"', '"InerProduct"'),
        'net.prototxt:4: layer "ip" (InerProduct): unknown layer type "InerProduct". Did you mean InnerProduct?'),
    bad("unknown layer type", TEST, edit('"InnerProduct"', '"Quux"'),
        re.compile(r'net\.prototxt:4: layer "ip" \(Quux\): unknown layer type "Quux"\. Known: .*, ReLU, .*, Data, .*')),
    bad("layer without a type", TEST, edit('type: "InnerProduct"', ""),
        'net.prototxt:4: layer "ip": it has no type. Add type: "...".'),
    bad("two faulty layers", TEST, both(edit('type: "Convolution"', 'type: "Convolutin"'), insert('layer { name: "x" type: "ReLu" bottom: "label" top: "x" }', 6)),
        'net.prototxt:3: layer "conv" (Convolutin): unknown layer type "Convolutin". Did you mean Convolution?',
        'net.prototxt:7: layer "x" (ReLu): unknown layer type "ReLu". Did you mean ReLU?'),
    bad("unknown bottom with a near name", TEST, edit('"InnerProduct" bottom: "conv"', '"InnerProduct" bottom: "convv"'),
        'net.prototxt:4: layer "ip" (InnerProduct): no layer produces its bottom "convv". Did you mean conv?'),
    bad("unknown bottom", TEST, edit('"InnerProduct" bottom: "conv"', '"InnerProduct" bottom: "x"'),
        'net.prototxt:4: layer "ip" (InnerProduct): no layer produces its bottom "x". Blobs so far: data, label, conv.'),
    bad("cyclic bottoms", TEST, edit('bottom: "data" top: "conv"', 'bottom: "ip" top: "conv"'),
        'net.prototxt:3: layer "conv" (Convolution): its bottom "ip" is produced only later, by layer "ip" (net.prototxt:4). Move that layer up; a net has no cycles.'),
    bad("bottom of itself", TEST, edit('bottom: "data" top: "conv"', 'bottom: "conv" top: "conv"'),
        'net.prototxt:3: layer "conv" (Convolution): no layer produces its bottom "conv". Blobs so far: data, label.'),
    bad("top of two layers", TEST, insert('layer { name: "x" type: "Split" bottom: "ip" top: "x" top: "x" }', 4),
        'net.prototxt:5: layer "x" (Split): its top "x" is also produced by another layer. Rename one of them.'),
    bad("top made before", TEST, insert('layer { name: "again" type: "TanH" bottom: "data" top: "ip" }', 4),
        'net.prototxt:5: layer "again" (TanH): its top "ip" is also produced by another layer. Rename one of them.'),
    bad("in place where another layer reads", TEST, insert('layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }', 4),
        'net.prototxt:5: layer "relu" works in place on "conv", which layer "ip" also reads. Rename the top of the in-place layer.'),
    bad("in place where the type cannot", TEST, insert('layer { name: "x" type: "InnerProduct" bottom: "conv" top: "conv" inner_product_param { num_output: 3 } }', 3),
        'net.prototxt:4: layer "x" (InnerProduct): in-place computation is not supported. Use different names for top and bottom.'),
    bad("two layers of one name", TEST, edit('name: "ip"', 'name: "conv"'),
        'net.prototxt:4: layer "conv" (InnerProduct): net.prototxt:3 has a layer of the same name. Weights are matched by name: use unique names.'),
    bad("no bottom", TEST, edit('"InnerProduct" bottom: "conv"', '"InnerProduct"'),
        'net.prototxt:4: layer "ip" (InnerProduct): expected 1 bottom, got 0'),
    bad("a bottom too many", TEST, edit('"InnerProduct" bottom: "conv"', '"InnerProduct" bottom: "conv" bottom: "data"'),
        'net.prototxt:4: layer "ip" (InnerProduct): expected 1 bottom, got 2'),
    bad("no top", TEST, insert('layer { name: "x" type: "TanH" bottom: "conv" }', 3),
        'net.prototxt:4: layer "x" (TanH): expected 1 top, got 0'),
    bad("top without a name", TEST, insert('layer { name: "x" type: "TanH" bottom: "conv" top: "" }', 3),
        'net.prototxt:4: layer "x" (TanH): one of its tops has no name. Add a name: top: "...".'),
    bad("a top too many", TEST, edit('top: "loss"', 'top: "loss" top: "p" top: "q"'),
        'net.prototxt:6: layer "loss" (SoftmaxWithLoss): expected 1 top, got 3'),
    bad("data layer with a bottom", TEST, insert('layer { name: "d" type: "DummyData" bottom: "data" top: "d" dummy_data_param { shape { dim: 1 } } }', 2),
        'net.prototxt:3: layer "d" (DummyData): a data layer has no bottoms'),
    bad("data layer with a top too many", TEST, edit('top: "label"', 'top: "label" top: "more"'),
        'net.prototxt:2: layer "data" (Data): expected 1 or 2 tops, got 3'),
    bad("more param blocks than parameters", TEST, edit('top: "ip"', 'top: "ip" param {} param {} param {}'),
        'net.prototxt:4: layer "ip" (InnerProduct): it has 3 param blocks but 2 parameters'),
    bad("shared parameters of two shapes", TEST, both(edit('top: "conv"', 'top: "conv" param { name: "w" }'), edit('top: "ip"', 'top: "ip" param { name: "w" }')),
        'net.prototxt:4: layer "ip" (InnerProduct): parameter "w" has shape 2x1x3x3 in layer "conv" and 3x8 here'),
    bad("loss weights of another number", TEST, edit('top: "loss"', 'top: "loss" loss_weight: 1 loss_weight: 1'),
        'net.prototxt:6: layer "loss" (SoftmaxWithLoss): it has 2 loss_weights but 1 tops'),
    bad("include and exclude", TEST, edit('top: "loss"', 'top: "loss" include { phase: TEST } exclude { stage: "x" }'),
        'net.prototxt:6: layer "loss" has both include and exclude rules. Use only one of them.'),
]

SHAPES = [
    bad("kernel larger than the image", QUANTIZE, edit("kernel_size: 3", "kernel_size: 5"),
        'net.prototxt:3: layer "conv" (Convolution): kernel 5x5 with dilation 1x1 is larger than the input 4x4 with padding 0x0'),
    bad("kernel missing", TEST, edit("kernel_size: 3", ""),
        'net.prototxt:3: layer "conv" (Convolution): kernel_size is missing'),
    bad("kernel of 0", TEST, edit("kernel_size: 3", "kernel_size: 0"),
        'net.prototxt:3: layer "conv" (Convolution): kernel_size must be at least 1, not 0, 0'),
    bad("stride of 0", TEST, edit("kernel_size: 3", "kernel_size: 3 stride: 0"),
        'net.prototxt:3: layer "conv" (Convolution): stride must be at least 1, not 0, 0'),
    bad("num_output missing", TEST, edit("num_output: 3", ""),
        'net.prototxt:4: layer "ip" (InnerProduct): num_output is missing. Set the number of outputs, 1 or more.'),
    bad("group that divides unevenly", TEST, edit("kernel_size: 3", "kernel_size: 3 group: 2"),
        'net.prototxt:3: layer "conv" (Convolution): group 2 does not divide both 1 channels and num_output 2'),
    bad("pooling window larger than the image", TEST, insert('layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 5 } }', 3),
        'net.prototxt:4: layer "pool" (Pooling): kernel 5x5 is larger than the input 2x2 with padding 0x0'),
    bad("pooling pad as large as the kernel", TEST, insert('layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 pad: 2 } }', 3),
        'net.prototxt:4: layer "pool" (Pooling): padding 2x2 must be smaller than the kernel 2x2'),
    bad("concat of shapes that differ elsewhere", TEST, insert('layer { name: "cat" type: "Concat" bottom: "data" bottom: "conv" top: "cat" }', 3),
        'net.prototxt:4: layer "cat" (Concat): bottom 1 has shape 2x2x2x2, which differs from bottom 0\'s 2x1x4x4 on an axis other than 1. Concatenate bottoms that differ only on that axis, or set axis.'),
    bad("eltwise of two shapes", TEST, insert('layer { name: "sum" type: "Eltwise" bottom: "data" bottom: "conv" top: "sum" }', 3),
        'net.prototxt:4: layer "sum" (Eltwise): bottom 1 has shape 2x2x2x2, bottom 0 has 2x1x4x4. Use bottoms of equal shapes.'),
    bad("eltwise with a coefficient too few", TEST, insert('layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "conv" top: "sum" eltwise_param { coeff: 1 } }', 3),
        'net.prototxt:4: layer "sum" (Eltwise): 1 coeff settings for 2 bottoms. Set one for each bottom, or none.'),
    bad("labels of another number", TEST, edit('bottom: "ip" bottom: "label" top: "accuracy"', 'bottom: "conv" bottom: "label" top: "accuracy"'),
        'net.prototxt:5: layer "accuracy" (Accuracy): 2 labels (shape 2) for 8 predictions (scores of shape 2x2x2x2, classes on axis 1). Use one label per prediction, or set axis to that of the classes.'),
    bad("crop after the end", TEST, insert('layer { name: "crop" type: "Crop" bottom: "data" bottom: "conv" top: "crop" crop_param { offset: 3 } }', 3),
        'net.prototxt:4: layer "crop" (Crop): on axis 2, an extent of 2 at offset 3 is out of bounds: bottom 0 has 4. Reduce the offset, or swap the bottoms: the first one is cropped.'),
    bad("axis out of range", TEST, edit("num_output: 3", "num_output: 3 axis: 4"),
        'net.prototxt:4: layer "ip" (InnerProduct): axis 4 is out of range for a bottom of shape 2x2x2x2. Use a number from -4 to 3.'),
    bad("softmax axis out of range", TEST, insert('layer { name: "s" type: "Softmax" bottom: "ip" top: "s" softmax_param { axis: -3 } }', 4),
        'net.prototxt:5: layer "s" (Softmax): axis -3 is out of range for a bottom of shape 2x3. Use a number from -2 to 1.'),
    bad("slice points that do not rise", TEST, insert('layer { name: "s" type: "Slice" bottom: "ip" top: "a" top: "b" top: "c" slice_param { slice_point: 2 slice_point: 1 } }', 4),
        'net.prototxt:5: layer "s" (Slice): the slice points 2, 1 do not split an extent of 3. Use increasing numbers from 1 to 2.'),
    bad("slice that does not divide", TEST, insert('layer { name: "s" type: "Slice" bottom: "ip" top: "a" top: "b" }', 4),
        'net.prototxt:5: layer "s" (Slice): an extent of 3 cannot be split into 2 equal parts, one per top. Set slice_point, or change the number of tops.'),
    bad("reshape to another number of values", TEST, insert('layer { name: "r" type: "Reshape" bottom: "ip" top: "r" reshape_param { shape { dim: 0 dim: 4 } } }', 4),
        'net.prototxt:5: layer "r" (Reshape): 6 values (shape 2x3) do not fill the shape 2x4. Use dims with the same product, or -1 for one of them.'),
    bad("even neighbourhood of LRN", TEST, insert('layer { name: "n" type: "LRN" bottom: "conv" top: "n" lrn_param { local_size: 4 } }', 3),
        'net.prototxt:4: layer "n" (LRN): local_size must be odd, not 4'),
    bad("top_k beyond the classes", TEST, edit('top: "accuracy"', 'top: "accuracy" accuracy_param { top_k: 4 }'),
        'net.prototxt:5: layer "accuracy" (Accuracy): top_k is 4, but there are 3 classes. Set top_k to at most 3, or axis to that of the classes.'),
    bad("arg_max beyond the classes", TEST, insert('layer { name: "a" type: "ArgMax" bottom: "ip" top: "a" argmax_param { top_k: 4 } }', 4),
        'net.prototxt:5: layer "a" (ArgMax): top_k is 4, but there are 3 values. Set it to a number from 1 to 3.'),
]

ABSURD = [
    bad("num_output of 4000000000", TEST, edit("num_output: 3", "num_output: 4000000000"),
        'net.prototxt:4: layer "ip" (InnerProduct): a blob of shape 4000000000x8 has too many elements'),
    bad("num_output of 2000000000 without weights", flags(FORWARD, without="weights"), both(edit("batch_size: 2", "batch_size: 1"), edit("num_output: 3", "num_output: 2000000000")),
        'net.prototxt:4: layer "ip" (InnerProduct): a blob of shape 2000000000x8 has too many elements'),
    bad("num_output of 2000000000 in a convolution of points", flags(FORWARD, without="weights"), both(data_layer('layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 1 dim: 2000000000 dim: 1 dim: 1 } shape { dim: 1 } } }'), edit("num_output: 2 kernel_size: 3", "num_output: 2000000000 kernel_size: 1")),
        'net.prototxt:3: layer "conv" (Convolution): a blob of shape 2000000000x2000000000x1x1 has too many elements'),
    bad("kernel of 1000000000", TEST, edit("kernel_size: 3", "kernel_size: 1000000000"),
        'net.prototxt:3: layer "conv" (Convolution): a blob of shape 2x1x1000000000x1000000000 has too many elements'),
    bad("kernel of 1000000000 with as much padding", flags(FORWARD, without="weights"), edit("kernel_size: 3", "kernel_size: 1000000000 pad: 1000000000"),
        'net.prototxt:3: layer "conv" (Convolution): a blob of shape 2x1x1000000000x1000000000 has too many elements'),
    bad("padding of 4000000000", TEST, edit("kernel_size: 3", "kernel_size: 3 pad: 4000000000"),
        'net.prototxt:3: layer "conv" (Convolution): a blob of shape 2x2x8000000002x8000000002 has too many elements'),
    bad("dilation of 4000000000", TEST, edit("kernel_size: 3", "kernel_size: 3 dilation: 4000000000"),
        'net.prototxt:3: layer "conv" (Convolution): kernel 3x3 with dilation 4000000000x4000000000 is larger than the input 4x4 with padding 0x0'),
    bad("pooling window of 4000000000", TEST, insert('layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 4000000000 pad: 3999999999 } }', 3),
        'net.prototxt:4: layer "pool" (Pooling): a blob of shape 2x2x4000000001x4000000001 has too many elements'),
    bad("batch_size of 1000000000", TEST, edit("batch_size: 2", "batch_size: 1000000000"),
        'net.prototxt:2: layer "data" (Data): the batch has the shape 1000000000x1x4x4, which is too large for a blob'),
    bad("batch_size of 0", TEST, edit("batch_size: 2", "batch_size: 0"),
        'net.prototxt:2: layer "data" (Data): data_param.batch_size is 0. Set it to 1 or more.'),
    bad("input of 10^9x10^9", FORWARD, data_layer('layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 1000000000 dim: 1000000000 } } }'),
        'net.prototxt:2: layer "data" (Input): input_param.shape 0 has the shape 1000000000x1000000000, which is too large for a blob'),
    bad("dummy data of 10^9x10^9", TEST, data_layer('layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 1000000000 dim: 1000000000 } } }'),
        'net.prototxt:2: layer "data" (DummyData): top 0 has the shape 1000000000x1000000000, which is too large for a blob'),
    bad("input with a dim of 0", FORWARD, data_layer('layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 0 } } }'),
        'net.prototxt:2: layer "data" (Input): input_param.shape 0 has the shape 0. Every extent must be 1 or more.'),
    bad("input with a negative dim", FORWARD, data_layer('layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: -1 } } }'),
        'net.prototxt:2: layer "data" (Input): input_param.shape 0 has the shape -1. Every extent must be 1 or more.'),
    bad("tile by reshape to 10^18", TEST, insert('layer { name: "r" type: "Reshape" bottom: "ip" top: "r" reshape_param { shape { dim: 1000000000 dim: 1000000000 } } }', 4),
        'net.prototxt:5: layer "r" (Reshape): 6 values (shape 2x3) do not fill the shape 1000000000x1000000000. Use dims with the same product, or -1 for one of them.'),
    bad("a datum of 10^9x10^9", TEST, records(new("Datum", channels=1, height=10**9, width=10**9, data=b"x").SerializeToString()),
        'net.prototxt:2: layer "data" (Data): db: key "00000000": the record has 1 values for an image of 1x1000000000x1000000000'),
    bad("top_k of 4000000000", TEST, edit('top: "accuracy"', 'top: "accuracy" accuracy_param { top_k: 4000000000 }'),
        'net.prototxt:5: layer "accuracy" (Accuracy): top_k is 4000000000, but there are 3 classes. Set top_k to at most 3, or axis to that of the classes.'),
    bad("local_size of 4000000001", flags(TEST), insert('layer { name: "n" type: "LRN" bottom: "conv" top: "n" lrn_param { local_size: 4000000001 } }', 3),
        'net.prototxt:4: layer "n" (LRN): a blob of shape 1x4000000002x2x2 has too many elements'),
    bad("scale axis out of range", TEST, insert('layer { name: "s" type: "Scale" bottom: "ip" top: "s" scale_param { num_axes: 1000000000 } }', 4),
        'net.prototxt:5: layer "s" (Scale): 1000000000 axes from axis 1 on extend past the end of the bottom\'s shape 2x3. Set num_axes to at most 1, or to -1 for all axes to the end.'),
    bad("crop to 10^9", TEST, edit("data_param {", "transform_param { crop_size: 1000000000 } data_param {"),
        'net.prototxt:2: layer "data" (Data): crop_size 1000000000 is larger than the image, 4x4'),
]

SILENT = lines(1, 2, 3, 4, end='layer { name: "s" type: "Silence" bottom: "ip" bottom: "label" }')

NETS = [
    bad("neither an Accuracy layer nor a loss", QUANTIZE, lines(1, 2, 3, 4),
        "net.prototxt: the net has no Accuracy layer and no loss to score by. Compare it with its float net by --score agreement (classes) or --score sqnr (any output), or name one of its outputs: ip, label."),
    bad("score of an unknown output", flags(QUANTIZE, "--score=acuracy"), nothing,
        'net.prototxt: "acuracy" is not an output of the net. Did you mean accuracy? Outputs: accuracy, loss.'),
    bad("score of a blob that is not an output", flags(QUANTIZE, "--score=ip"), nothing,
        'net.prototxt: "ip" is not an output of the net. Outputs: accuracy, loss.'),
    bad("no outputs at all", TEST, SILENT,
        "net.prototxt: the net has no outputs to score"),
    bad("no outputs to quantize by", QUANTIZE, SILENT,
        "net.prototxt: the net has no Accuracy layer and no loss to score by. Compare it with its float net by --score agreement (classes) or --score sqnr (any output)."),
    bad("no layers in TEST", TEST, every_layer("include { phase: TRAIN }"),
        "net.prototxt: the net has no layers for phase TEST, level 0. Check the include and exclude rules of its layers."),
    bad("no layers at that level", flags(TEST, "--level=3"), every_layer("include { max_level: 2 }"),
        "net.prototxt: the net has no layers for phase TEST, level 3. Check the include and exclude rules of its layers."),
    bad("no layers in that stage", flags(TEST, "--stage=deploy"), every_layer('include { not_stage: "deploy" }'),
        'net.prototxt: the net has no layers for phase TEST, level 0, stage "deploy". Check the include and exclude rules of its layers.'),
    bad("no data layer in that stage", flags(TEST, "--stage=deploy"), edit("backend: LMDB }", 'backend: LMDB } include { not_stage: "deploy" }'),
        'net.prototxt:3: layer "conv" (Convolution): its bottom "data" is produced by layer "data" (net.prototxt:2), which is only in nets without stage "deploy"; this net is for phase TEST, level 0, stage "deploy"'),
    bad("nothing to trim", QUANTIZE, lines(1, 2, end='layer { name: "f" type: "Flatten" bottom: "data" top: "f" }\nlayer { name: "a" type: "Accuracy" bottom: "f" bottom: "label" top: "a" }'),
        "net.prototxt: the net has no layers to quantize. Only Convolution and InnerProduct layers can be quantized."),
    bad("legacy on a net without data to train on", flags(QUANTIZE, "--legacy"), edit("backend: LMDB }", "backend: LMDB } include { phase: TEST }"),
        'net.prototxt:3: layer "conv" (Convolution): its bottom "data" is produced by layer "data" (net.prototxt:2), which is only in phase TEST; this net is for phase TRAIN, level 0'),
    bad("legacy on a net without outputs", flags(QUANTIZE, "--legacy"), SILENT,
        "net.prototxt: the net has no outputs to score"),
    bad("trimmed already", QUANTIZE, both(edit('"Convolution"', '"ConvolutionRistretto"'), edit('"InnerProduct"', '"FcRistretto"')),
        'net.prototxt:3: layer "conv" is already quantized (ConvolutionRistretto). Use the float net as --model.',
        'net.prototxt:4: layer "ip" is already quantized (FcRistretto). Use the float net as --model.'),
    bad("bw_params of 0", TEST, both(edit('"InnerProduct"', '"FcRistretto"'), edit("num_output: 3 }", "num_output: 3 } quantization_param { bw_params: 0 }")),
        'net.prototxt:4: layer "ip" (FcRistretto): a width of 0 bits is out of range. Use 1 to 128.'),
    bad("bw_layer_in negative", TEST, both(edit('"InnerProduct"', '"FcRistretto"'), edit("num_output: 3 }", "num_output: 3 } quantization_param { bw_layer_in: -1 }")),
        re.compile(r"net\.prototxt:4:137: bw_layer_in: expected a non-negative integer, found -.*")),
    bad("mant_bits negative", TEST, both(edit('"Convolution"', '"ConvolutionRistretto"'), edit("kernel_size: 3 }", "kernel_size: 3 } quantization_param { precision: MINIFLOAT mant_bits: -1 exp_bits: 5 }")),
        re.compile(r"net\.prototxt:3:182: mant_bits: expected a non-negative integer, found -.*")),
    bad("exp_bits of 40", EXPORT, both(edit('"Convolution"', '"ConvolutionRistretto"'), edit("kernel_size: 3 }", "kernel_size: 3 } quantization_param { precision: MINIFLOAT mant_bits: 3 exp_bits: 40 }")),
        'net.prototxt:3: layer "conv" (ConvolutionRistretto): exp_bits 40 is out of range. Use 0 to 30.'),
    bad("exp_min of -5000", TEST, both(edit('"Convolution"', '"ConvolutionRistretto"'), edit("kernel_size: 3 }", "kernel_size: 3 } quantization_param { precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -5000 }")),
        'net.prototxt:3: layer "conv" (ConvolutionRistretto): exp_min -5000 is out of range. Use -1000 to 1000.'),
    bad("two layers with impossible widths", TEST, both(edit('"Convolution"', '"ConvolutionRistretto"'), edit("kernel_size: 3 }", "kernel_size: 3 } quantization_param { bw_layer_out: 500 }"), insert('layer { name: "fc" type: "FcRistretto" bottom: "data" top: "fc" inner_product_param { num_output: 3 } quantization_param { bw_params: 0 } }', 4)),
        'net.prototxt:3: layer "conv" (ConvolutionRistretto): a width of 500 bits is out of range. Use 1 to 128.',
        'net.prototxt:5: layer "fc" (FcRistretto): a width of 0 bits is out of range. Use 1 to 128.'),
    bad("values that overflow during calibration", QUANTIZE, weights(lambda w: (w["conv"].__setitem__(0, np.full((2, 1, 3, 3), 1e38)),)),
        'net.prototxt:3: the output of layer "conv" has NaN or infinite values during calibration. Check the data, its scale and the weights.'),
]

HDF5_LAYER = 'layer { name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 2 } }'
IMAGE_LAYER = 'layer { name: "data" type: "ImageData" top: "data" top: "label" image_data_param { source: "list.txt" batch_size: 2 is_color: false } }'
INPUT_LAYER = 'layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } shape { dim: 2 } } }'


def hdf5(**datasets: object) -> Change:
    """HDF5 data instead of the LMDB."""

    def change(job: Job) -> None:
        data_layer(HDF5_LAYER)(job)
        job.write("list.txt", "data.h5\n")
        with h5py.File(job.folder / "data.h5", "w") as file:
            for name, values in datasets.items():
                file[name] = values

    return change


def png(side: int) -> bytes:
    return bytes(cv2.imencode(".png", np.zeros((side, side), np.uint8))[1])


def mean_file(*dims: int, values: int) -> Change:
    blob = new("BlobProto", shape={"dim": dims}, data=[0.0] * values).SerializeToString()
    return both(
        edit("data_param {", 'transform_param { mean_file: "mean.binaryproto" } data_param {'),
        write("mean.binaryproto", blob),
    )


NO_DATA = (
    'net.prototxt:2: layer "data" (Input): there is no data for data, label. Give images with --images LIST_OR_FOLDER, or '
    "arrays with --input x.npz: data (Nx1x4x4), label (N); or replace it with a data layer such as Data."
)

DATA = [
    bad("LMDB missing", QUANTIZE, remove("db"),
        'net.prototxt:2: layer "data" (Data): data_param.source db does not exist. Relative paths start at the current folder.'),
    bad("LMDB not named", TEST, edit('source: "db" ', ""),
        'net.prototxt:2: layer "data" (Data): data_param.source is not set'),
    bad("LMDB a file", TEST, both(remove("db"), write("db", b"x")),
        'net.prototxt:2: layer "data" (Data): data_param.source db is not a folder. Use the folder of the database.'),
    bad("LMDB folder without data.mdb", TEST, folder("db"),
        'net.prototxt:2: layer "data" (Data): db is not an LMDB database: no data.mdb in it'),
    bad("LMDB without records", TEST, records(),
        'net.prototxt:2: layer "data" (Data): the database db is empty'),
    bad("LMDB of noise", TEST, write("db/data.mdb", b"noise" * 1000),
        re.compile(r'net\.prototxt:2: layer "data" \(Data\): db cannot be read as LMDB: \w.*')),
    bad("LMDB cut off", TEST, cut("db/data.mdb", 8192),
        re.compile(r'net\.prototxt:2: layer "data" \(Data\): db is truncated: data\.mdb has 8192 of \d+ bytes')),
    bad("LMDB empty file", TEST, write("db/data.mdb", b""),
        'net.prototxt:2: layer "data" (Data): db cannot be read as LMDB: data.mdb is empty'),
    bad("LevelDB said, LMDB found", TEST, edit("backend: LMDB", "backend: LEVELDB"),
        'net.prototxt:2: layer "data" (Data): db is an LMDB database, not LevelDB. Set backend: LMDB.'),
    bad("LMDB said, LevelDB found", TEST, both(remove("db/data.mdb"), write("db/CURRENT", "MANIFEST-000001\n")),
        'net.prototxt:2: layer "data" (Data): db is a LevelDB database, not LMDB. Set backend: LEVELDB.'),
    bad("LevelDB of noise", TEST, both(with_plyvel, edit("backend: LMDB", "backend: LEVELDB"), remove("db/data.mdb"), write("db/CURRENT", "noise")),
        re.compile(r"""net\.prototxt:2: layer "data" \(Data\): db cannot be read as LevelDB: \w[^\']*""")),
    bad("record no datum", TEST, records(b"\xff\xff\xff"),
        'net.prototxt:2: layer "data" (Data): db: key "00000000": the record is not a valid Datum message'),
    bad("record cut off", TEST, records(datum()[:-8]),
        'net.prototxt:2: layer "data" (Data): db: key "00000000": the record is not a valid Datum message'),
    bad("record with fewer pixels than its size says", TEST, records(datum(bytes(15))),
        'net.prototxt:2: layer "data" (Data): db: key "00000000": the record has 15 values for an image of 1x4x4'),
    bad("second record no datum", QUANTIZE, records(datum(), b"\xff\xff\xff"),
        'net.prototxt:2: layer "data" (Data): db: key "00000001": the record is not a valid Datum message'),
    bad("second record of another size", QUANTIZE, records(datum(), datum(bytes(25), side=5)),
        'net.prototxt:2: layer "data" (Data): db: key "00000001": the image is 1x5x5, but the first one is 1x4x4. Resize all images to the same size, or set crop_size.'),
    bad("second record of another size with batch_size 1", flags(TEST, "--iterations=2"), both(records(datum(), datum(bytes(25), side=5)), edit("batch_size: 2", "batch_size: 1")),
        'net.prototxt:4: layer "ip" (InnerProduct), for data 1x1x5x5, label 1: its parameter 0 is 3x8, but would be 3x18. Use images of one size (crop_size), or a fully convolutional net.'),
    bad("encoded record no image", TEST, records(new("Datum", encoded=True, data=b"no image").SerializeToString()),
        'net.prototxt:2: layer "data" (Data): db: key "00000000": the image cannot be decoded'),
    bad("mean file missing", TEST, edit("data_param {", 'transform_param { mean_file: "mean.binaryproto" } data_param {'),
        'net.prototxt:2: layer "data" (Data): mean_file mean.binaryproto does not exist. Relative paths start at the current folder.'),
    bad("mean file of another shape", TEST, mean_file(1, 1, 5, 5, values=25),
        'net.prototxt:2: layer "data" (Data): mean_file mean.binaryproto is 1x5x5, but the image is 1x4x4'),
    bad("mean file of too few values", TEST, mean_file(1, 1, 4, 4, values=15),
        'net.prototxt:2: layer "data" (Data): mean.binaryproto: the shape 1x1x4x4 has 16 values, but 15 are stored'),
    bad("mean file a prototxt", TEST, both(mean_file(1, 1, 4, 4, values=16), write("mean.binaryproto", NET)),
        'net.prototxt:2: layer "data" (Data): mean.binaryproto: this is a text file, not an array. Use a .binaryproto, such as compute_image_mean writes.'),
    bad("mean values of another number", TEST, edit("data_param {", "transform_param { mean_value: 1 mean_value: 2 } data_param {"),
        'net.prototxt:2: layer "data" (Data): transform_param has 2 mean_values for 1 channels. Set one, or one per channel.'),
    bad("crop larger than the image", TEST, edit("data_param {", "transform_param { crop_size: 5 } data_param {"),
        'net.prototxt:2: layer "data" (Data): crop_size 5 is larger than the image, 4x4'),
    bad("mean file and mean values", TEST, edit("data_param {", 'transform_param { mean_file: "x" mean_value: 1 } data_param {'),
        'net.prototxt:2: layer "data" (Data): transform_param has both mean_file and mean_value. Use only one of them.'),
    bad("HDF5 list missing", TEST, data_layer(HDF5_LAYER),
        'net.prototxt:2: layer "data" (HDF5Data): hdf5_data_param.source list.txt does not exist. Relative paths start at the current folder.'),
    bad("HDF5 list empty", TEST, both(data_layer(HDF5_LAYER), write("list.txt", "\n")),
        'net.prototxt:2: layer "data" (HDF5Data): hdf5_data_param.source list.txt lists no files'),
    bad("HDF5 file missing", TEST, both(data_layer(HDF5_LAYER), write("list.txt", "data.h5\n")),
        'net.prototxt:2: layer "data" (HDF5Data): list.txt: the file data.h5 does not exist. Relative paths start at the current folder.'),
    bad("HDF5 file no HDF5", TEST, both(data_layer(HDF5_LAYER), write("list.txt", "data.h5\n"), write("data.h5", "text")),
        re.compile(r'net\.prototxt:2: layer "data" \(HDF5Data\): data\.h5 is not an HDF5 file: .*')),
    bad("HDF5 file without the dataset", TEST, hdf5(data=np.zeros((2, 1, 4, 4)), labels=np.zeros(2)),
        'net.prototxt:2: layer "data" (HDF5Data): data.h5 has no dataset "label". Its datasets: data, labels.'),
    bad("HDF5 datasets of two lengths", TEST, hdf5(data=np.zeros((2, 1, 4, 4)), label=np.zeros(3)),
        'net.prototxt:2: layer "data" (HDF5Data): data.h5: label has 3 rows, but data has 2'),
    bad("HDF5 dataset of text", TEST, hdf5(data=np.zeros((2, 1, 4, 4)), label=["a", "b"]),
        'net.prototxt:2: layer "data" (HDF5Data): data.h5: dataset label contains object, not numbers'),
    bad("image list missing", TEST, data_layer(IMAGE_LAYER),
        'net.prototxt:2: layer "data" (ImageData): image_data_param.source list.txt does not exist. Relative paths start at the current folder.'),
    bad("image list with a line without a label", TEST, both(data_layer(IMAGE_LAYER), write("list.txt", "a.png\nb.png 1\n")),
        'net.prototxt:2: layer "data" (ImageData): list.txt:1: no label after the last space. Expected: file label.'),
    bad("image missing", TEST, both(data_layer(IMAGE_LAYER), write("list.txt", "a.png 0\n")),
        'net.prototxt:2: layer "data" (ImageData): a.png: the image cannot be read: No such file or directory'),
    bad("image no image", TEST, both(data_layer(IMAGE_LAYER), write("list.txt", "a.png 0\n"), write("a.png", "text")),
        'net.prototxt:2: layer "data" (ImageData): a.png: the image cannot be decoded'),
    bad("image of another size", TEST, both(data_layer(IMAGE_LAYER), write("list.txt", "a.png 0\nb.png 1\n"), write("a.png", png(4)), write("b.png", png(5))),
        'net.prototxt:2: layer "data" (ImageData): b.png: the image is 1x5x5, but the first one is 1x4x4. Set new_height and new_width, or set crop_size.'),
    bad("Input net to test", TEST, data_layer(INPUT_LAYER), NO_DATA),
    bad("Input net to quantize", QUANTIZE, data_layer(INPUT_LAYER),
        NO_DATA),
    bad("Input net without its blobs", FORWARD, data_layer(INPUT_LAYER),
        'net.prototxt:2: layer "data" (Input): there is no data for data, label. Use `ristretto forward --input=x.npz`, or replace it with a data layer such as Data or ImageData.'),
    bad("npz missing", flags(FORWARD, "--input=in.npz"), data_layer(INPUT_LAYER),
        "in.npz: this file does not exist"),
    bad("npz no npz", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), write("in.npz", "text")),
        "in.npz: not an .npz file of numbers. Write it with numpy.savez."),
    bad("npz a single array", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), lambda job: job.write("in.npz", npy())),
        "in.npz: not an .npz file"),
    bad("npz cut off", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.zeros((2, 1, 4, 4))), cut("in.npz", 60)),
        "in.npz: not an .npz file of numbers. Write it with numpy.savez."),
    bad("npz lacks a blob", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.zeros((2, 1, 4, 4)))),
        'net.prototxt:2: layer "data" (Input): there is no data for label. Use `ristretto forward --input=x.npz`, or replace it with a data layer such as Data or ImageData.'),
    bad("npz with a wrong shape", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.zeros((2, 1, 4, 5)), label=np.zeros(2))),
        'input "data" has shape 2x1x4x5; expected 2x1x4x4. For another size use --input_shape data=2,1,4,5.'),
    bad("npz of text", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.array(["a"]), label=np.zeros(2))),
        "in.npz: not an .npz file of numbers. Write it with numpy.savez."),
    bad("npz of objects", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.array([{}], dtype=object), label=np.zeros(2))),
        "in.npz: not an .npz file of numbers. Write it with numpy.savez."),
    bad("npz names a blob that the net does not take", flags(FORWARD, "--input=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.zeros((2, 1, 4, 4)), lable=np.zeros(2))),
        '"lable" is not an input of the net. Did you mean label?',
        'net.prototxt:2: layer "data" (Input): there is no data for label. Use `ristretto forward --input=x.npz`, or replace it with a data layer such as Data or ImageData.'),
]


def npy() -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


OUTPUTS = [
    bad("quantize into a folder that is missing", flags(QUANTIZE, "--model_quantized=no/out.prototxt"), nothing,
        re.compile(r"no/out\.prototxt: the folder .*/job/no does not exist\. Create it first\.")),
    bad("quantize onto a folder", flags(QUANTIZE, "--model_quantized=db"), nothing,
        "db: is a folder, not a file. Add a file name."),
    bad("quantize below a file", flags(QUANTIZE, "--model_quantized=net.prototxt/out.prototxt"), nothing,
        re.compile(r"net\.prototxt/out\.prototxt: the folder .*/job/net\.prototxt does not exist\. Create it first\.")),
    bad("quantize with a json that cannot be written", flags(QUANTIZE, "--json=no/out.json"), nothing,
        re.compile(r"no/out\.json: the folder .*/job/no does not exist\. Create it first\.")),
    bad("test with a json that is a folder", flags(TEST, "--json=db"), nothing,
        "db: is a folder, not a file. Add a file name."),
    bad("forward into a folder that is missing", flags(FORWARD, "--output=no/out.npz"), nothing,
        re.compile(r"no/out\.npz: the folder .*/job/no does not exist\. Create it first\.")),
    bad("export onto a folder", flags(EXPORT, "--output=db"), nothing,
        "db: is a folder, not a file. Add a file name."),
    bad("export to an empty name", flags(EXPORT, "--output="), nothing,
        '"": is a folder, not a file. Add a file name.'),
    bad("forward of a blob that is not there", flags(FORWARD, "--blobs=conv,ipp"), nothing,
        'net.prototxt: the net has no blob "ipp". Did you mean ip?'),
    bad("export of an unknown format", flags(EXPORT, "--format=onx"), nothing,
        "Invalid value for '--format': unknown export format \"onx\". Did you mean onnx?", code=2),
    bad("export of a net without a model", flags(EXPORT, without="model"), nothing,
        "this format needs --model"),
    bad("quantize over its own model", flags(QUANTIZE, "--model_quantized=net.prototxt"), nothing,
        "net.prototxt: is an input of this command. Choose another name for the output."),
    bad("quantize to one file twice", flags(QUANTIZE, "--json=out.prototxt"), nothing,
        "out.prototxt: is given for two outputs. Choose another name for the output."),
    bad("quantize with a name that is too long", flags(QUANTIZE, "--model_quantized=" + "x" * 300), nothing,
        re.compile(r"x{300}: cannot be written: file name too long\. Choose a shorter name\.")),
    bad("quantize to a full device", flags(QUANTIZE, "--model_quantized=/dev/full"), with_dev_full,
        "/dev/full: cannot be written: no space left on device. Free some space, or write to another disk."),
    bad("test with its model as json", flags(TEST, "--json=net.prototxt"), nothing,
        "net.prototxt: is an input of this command. Choose another name for the output."),
    bad("forward over its input", flags(FORWARD, "--input=in.npz", "--output=in.npz"), both(data_layer(INPUT_LAYER), npz(data=np.zeros((2, 1, 4, 4)), label=np.zeros(2))),
        "in.npz: is an input of this command. Choose another name for the output."),
    bad("export of bad weights as npz", flags(EXPORT, "--format=npz"), cut("net.caffemodel", 100),
        "net.caffemodel: the file is damaged or not a caffemodel: 107 bytes are declared at byte 3, but 97 are available. Is it a complete caffemodel?"),
    bad("export of a net that lacks weights", EXPORT, weights(lambda w: w.pop("ip")),
        'net.prototxt:4: layer "ip" has no weights in net.caffemodel. Layers there: conv. --allow_missing_weights initializes it with its filler.'),
    bad("export of a net that is not there in that phase", flags(EXPORT, "--phase=TRAIN"), edit("backend: LMDB }", "backend: LMDB } include { phase: TEST }"),
        'net.prototxt:3: layer "conv" (Convolution): its bottom "data" is produced by layer "data" (net.prototxt:2), which is only in phase TEST; this net is for phase TRAIN, level 0'),
    bad("quantize over its own weights", flags(QUANTIZE, "--model_quantized=net.caffemodel"), nothing,
        "net.caffemodel: is an input of this command. Choose another name for the output."),
    bad("export over its own weights", flags(EXPORT, "--output=net.caffemodel"), nothing,
        "net.caffemodel: is an input of this command. Choose another name for the output."),
]

FLAGS = [
    bad("0 iterations", flags(QUANTIZE, "--iterations=0"), nothing,
        "Invalid value for '--iterations': 0 is not in the range x>=1.", code=2),
    bad("-1 iterations", flags(TEST, "--iterations=-1"), nothing,
        "Invalid value for '--iterations': -1 is not in the range x>=1.", code=2),
    bad("abc iterations", flags(TEST, "--iterations=abc"), nothing,
        "Invalid value for '--iterations': 'abc' is not a valid integer range.", code=2),
    bad("0 calibration iterations", flags(QUANTIZE, "--calibration_iterations=0"), nothing,
        "Invalid value for '--calibration_iterations': 0 is not in the range x>=1.", code=2),
    bad("error margin nan", flags(QUANTIZE, "--error_margin=nan"), nothing,
        "Invalid value for '--error_margin': 'nan' is not a number.", code=2),
    bad("error margin -1", flags(QUANTIZE, "--error_margin=-1"), nothing,
        "Invalid value for '--error_margin': -1.0 is not in the range 0<=x<=100.", code=2),
    bad("error margin inf", flags(QUANTIZE, "--error_margin=inf"), nothing,
        "Invalid value for '--error_margin': inf is not in the range 0<=x<=100.", code=2),
    bad("error margin with a percent sign", flags(QUANTIZE, "--error_margin=2%"), nothing,
        "Invalid value for '--error_margin': '2%' is not a valid float range.", code=2),
    bad("bit width x", flags(QUANTIZE, "--bit_widths=16,x"), nothing,
        "Invalid value for '--bit_widths': \"16,x\": expected a list of numbers such as 16,8,4", code=2),
    bad("bit width 0", flags(QUANTIZE, "--bit_widths=0"), nothing,
        "Invalid value for '--bit_widths': \"0\": expected distinct numbers from 1 to 32", code=2),
    bad("bit width 64", flags(QUANTIZE, "--bit_widths=64"), nothing,
        "Invalid value for '--bit_widths': \"64\": expected distinct numbers from 1 to 32", code=2),
    bad("no bit widths", flags(QUANTIZE, "--bit_widths="), nothing,
        "Invalid value for '--bit_widths': \"\": expected a list of numbers such as 16,8,4", code=2),
    bad("a bit width twice", flags(QUANTIZE, "--bit_widths=8,8"), nothing,
        "Invalid value for '--bit_widths': \"8,8\": expected distinct numbers from 1 to 32", code=2),
    bad("a given width of nothing", flags(QUANTIZE, "--bw=4"), nothing,
        "Invalid value for '--bw': \"4\": expected a width from 1 to 32 bits, such as conv_params=4", code=2),
    bad("a given width of 0 bits", flags(QUANTIZE, "--bw=layer=0"), nothing,
        "Invalid value for '--bw': \"layer=0\": expected a width from 1 to 32 bits, such as conv_params=4", code=2),
    bad("a given width of -1 bits", flags(QUANTIZE, "--bw=fc_params=4,layer=-1"), nothing,
        "Invalid value for '--bw': \"layer=-1\": expected a width from 1 to 32 bits, such as conv_params=4", code=2),
    bad("a given width of very many digits", flags(QUANTIZE, "--bw=layer=" + "9" * 5000), nothing,
        re.compile(r"Invalid value for '--bw': \"layer=9+\": expected a width from 1 to 32 bits, such as conv_params=4"), code=2),
    bad("a comma and no width", flags(QUANTIZE, "--bw=layer=8,"), nothing,
        "Invalid value for '--bw': \"\": expected a width from 1 to 32 bits, such as conv_params=4", code=2),
    bad("two widths of one part", flags(QUANTIZE, "--bw=layer=8,layer=4"), nothing,
        "Invalid value for '--bw': \"layer\" is given twice", code=2),
    bad("a given width of an unknown part", flags(QUANTIZE, "--bw=conv=4"), nothing,
        '--bw: dynamic_fixed_point has no group "conv"; its groups: conv_params, fc_params, layer, bias; parts of layers: conv1.params, ...', code=2),
    bad("a given width that minifloat has not", flags(QUANTIZE, "--trimming_mode=minifloat", "--bw=net=5"), nothing,
        "net.prototxt: --bw net=5: minifloat has no such width for this net. Use 6 to 32 bits."),
    bad("least squares with legacy", flags(QUANTIZE, "--fl_params=mse", "--legacy"), nothing,
        "--fl_params=mse has no effect with --legacy", code=2),
    bad("least squares of minifloats", flags(QUANTIZE, "--fl_params=mse", "--trimming_mode=minifloat"), nothing,
        re.compile("--fl_params has no effect with --trimming_mode=minifloat, only with dynamic_fixed_point( or .*)?"), code=2),
    bad("unknown trimming mode with a near name", flags(QUANTIZE, "--trimming_mode=minifloats"), nothing,
        "Invalid value for '--trimming_mode': unknown trimming mode \"minifloats\". Did you mean minifloat?", code=2),
    bad("unknown trimming mode", flags(QUANTIZE, "--trimming_mode=qqqq"), nothing,
        re.compile(r"Invalid value for '--trimming_mode': unknown trimming mode \"qqqq\"\. Known: dorefa, dynamic_fixed_point, .*"), code=2),
    bad("required GPU without CUDA", flags(TEST, "--require_gpu"), without_cuda,
        "the GPU cannot be used: the installed onnxruntime has no CUDA support. For a GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu. "
        "Without --require_gpu the CPU is used."),
    bad("GPU x", flags(TEST, "--gpu=x"), nothing,
        "Invalid value for '--gpu': invalid GPU \"x\": expected a device number such as 0, a list such as 0,1, or all", code=2),
    bad("GPU -1", flags(TEST, "--gpu=-1"), nothing,
        "Invalid value for '--gpu': invalid GPU \"-1\": expected a device number such as 0, a list such as 0,1, or all", code=2),
    bad("GPU superscript", flags(TEST, "--gpu=²"), nothing,
        "Invalid value for '--gpu': invalid GPU \"²\": expected a device number such as 0, a list such as 0,1, or all", code=2),
    bad("unknown flag", flags(TEST, "--iteration=1"), nothing,
        "unknown flag --iteration. Did you mean --iterations?", code=2),
    bad("two unknown flags", flags(TEST, "--iteration=1", "--zz"), nothing,
        "unknown flag --iteration. Did you mean --iterations?",
        "unknown flag --zz", code=2),
    bad("missing flags", ("quantize",), nothing,
        "missing: --model, --weights, --trimming_mode", code=2),
    bad("unknown command", ("quantise",), nothing,
        'unknown command "quantise". Did you mean quantize?', code=2),
    bad("stray argument", flags(TEST, "net.prototxt"), nothing,
        'unexpected "net.prototxt": values are given as --flag=value', code=2),
    bad("boolean with another value", flags(QUANTIZE, "--legacy=maybe"), nothing,
        '--legacy is on or off: --legacy cannot be "maybe"', code=2),
    bad("unknown phase", flags(FORWARD, "--phase=DEPLOY"), nothing,
        "Invalid value for '--phase': \"DEPLOY\": expected TRAIN or TEST", code=2),
    bad("level x", flags(TEST, "--level=x"), nothing,
        "Invalid value for '--level': 'x' is not a valid integer.", code=2),
    bad("negative seed", flags(FORWARD, "--seed=-1"), nothing,
        "Invalid value for '--seed': -1 is not in the range x>=0.", code=2),
    bad("empty model", flags(TEST, "--model="), nothing,
        '"": is a folder, not a file'),
    bad("model with a zero byte", flags(TEST, "--model=a\0b"), nothing,
        "'a\\x00b': invalid file name"),
    bad("test without a model in a folder without one", ("test",), nothing,
        "missing: --model (and no quantized.prototxt in the current folder)", code=2),
    bad("test of a model whose header names no weights file", ("test", "--model=net.prototxt"), nothing,
        "net.prototxt: no weights file is named in its header. Use --weights."),
    bad("test of a model whose header names missing weights", ("test", "--model=net.prototxt"), lambda job: job.write("net.prototxt", "# Weights: w/x.caffemodel\n" + NET),
        "w/x.caffemodel: this file does not exist"),
    bad("test without weights of a missing model", ("test", "--model=x.prototxt"), nothing,
        "x.prototxt: this file does not exist"),
    bad("test without weights of a folder", ("test", "--model=db"), nothing,
        "db: is a folder, not a file"),
    bad("test of a model with a zero byte without weights", ("test", "--model=a\0b"), nothing,
        "'a\\x00b': invalid file name"),
    bad("dry run of a bad net", flags(QUANTIZE, "--dry_run"), edit("kernel_size: 3", "kernel_size: 5"),
        'net.prototxt:3: layer "conv" (Convolution): kernel 5x5 with dilation 1x1 is larger than the input 4x4 with padding 0x0'),
]
# fmt: on

TABLE = [*WEIGHTS, *TEXT, *CONNECTIONS, *SHAPES, *ABSURD, *NETS, *DATA, *OUTPUTS, *FLAGS]

LOG_LINE = re.compile(r"[IW]\d{4} [0-9:.]+ +\d+ \w+\.py:\d+] .*")
NOTES = re.compile(r"Scoring net\.prototxt with .*, named in its header\.")
MAX_SECONDS = 20  # of processor time, which other processes do not change; far more than any row takes
MAX_BYTES = 50 << 20


def by_name(row: Row) -> str:
    return row.name


def check_reported(row: Row, err: str) -> None:
    """stderr holds the row's faults, a line each, and apart from them only the log and notes."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not LOG_LINE.fullmatch(line) and not NOTES.fullmatch(line)]
    if row.code == 2:
        command = f" {row.args[0]}" if row.args[0] in ("quantize", "test", "forward", "export") else ""
        assert lines.pop() == f"Try 'ristretto{command} --help'."
    faults = [line.removeprefix("ristretto: ") for line in lines]
    assert all(line.startswith("ristretto: ") for line in lines), lines
    expected = list(row.lines)
    if expected[-1] is ...:
        expected.pop()
        faults = faults[: len(expected)]
    matches = [
        fault == line if isinstance(line, str) else isinstance(line, re.Pattern) and line.fullmatch(fault)
        for fault, line in zip(faults, expected, strict=False)
    ]
    assert len(faults) == len(expected) and all(matches), "\n".join(faults)


def test_the_job_is_good_before_it_is_broken(job: Job) -> None:
    for args in (QUANTIZE, TEST, FORWARD, EXPORT):
        assert run(args) == 0
    written = {name for name in job.files() if name.startswith("out.")}
    assert written == {"out.prototxt", "out.json", "out.npz", "out.onnx"}


def test_a_layer_without_parameters_may_have_the_name_of_one_with_some(job: Job) -> None:
    job.edit('name: "loss"', 'name: "ip"')
    assert run(QUANTIZE) == 0


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, only for the test."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_a_bad_input_is_reported_in_a_line_and_leaves_no_trace(
    row: Row, job: Job, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row.change(job)
    before = job.files()
    start = time.process_time()
    code = run(row.args)
    seconds = time.process_time() - start
    out, err = capsys.readouterr()
    check_reported(row, err)
    assert (code, out) == (row.code, "")
    assert job.files() == before
    assert not list(temporary.iterdir())
    assert seconds < MAX_SECONDS


@pytest.mark.parametrize("row", ABSURD, ids=by_name)
def test_an_absurd_size_takes_no_memory(row: Row, job: Job) -> None:
    row.change(job)
    tracemalloc.start()
    try:
        assert run(row.args) == row.code
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


IN_A_PROCESS = (
    "caffemodel cut off in the middle",
    "typos on two lines",
    "LMDB cut off",
    "values that overflow during calibration",
    "unknown flag",
)


@pytest.mark.parametrize("row", [row for row in TABLE if row.name in IN_A_PROCESS], ids=by_name)
def test_a_process_ends_with_the_same_lines(row: Row, job: Job) -> None:
    row.change(job)
    before = job.files()
    environment = {**os.environ, "TMPDIR": str(job.folder.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "ristretto_cli", *row.args], capture_output=True, text=True, env=environment, timeout=600
    )
    check_reported(row, done.stderr)
    assert (done.returncode, done.stdout) == (row.code, "")
    assert job.files() == before


WRITERS = {
    "quantize": (QUANTIZE, "out.prototxt"),
    "quantize --json": (flags(QUANTIZE, "--json=out.json"), "out.json"),
    "test --json": (TEST, "out.json"),
    "forward": (FORWARD, "out.npz"),
    "export onnx": (EXPORT, "out.onnx"),
    "export npz": (flags(EXPORT, "--format=npz", "--output=out.npz"), "out.npz"),
}
FAULTS = {
    "interrupted": (KeyboardInterrupt(), 130, "ristretto: interrupted"),
    "disk full": (
        OSError(28, "No space left on device"),
        1,
        "ristretto: {}: cannot be written: no space left on device. Free some space, or write to another disk.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("old", [None, "old"])
def test_a_write_that_fails_leaves_the_old_file_or_none(
    writer: str,
    fault: str,
    old: str | None,
    job: Job,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args, output = WRITERS[writer]
    error, code, line = FAULTS[fault]
    replace = Path.replace
    if old is not None:
        job.write(output, old)

    def fail(temporary: Path, target: Path) -> Path:
        # All is written by now, but not yet in its place.
        assert temporary.stat().st_size > 0
        if target.name != output:
            return replace(temporary, target)
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    before = job.files()
    assert run(args) == code
    assert capsys.readouterr().err.splitlines()[-1] == line.format(output)
    after = job.files()
    if writer == "quantize --json":  # the net was whole already
        assert after.pop("out.prototxt")
    assert after == before


def test_a_write_that_breaks_off_in_the_middle_leaves_nothing(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    before = job.files()
    assert run(QUANTIZE) == 130
    assert job.files() == before
    assert capsys.readouterr().err.splitlines()[-1] == "ristretto: interrupted"


def test_a_folder_that_may_not_be_written_is_reported_before_any_work(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by its permissions: those do not stop root, as whom tests may run.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run(QUANTIZE) == 1
    assert capsys.readouterr() == ("", "ristretto: out.prototxt: cannot be written: permission denied\n")


def test_a_net_that_needs_more_memory_than_there_is_is_reported(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 1")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run_out)
    assert run(TEST) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "ristretto: out of memory. Reduce batch_size."
