"""Integer programs as memory files for FPGAs and simulators, with a Verilog header."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports import memory_files
from ristretto_cli.exports.exporter import ExportRequest, exporter
from ristretto_cli.exports.images import Images
from ristretto_cli.exports.input_table import PixelOffsets, PixelTable, pixel_inputs
from ristretto_cli.exports.integers import NET, program_as_json, program_of_json
from ristretto_cli.exports.memory_files import Layout
from ristretto_cli.exports.names import file_stems, identifiers
from ristretto_cli.exports.program_exporter import ProgramExporter, ToPrint
from ristretto_cli.integers.interpreter import Interpreter
from ristretto_cli.integers.program import (
    Affine,
    Concat,
    Convolution,
    Deconvolution,
    InnerProduct,
    Maximum,
    Move,
    Place,
    Product,
    Program,
    Requantization,
    Requantize,
    Step,
    Sum,
    SumPool,
    Table,
    read_by,
    width_of,
)
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.ops import AnyArray

HEADER, CHECKER, README = "net.vh", "check_memories.v", "README.txt"
_VERSION = 1
_SIMULATION_LIMIT = 600  # seconds
_MAX_WORD = 2**16  # bits; simulators and compilers of Verilog need not allow more
_ROUNDINGS = {rounding: number for number, rounding in enumerate(ShiftRounding)}

# The kinds of arrays by the folders that they are in; which of them may share a word.
_SHARED = ("weights", "vectors")
_ORDERS = {
    Convolution: "output channels, input channels of the group, kernel",
    Deconvolution: "input channels, output channels of the group, kernel",
    InnerProduct: "outputs, inputs in the order channels, height, width",
}


@dataclass(frozen=True)
class Memory:
    """An array of a program as a memory. place: that its step computes. title, order: words for comments.

    The layout's rows are the array's first axis. frac_bits: of its integers, if they stand for numbers.
    """

    kind: str
    place: str
    array: AnyArray
    layout: Layout
    title: str
    order: str
    frac_bits: int | None

    @property
    def rows(self) -> AnyArray:
        """The array as the layout's rows and columns."""
        return self.array.reshape(self.layout.rows, self.layout.columns)


