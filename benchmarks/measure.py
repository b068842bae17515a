"""Everything that is measured of one net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.commands import search
from benchmarks.modes import MODES_TIMED, Trimmer
from benchmarks.nets import Benchmark, Prepared, prepare
from benchmarks.once import ONCE, Once, OnceRow
from benchmarks.passes import Times, onnxruntime_pass, own_pass, take_turns, write_onnx
from benchmarks.static_qdq import write_static_qdq
from ristretto_cli.scoring.data_loader import DataLoader

STATIC_QDQ = "onnxruntime static QDQ"
COMMANDS = {
    "quantize fixed point": "dynamic_fixed_point",
    "quantize minifloat": "minifloat",
    "quantize power of two": "integer_power_of_2_weights",
}
_BESIDE_STATIC_QDQ = "8/8 bit"
_CALIBRATION_BATCHES = 3


@dataclass(frozen=True)
class PassRow:
    """One kind of pass. The ratios are to the float pass of the same rounds, of medians and of least times."""

    net: str
    row: str
    threads: int
    batch: int
    ms: float
    float_ms: float
    ratio: float
    least_ratio: float
    images_per_second: float


@dataclass(frozen=True)
class CommandRow:
    """One whole command. ratio: its time over that of as many float passes as it needs for its nets and images."""

    net: str
    row: str
    threads: int
    images: int
    nets: int
    seconds: float
    ratio: float
    images_per_second: float
    peak_mb: float


@dataclass(frozen=True)
class Found:
    """What a step measured, and a line about it."""

    told: str
    passes: list[PassRow] = field(default_factory=list)
    commands: list[CommandRow] = field(default_factory=list)
    once: list[OnceRow] = field(default_factory=list)


def measure(
    name: str,
    benchmark: Benchmark,
    folder: Path,
    *,
    rows: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    images: int | None = None,
) -> Iterator[Found]:
    """The rows that are asked for, in their order. folder: an empty one, for the files; images: of a search."""
    if images is not None:
        benchmark = replace(benchmark, images=max(1, images // benchmark.batch) * benchmark.batch)
    if set(rows) - set(ONCE):
        yield from _searches_and_passes(name, benchmark, folder, rows=rows, threads=threads, rounds=rounds)
    if set(rows) & set(ONCE):
        yield from _once(name, benchmark, folder, rows=rows, threads=threads, rounds=rounds)


def _once(
    name: str, benchmark: Benchmark, folder: Path, *, rows: Sequence[str], threads: Sequence[int], rounds: int
) -> Iterator[Found]:
    once = Once(name, benchmark, folder, rounds)
    yield Found(f"{name}: {'real' if once.real_images else 'made-up'} images to quantize once with")
    for count in threads:
        found = once.rows(rows, count)
        told = [f"{name}, {row.row}: {row.seconds:.1f} s, {row.peak_mb:.0f} MB, {row.score:.4f}" for row in found]
        yield Found("\n".join(told), once=found)


def _searches_and_passes(
    name: str, benchmark: Benchmark, folder: Path, *, rows: Sequence[str], threads: Sequence[int], rounds: int
) -> Iterator[Found]:
    prepared = prepare(benchmark, folder / "files")
    yield Found(f"{name}: {'made-up' if prepared.made_up else 'trained'} weights, batches of {prepared.batch}")
    timer = _Timer(name, prepared, folder, rounds)
    modes = [row for row in rows if row in MODES_TIMED]
    with_static = STATIC_QDQ in rows
    for count in threads:
        for row in modes:
            found = timer.passes([row, STATIC_QDQ] if with_static and row == _BESIDE_STATIC_QDQ else [row], count)
            yield Found("\n".join(map(_told, found)) or f"{name}, {row}: too few bits for its ranges", passes=found)
        if with_static and _BESIDE_STATIC_QDQ not in modes:
            found = timer.passes([STATIC_QDQ], count)
            yield Found("\n".join(map(_told, found)), passes=found)
        for row in rows:
            if row in COMMANDS:
                command = timer.command(row, count)
                told = f"{name}, {row}, {command.nets} nets: {command.seconds:.1f} s, {command.ratio:.2f}"
                yield Found(told, commands=[command])


def _told(row: PassRow) -> str:
    threads = row.threads or "all"
    return f"{row.net}, {row.row}, threads {threads}: {row.ms:.1f} ms, {row.ratio:.2f} of the float pass"


class _Timer:
    def __init__(self, name: str, prepared: Prepared, folder: Path, rounds: int) -> None:
        self._name = name
        self._prepared = prepared
        self._folder = folder
        self._rounds = rounds
        self._trimmer = Trimmer(prepared.model, prepared.weights)
        with DataLoader(self._trimmer.float_net) as feeds:
            self._batches = [feeds.next() for _ in range(_CALIBRATION_BATCHES)]
        self._float = folder / "float.onnx"
        write_onnx(self._trimmer.float_net, self._float)

    def passes(self, rows: Sequence[str], threads: int) -> list[PassRow]:
        """These kinds of passes, in turns with the float pass; modes that the net cannot be trimmed in are left out."""
        batch = self._batches[0]
        passes = {"float": onnxruntime_pass(self._float, batch, threads)}
        for row in rows:
            if row == STATIC_QDQ:
                passes[row] = onnxruntime_pass(self._static_qdq(), batch, threads)
            elif (net := self._trimmer.net(MODES_TIMED[row])) is not None:
                passes[row] = own_pass(net, batch, threads)
        times = take_turns(passes, self._rounds) if len(passes) > 1 else {}
        return [self._row(kind, threads, times[kind], times["float"]) for kind in times if kind != "float"]

    def command(self, row: str, threads: int) -> CommandRow:
        """The row of a whole search."""
        batch = self._batches[0]
        before = take_turns({"float": onnxruntime_pass(self._float, batch, threads)}, self._rounds)["float"]
        cost = search(self._prepared, COMMANDS[row], self._folder, threads)
        after = take_turns({"float": onnxruntime_pass(self._float, batch, threads)}, self._rounds)["float"]
        passes = cost.nets * (self._prepared.images // self._prepared.batch)
        float_pass = Times((*before.seconds, *after.seconds)).median
        return CommandRow(
            net=self._name,
            row=row,
            threads=threads,
            images=self._prepared.images,
            nets=cost.nets,
            seconds=cost.seconds,
            ratio=cost.seconds / (passes * float_pass),
            images_per_second=cost.nets * self._prepared.images / cost.seconds,
            peak_mb=cost.peak_bytes / 1e6,
        )

    def _static_qdq(self) -> Path:
        path = self._folder / "static_qdq.onnx"
        if not path.exists():
            write_static_qdq(self._trimmer.float_net, self._float, self._batches, path)
        return path

    def _row(self, row: str, threads: int, times: Times, beside: Times) -> PassRow:
        ratio, least_ratio = times.over(beside)
        return PassRow(
            net=self._name,
            row=row,
            threads=threads,
            batch=self._prepared.batch,
            ms=times.median * 1e3,
            float_ms=beside.median * 1e3,
            ratio=ratio,
            least_ratio=least_ratio,
            images_per_second=self._prepared.batch / times.median,
        )
