"""A net quantized once to 8 bits, by ristretto and by onnxruntime's quantize_static: whole processes, and their scores.

Both measure ranges on the same images and run on the same CPUs: the processes are pinned to as many as there are to be
threads, since quantize_static has no setting for threads. quantize_static is given images that are ready to be fed,
and a float ONNX file; ristretto reads a database, a prototxt and a caffemodel.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from json import loads
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.nets import Benchmark, Prepared, prepare, prepare_real
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_session import FATAL_ONLY
from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.net.build import NetState
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import record
from ristretto_cli.scoring.net_files import load_net

CALIBRATION_BATCHES = 10

SCORED, UNSCORED = "once", "once --noscore"
STATIC, STATIC_BY_ONE = "once quantize_static", "once quantize_static by single images"
ONCE = [SCORED, UNSCORED, STATIC, STATIC_BY_ONE]

_ROOT = Path(__file__).resolve().parents[1]
_WIDTHS = "--bw=conv_params=8,fc_params=8,layer=8"
_EXACT = ("session.x64quantprecision", "1")


@dataclass(frozen=True)
class OnceRow:
    """What quantizing once took, medians of the rounds, and how good the result is.

    images: as many as ranges were measured on. cpu_seconds: user and system time of all threads. score: the accuracy on
    the scored images, of an ONNX file as onnxruntime runs it by default; exact_score: with session.x64quantprecision,
    without which some x86 processors saturate sums; None for ristretto's nets, whose sums are exact.
    """

    net: str
    row: str
    threads: int
    images: int
    scored: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    score: float
    exact_score: float | None


@dataclass(frozen=True)
class _Cost:
    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Once:
    """The files of one net, and its rows. folder: an empty one."""

    def __init__(self, name: str, benchmark: Benchmark, folder: Path, rounds: int) -> None:
        self._name = name
        self._folder = folder
        self._rounds = rounds
        calibration = CALIBRATION_BATCHES * benchmark.batch
        real = prepare_real(benchmark, calibration, folder / "once")
        self.real_images = real is not None
        self._prepared = real or prepare(
            replace(benchmark, images=max(benchmark.images, calibration)),
            folder / "once",
            train_batches=CALIBRATION_BATCHES,
        )
        self._images = calibration
        nets = {phase: _load(self._prepared, phase) for phase in (TRAIN, TEST)}
        self._logits = next(layer.bottoms[0].name for layer in nets[TEST].layers if layer.type == "Accuracy")
        self._data, self._label = (
            top.name for top in next(each for each in nets[TEST].layers if each.is_source).tops[:2]
        )
        # The training data with the seed that `quantize` reads them with: the same random crops.
        np.save(folder / "calibration.npy", _read(nets[TRAIN], CALIBRATION_BATCHES)[self._data])
        self._test = _read(nets[TEST], self._prepared.images // self._prepared.batch)
        self._write_onnx(nets[TEST], folder / f"float_{self._prepared.batch}.onnx")

    def rows(self, wanted: Sequence[str], threads: int) -> list[OnceRow]:
        """These rows, timed in turns; a first round of each is not counted. threads: 0 for one per core."""
        runs: dict[str, Callable[[], Path]] = {}
        runs.update({row: self._ristretto(row, threads) for row in (SCORED, UNSCORED) if row in wanted})
        batches = {STATIC: self._prepared.batch, STATIC_BY_ONE: 1}
        runs.update({row: self._quantize_static(batch) for row, batch in batches.items() if row in wanted})
        costs: dict[str, list[_Cost]] = {row: [] for row in runs}
        results: dict[str, Path] = {}
        with _pinned(threads):
            for number in range(self._rounds + 1):
                for row, run in runs.items():
                    cost, results[row] = _measured(run, self._folder / "cost.json")
                    if number > 0:
                        costs[row].append(cost)
        return [self._row(row, threads, costs[row], results[row]) for row in runs]

    def _row(self, row: str, threads: int, costs: Sequence[_Cost], result: Path) -> OnceRow:
        is_onnx = result.suffix == ".onnx"
        return OnceRow(
            net=self._name,
            row=row,
            threads=threads,
            images=self._images,
            scored=self._prepared.images,
            seconds=statistics.median(cost.seconds for cost in costs),
            cpu_seconds=statistics.median(cost.cpu_seconds for cost in costs),
            peak_mb=statistics.median(cost.peak_bytes for cost in costs) / 1e6,
            score=self._score_onnx(result) if is_onnx else self._score_net(result),
            exact_score=self._score_onnx(result, _EXACT) if is_onnx else None,
        )

    def _ristretto(self, row: str, threads: int) -> Callable[[], Path]:
        target = self._folder / "quantized.prototxt"
        command = [
            *("benchmarks.child", str(self._folder / "cost.json"), "quantize", _WIDTHS),
            f"--model={self._prepared.model}",
            f"--weights={self._prepared.weights}",
            "--trimming_mode=dynamic_fixed_point",
            f"--calibration_iterations={CALIBRATION_BATCHES}",
            f"--model_quantized={target}",
            f"--threads={threads}",
        ]
        command += ["--noscore"] if row == UNSCORED else [f"--iterations={self._batches_scored}"]
        return lambda: _run(command, target)

    def _quantize_static(self, batch: int) -> Callable[[], Path]:
        model, target = self._folder / f"float_{batch}.onnx", self._folder / f"static_{batch}.onnx"
        if not model.exists():
            self._write_onnx(self._with_batch(batch), model)
        images = self._folder / "calibration.npy"
        cost = self._folder / "cost.json"
        command = ["benchmarks.quantize_static", str(cost), str(model), str(images), str(batch), str(target)]
        return lambda: _run(command, target)

    @property
    def _batches_scored(self) -> int:
        return self._prepared.images // self._prepared.batch

    def _with_batch(self, batch: int) -> Net:
        text = (
            Path(self._prepared.model)
            .read_text()
            .replace(f"batch_size: {self._prepared.batch}", f"batch_size: {batch}")
        )
        model = self._folder / f"batch_{batch}.prototxt"
        model.write_text(text)
        return _load(replace(self._prepared, model=str(model)), TEST)

    def _write_onnx(self, net: Net, path: Path) -> None:
        """The net up to its class scores, as `ristretto export` would write it."""
        ops, run = record(net, rng=np.random.default_rng(0))
        lowered = lower(ops.graph, {self._logits: run.final[self._logits]})
        onnx.save(lowered.model(embed_weights=True), path)

    def _score_net(self, result: Path) -> float:
        flags = [f"--model={result}", f"--weights={self._prepared.weights}", f"--iterations={self._batches_scored}"]
        done = subprocess.run(
            [sys.executable, "-m", "ristretto_cli", "test", *flags],
            capture_output=True,
            text=True,
            cwd=_ROOT,
            check=True,
        )
        found = re.search(r"^accuracy\w* = (\S+)", done.stdout, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"ristretto test told no accuracy:\n{done.stdout}")
        return float(found[1])

    def _score_onnx(self, result: Path, *entries: tuple[str, str]) -> float:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        for key, value in entries:
            options.add_session_config_entry(key, value)
        session: Any = onnxruntime.InferenceSession(str(result), options, providers=["CPUExecutionProvider"])
        (fed,) = session.get_inputs()
        images, labels = self._test[self._data], self._test[self._label].ravel()
        right = 0
        for i in range(0, len(images), fed.shape[0]):
            (scores,) = session.run(None, {fed.name: images[i : i + fed.shape[0]]})
            right += int((scores.reshape(len(scores), -1).argmax(1) == labels[i : i + len(scores)]).sum())
        return right / len(images)


def _load(prepared: Prepared, phase: int) -> Net:
    return load_net(prepared.model, prepared.weights, NetState(phase), rng=np.random.default_rng(0))


def _read(net: Net, batches: int) -> Mapping[str, Any]:
    with DataLoader(net) as feeds:
        read = [feeds.next() for _ in range(batches)]
    return {name: np.concatenate([batch[name] for batch in read]) for name in read[0]}


def _run(command: Sequence[str], target: Path) -> Path:
    """Run a module of these words in a process of its own; RuntimeError with what it said where it fails."""
    # As installed packages have them: modules compiled once, not in each process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**environment, "GLOG_minloglevel": "2"},
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr}")
    return target


def _measured(run: Callable[[], Path], cost: Path) -> tuple[_Cost, Path]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = run()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Cost(seconds, cpu_seconds, loads(cost.read_text())["peak_bytes"]), result


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """Keep this process, and those that it starts, on as many CPUs as there are to be threads, where Linux can."""
    if threads == 0 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