@exporter("mem")
class MemExporter(ProgramExporter):
    """A folder with memory files: .mem for $readmemh, .coe (Xilinx) and .mif (Altera), and net.vh, a Verilog header.

    weights/, biases/, entries/ (tables), multipliers/, offsets/, factors/, indices/ and input/ (from pixels to
    integers) have two's complement numbers of the exact width of their format, in Caffe's order; vectors/, only .mem,
    the integers of images. net.vh has widths, fraction bits, shifts, bounds, shapes and file names, net.json the steps.

    --per_line N puts N weights (and N integers of vectors) in a word, the first one in the least significant bits.
    --pack gives them fields of 1, 2, 4 or a whole number of 8 bits, and words whole bytes. --check also runs
    check_memories.v, which reads each .mem by $readmemh, if iverilog is installed.
    """

    name = "mem"
    writes_folder: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = ProgramExporter.takes | {"--pack", "--per_line"}

    def print(self, content: ToPrint, path: Path) -> str:
        program, request = content.program, content.request
        pixels = pixel_inputs(content.compiled)
        stems = file_stems(place.name for place in program.places)
        found = list(_memories(program, pixels, content.vectors, request))
        files = {(each.kind, each.place): f"{each.kind}/{stems[each.place]}.mem" for each in found}
        widest = max(each.layout.width for each in found)
        if widest > _MAX_WORD:
            what = f"words of {widest} bits are wider than Verilog's {_MAX_WORD}"
            raise RistrettoError(what, where="--per_line", hint="Use a smaller number.")
        for each in found:
            file = path / files[each.kind, each.place]
            file.parent.mkdir(exist_ok=True)
            for suffix, write in memory_files.WRITERS.items():
                if suffix == ".mem" or each.kind != "vectors":
                    write(file.with_suffix(suffix), each.rows, each.layout, _comments(each))
        steps = program_as_json(program, pixels, content.vectors, lambda kind, place, _: files[kind, place])
        made = {"format": "ristretto mem", "version": _VERSION, **steps}
        (path / NET).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        (path / HEADER).write_text(header(program, pixels, found, files), encoding="utf-8")
        (path / CHECKER).write_text(_checker(found, files), encoding="utf-8")
        (path / README).write_text(_readme(program, request), encoding="utf-8")
        size = sum(each.layout.lines * each.layout.width for each in found if each.kind == "weights")
        return f"{len(found)} memories, {size / 8000:.1f} kB of weights, {HEADER}"

    def run_written(self, path: Path, program: Program, integers: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        written = read_program(path)
        return Interpreter(written, keep=lambda place: True).run_integers(integers)

    def _check(self, output: Path, program: Program, images: Images, count: int) -> str:
        return f"{super()._check(output, program, images, count)}\n{simulated(output)}"


def read_program(folder: Path) -> Program:
    """The program of a folder of this format, with the arrays of its .mem files as net.vh describes them.

    RistrettoError if it has none, or if net.vh is not the header of that program.
    """
    try:
        numbers = parse_header((folder / HEADER).read_text(encoding="utf-8"))
        names = {value: name.removesuffix("_FILE") for name, value in numbers.items() if name.endswith("_FILE")}

        def load(file: str) -> AnyArray:
            return _read_memory(folder / file, names[file], numbers)

        found = json.loads((folder / NET).read_text(encoding="utf-8"))
        if found["format"] != "ristretto mem" or found["version"] != _VERSION:
            raise RistrettoError("is not a program of this version", where=str(folder / NET))
        program = program_of_json(found, load)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise RistrettoError(f"cannot be read as a program: {fault}", where=str(folder / NET)) from None
    ours = {name: value for name, value, _ in _numbers(program)}
    wrong = [name for name, value in ours.items() if numbers.get(name) != value]
    if wrong:
        raise RistrettoError(f"{wrong[0]} is not that of {NET}", where=str(folder / HEADER))
    return program


def _read_memory(file: Path, name: str, numbers: Mapping[str, int | str]) -> AnyArray:
    def number(suffix: str) -> int:
        return int(numbers[f"{name}_{suffix}"])

    fields = ("BITS", "SIGNED", "FIELD_BITS", "PER_LINE", "ROWS", "COLUMNS")
    bits, signed, field, per_line, rows, columns = (number(each) for each in fields)
    shape: list[int] = []
    while f"{name}_SHAPE_{len(shape)}" in numbers:
        shape.append(number(f"SHAPE_{len(shape)}"))
    return memory_files.read_mem(file, Layout(bits, bool(signed), field, per_line, rows, columns)).reshape(shape)


# memories


def _memories(
    program: Program,
    pixels: Mapping[str, PixelTable | PixelOffsets],
    vectors: Mapping[str, AnyArray],
    request: ExportRequest,
) -> Iterator[Memory]:
    def memory(
        kind: str, place: str, array: AnyArray, bits: int, signed: bool, title: str, order: str, fl: int | None = None
    ) -> Memory:
        share = kind in _SHARED
        rows = array.shape[0] if array.ndim > 1 and array.size else 1
        columns = array.size // rows
        laid_out = memory_files.layout(
            bits, signed=signed, rows=rows, columns=columns, per_line=request.per_line, share=share, pack=request.pack
        )
        return Memory(kind, place, array, laid_out, title, order, fl)

    def of_values(kind: str, place: str, array: AnyArray, title: str, order: str) -> Memory:
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        return memory(kind, place, array, width_of(low, high), low < 0, title, order)

    by_name = {place.name: place for place in program.places}
    for each in program.inputs:
        place, table = each.place, pixels.get(each.place.name)
        if isinstance(table, PixelTable):
            what = f"the integers of {place.name}, for each channel and pixel value"
            order = "channels, pixel values 0 to 255"
            yield memory("input", place.name, table.entries, place.bits, place.signed, what, order, place.frac_bits)
        elif table is not None:
            what = f"offsets of {place.name}: saturate(factor * pixel + offset)"
            yield of_values("input", place.name, table.offsets, what, "channels, height, width")
    for step in program.steps:
        name = step.y.name
        if isinstance(step, Product):
            what = f"weights of layer {step.layer}"
            fl = step.weights_frac_bits
            yield memory("weights", name, step.weights, step.weights_bits, True, what, _ORDERS[type(step)], fl)
            if step.biases is not None:
                what = f"biases of layer {step.layer}, in the unit of the sums"
                yield memory(
                    "biases", name, step.biases, _sum_bits(step), True, what, "output channels", step.frac_bits
                )
        elif isinstance(step, Table):
            what = f"table of {' + '.join(step.layers)}, from {step.x.low} to {step.x.high}"
            y = step.y
            yield memory("entries", name, step.entries, y.bits, y.signed, what, "channels, entries", y.frac_bits)
        elif isinstance(step, Affine):
            what = f"of {' + '.join(step.layers)}: x * multiplier + offset"
            yield of_values("multipliers", name, step.multipliers, f"multipliers {what}", "channels")
            yield of_values("offsets", name, step.offsets, f"offsets {what}", "channels")
        elif isinstance(step, SumPool):
            yield of_values("factors", name, step.factors, f"factors of the sums of windows of {name}", "height, width")
        elif isinstance(step, Move):
            what = f"for each element of {name}, which one of {step.x.name} it is; -1: the fill"
            yield of_values("indices", name, step.indices, what, "as the elements of the result")
    for name, array in vectors.items():
        place = by_name[name]
        what = f"{len(array)} images at {name}"
        order = "images, then channels, height, width"
        yield memory("vectors", name, array, place.bits, place.signed, what, order, place.frac_bits)


def _sum_bits(step: Product) -> int:
    """The width of a signed accumulator."""
    return width_of(min(step.low, -1), step.high)


def _comments(memory: Memory) -> list[str]:
    """The lines at the top of a file."""
    to = memory.layout
    unit = "" if memory.frac_bits is None else f", {memory.frac_bits} fraction bits"
    lines = [
        " ".join(memory.title.split()),
        ("two's complement" if to.signed else "unsigned") + f", {to.bits} bits{unit}",
        f"order: {memory.order}: {' x '.join(map(str, memory.array.shape))}, the last axis first to vary",
    ]
    if to.per_line == 1:
        lines.append(f"{to.lines} words of {to.width} bits")
    else:
        lines.append(
            f"{to.lines} words of {to.width} bits: {to.per_line} fields of {to.field} bits, the first one in the least "
            f"significant bits; {to.rows} rows of {to.columns}, each of which begins a new word"
        )
    # A name may hold anything, but a comment ends with its line, and these files are ASCII.
    return [line.encode("ascii", "backslashreplace").decode() for line in lines]


# net.vh


def header(
    program: Program,
    pixels: Mapping[str, PixelTable | PixelOffsets],
    memories: list[Memory],
    files: Mapping[tuple[str, str], str],
) -> str:
    """The Verilog header: localparams, to be included in a module."""
    names = _identifiers(program)
    lines = [
        f"// {_plain(program.name)}: numbers of its integer program. Include this file in a module.",
        "// An integer n of a place stands for n * 2^-FRAC_BITS / DIVISOR. Shapes are without the images.",
        "// REQUANTIZE: n becomes saturate(round(n / (DIVISOR * 2^SHIFT)), LOW, HIGH); a negative SHIFT multiplies.",
        "// SUM: the accumulator, signed. The sums of products are shifted left by SUM_UP, then biases are added.",
        "// A memory has LINES words of PER_LINE fields of FIELD_BITS, the first one in the least significant bits;",
        "// each of its ROWS of COLUMNS integers begins a new word.",
    ]
    for name, value, comment in _numbers(program):
        lines += ["", f"// {comment}"] if comment else []
        lines.append(f"localparam {name} = {_literal(value)};")
    for each in memories:
        stem = f"{names[each.place]}__{each.kind.upper()}"
        to = each.layout
        found: dict[str, int | str] = {
            "FILE": files[each.kind, each.place],
            "BITS": to.bits,
            "SIGNED": int(to.signed),
            "FIELD_BITS": to.field,
            "PER_LINE": to.per_line,
            "LINE_BITS": to.width,
            "ROWS": to.rows,
            "COLUMNS": to.columns,
            "LINES": to.lines,
            **{f"SHAPE_{axis}": n for axis, n in enumerate(each.array.shape)},
        }
        if each.frac_bits is not None:
            found["FRAC_BITS"] = each.frac_bits
        table = pixels.get(each.place)
        if each.kind == "input" and isinstance(table, PixelOffsets):
            found["FACTOR"] = table.factor
        lines += ["", f"// {_comments(each)[0]}"]
        lines += [f"localparam {stem}_{key} = {_literal(value)};" for key, value in found.items()]
    return "\n".join(lines) + "\n"


def _identifiers(program: Program) -> dict[str, str]:
    """An identifier for each place. None has two underscores in a row, which separate it from what follows it."""
    found = identifiers(place.name for place in program.places)
    return {name: identifier.upper() for name, identifier in found.items()}


def _numbers(program: Program) -> Iterator[tuple[str, int | str, str]]:
    """The header's names, values and comments of all but the memories."""
    names = _identifiers(program)
    modes = ", ".join(f"{number}: {rounding.value}" for rounding, number in _ROUNDINGS.items())
    yield "ROUNDING", _ROUNDINGS[program.rounding], f"Rounding: {modes}"
    for each in program.inputs:
        title = f"{_plain(each.place.name)}, the input: {_plain(each.blob)} quantized"
        yield from _titled(title, _of_place(names[each.place.name], each.place))
    for step in program.steps:
        read = ", ".join(_plain(place.name) for place in read_by(step))
        title = f"{_plain(step.y.name)}: {type(step).__name__} of {read}"
        yield from _titled(title, _of_step(names[step.y.name], step))


def _titled(title: str, numbers: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int, str]]:
    for i, (name, value) in enumerate(numbers):
        yield name, value, title if i == 0 else ""


def _of_place(name: str, place: Place) -> Iterator[tuple[str, int]]:
    yield f"{name}__BITS", place.bits
    yield f"{name}__SIGNED", int(place.signed)
    yield f"{name}__FRAC_BITS", place.frac_bits
    if place.divisor != 1:
        yield f"{name}__DIVISOR", place.divisor
    yield f"{name}__LOW", place.low
    yield f"{name}__HIGH", place.high
    yield f"{name}__COUNT", math.prod(place.shape)
    for axis, n in enumerate(place.shape):
        yield f"{name}__SHAPE_{axis}", n


def _of_step(name: str, step: Step) -> Iterator[tuple[str, int]]:
    yield from _of_place(name, step.y)
    if isinstance(step, Product):
        yield f"{name}__SUM_BITS", _sum_bits(step)
        yield f"{name}__SUM_FRAC_BITS", step.frac_bits
        yield f"{name}__SUM_UP", step.up
        yield f"{name}__SUM_LOW", step.low
        yield f"{name}__SUM_HIGH", step.high
    if isinstance(step, (Product, Requantize)) and step.requantization is not None:
        yield from _of_requantization(name, step.requantization)
    if isinstance(step, (Sum, Maximum, Concat)):
        for i, factor in enumerate(step.factors):
            yield f"{name}__FACTOR_{i}", factor
    if isinstance(step, Concat):
        yield f"{name}__AXIS", step.axis
    geometry = getattr(step, "geometry", None)
    if isinstance(step, (Convolution, Deconvolution)):
        yield f"{name}__GROUP", step.geometry.group
    for what in ("kernel", "stride", "pad", "dilation"):
        for axis, n in enumerate(getattr(geometry, what, ())):
            yield f"{name}__{what.upper()}_{axis}", n


def _of_requantization(name: str, to: Requantization) -> Iterator[tuple[str, int]]:
    yield f"{name}__REQUANTIZE_SHIFT", to.shift
    yield f"{name}__REQUANTIZE_LOW", to.low
    yield f"{name}__REQUANTIZE_HIGH", to.high
    if to.divisor != 1:
        yield f"{name}__REQUANTIZE_DIVISOR", to.divisor


def _literal(value: int | str) -> str:
    """A Verilog constant; numbers that do not fit in 32 bits have 64."""
    if isinstance(value, str):
        return f'"{value}"'
    if -(2**31) < value < 2**31:
        return str(value)
    return f"{'-' if value < 0 else ''}64'sd{abs(value)}"


def _plain(name: str) -> str:
    """A name in a comment: ASCII, on one line."""
    return " ".join(name.encode("ascii", "backslashreplace").decode().split())


_LOCALPARAM = re.compile(r"""^localparam (\w+) = (?:(-?)(?:64'sd)?(\d+)|"([^"]*)");$""", re.MULTILINE)


def parse_header(text: str) -> dict[str, int | str]:
    """The localparams of a header. ValueError if a name is there twice, or if a line is something else."""
    found: dict[str, int | str] = {}
    for line in text.splitlines():
        match = _LOCALPARAM.match(line)
        if match is None:
            if line and not line.startswith("//"):
                raise ValueError(f"{HEADER}: {line}")
            continue
        name, sign, digits, string = match.groups()
        if name in found:
            raise ValueError(f"{HEADER}: {name} is there twice")
        found[name] = string if digits is None else int(sign + digits)
    return found


# check_memories.v

_MODULE = """// Reads each .mem file by $readmemh, and compares its number of words and two checksums of its integers.
// Run it in this folder: iverilog -o check check_memories.v && vvp check

module check_memory #(
    parameter FILE = "", parameter LINES = 1, FIELD_BITS = 8, SIGNED = 1, PER_LINE = 1, ROW_LINES = 1, COLUMNS = 1,
    parameter [63:0] SUM = 0, SUM_OF_SUMS = 0
) (input start, output reg done, output reg failed);
    reg [FIELD_BITS*PER_LINE-1:0] memory [0:LINES];  // one word more than there are in the file
    reg [FIELD_BITS-1:0] field;
    reg [63:0] value, sum, sums;
    integer line, i, column;

    initial begin
        done = 0;
        failed = 0;
    end

    always @(posedge start) begin
        sum = 0;
        sums = 0;
        column = 0;
        $readmemh(FILE, memory);
        for (line = 0; line < LINES; line = line + 1) begin
            if (line % ROW_LINES == 0) column = 0;
            if (^memory[line] === 1'bx) failed = 1;
            for (i = 0; i < PER_LINE; i = i + 1) begin
                field = memory[line] >> (i * FIELD_BITS);
                value = field;
                if (SIGNED && field[FIELD_BITS-1]) value = value - (64'd1 << (FIELD_BITS - 1)) * 2;
                if (column < COLUMNS) begin
                    sum = sum + value;
                    sums = sums + sum;
                end
                column = column + 1;
            end
        end
        if (memory[LINES] !== {FIELD_BITS*PER_LINE{1'bx}}) failed = 1;
        if (sum !== SUM || sums !== SUM_OF_SUMS) failed = 1;
        if (failed) $display("%0s: wrong", FILE);
        done = 1;
    end
endmodule
"""


def _checker(memories: list[Memory], files: Mapping[tuple[str, str], str]) -> str:
    """A test bench that reads the .mem files; those without integers are omitted."""
    checked = [each for each in memories if each.array.size]
    count = len(checked)
    lines = [
        _MODULE,
        "module check_memories;",
        "    reg start = 0;",
        f"    wire [{count - 1}:0] done, failed;",
        "    integer i, wrong;",
    ]
    for i, each in enumerate(checked):
        to = each.layout
        total, totals = memory_files.checksums(each.rows)
        lines.append(
            f'    check_memory #("{files[each.kind, each.place]}", {to.lines}, {to.field}, {int(to.signed)}, '
            f"{to.per_line}, {to.row_lines}, {to.columns}, 64'h{total:x}, 64'h{totals:x})\n"
            f"        memory_{i} (start, done[{i}], failed[{i}]);"
        )
    lines.append(f"""
    initial begin
        #1 start = 1;
        wait (&done);
        wrong = 0;
        for (i = 0; i < {count}; i = i + 1) if (failed[i]) wrong = wrong + 1;
        $display("{count} memories, %0d wrong", wrong);
        $finish;
    end
endmodule""")
    return "\n".join(lines) + "\n"


def simulated(folder: Path) -> str:
    """Runs check_memories.v by iverilog and gives a line about it; RistrettoError if a memory is wrong."""
    if shutil.which("iverilog") is None or shutil.which("vvp") is None:
        return "not checked by iverilog: not installed"
    with tempfile.TemporaryDirectory() as temporary:
        program = str(Path(temporary) / "check")
        try:
            built = _run(["iverilog", "-o", program, "-g2001", CHECKER], folder)
            header_only = Path(temporary) / "header.v"
            header_only.write_text(f'module header;\n`include "{HEADER}"\nendmodule\n', encoding="utf-8")
            read = _run(["iverilog", "-o", f"{program}2", "-g2001", "-I", ".", str(header_only)], folder)
            ran = _run(["vvp", "-n", program], folder)
        except subprocess.TimeoutExpired:
            return f"not checked by iverilog: it took more than {_SIMULATION_LIMIT} seconds"
    if built.returncode or read.returncode:
        first = next(iter((built.stderr + read.stderr).splitlines()), "")
        raise RistrettoError(f"iverilog cannot read what was written: {first}", where=str(folder))
    last = next((line for line in reversed(ran.stdout.splitlines()) if " memories, " in line), "")
    if ran.returncode or not last.endswith(" 0 wrong"):
        wrong = [line for line in ran.stdout.splitlines() if line.endswith(": wrong")]
        raise RistrettoError(f"checked by iverilog, and it is wrong: {', '.join(wrong) or last}", where=str(folder))
    return f"checked by iverilog: {last}"


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SIMULATION_LIMIT,
        check=False,
    )


# README.txt


def _readme(program: Program, request: ExportRequest) -> str:
    packed = "Fields have the width of the format."
    if request.pack:
        packed = """--pack: these are fields of 1, 2, 4 or a whole number of 8 bits, and a word is whole bytes;
other memories have one integer in a word of whole bytes."""
    return f"""The integers of {_plain(program.name)}, as memories.

net.vh             widths, fraction bits, shifts, accumulators, saturation, shapes, file names and the rounding mode,
                   as localparams of Verilog
net.json           the steps, in order, with the same numbers
check_memories.v   reads each .mem by $readmemh: iverilog -o check check_memories.v && vvp check
weights/           of each layer: output channels, input channels of its group, kernel height, kernel width (Caffe's
                   C' C K K; inner products: N, C H W; deconvolutions: input channels first); the last axis varies first
biases/            an integer for each output channel, in the unit of the sums: added after the shift by SUM_UP
entries/           tables: channels, then one entry for each integer of the input from its LOW to its HIGH
multipliers/, offsets/   for each channel: x * multiplier + offset
factors/           of the sums of pooling windows, where windows have different sizes
indices/           for each element of the result, that of the input; -1 stands for the fill
input/             for each channel and pixel value (0 to 255) the integer of the net's input; with a mean file the
                   offsets at each position, saturate(FACTOR * pixel + offset)
vectors/           the integers of images at each place: images, channels, height, width

Each array is a .mem file ($readmemh), a .coe file (Xilinx) and a .mif file (Altera) with the same words; vectors are
.mem files only. The comments of a file say what it holds. Numbers are two's complement unless net.vh says SIGNED = 0.
A word of weights and vectors has N integers (--per_line {request.per_line}) or, packed, as many more as fill its last
byte, the first one in the least significant bits. Each output channel (first axis), and each image, begins a new word;
its last word is filled up with zeros. {packed}
"""
