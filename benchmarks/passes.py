"""Single passes on one batch: the float net on onnxruntime alone, and what is compared with it, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_session import FATAL_ONLY
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array
from ristretto_cli.scoring.engine import compile_net, record
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.threads import default_threads

Pass = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """How long one kind of pass took, each round's seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return median(self.seconds)

    def over(self, other: Times) -> tuple[float, float]:
        """This divided by another: medians, and least times."""
        return self.median / other.median, min(self.seconds) / min(other.seconds)


def take_turns(passes: Mapping[str, Pass], rounds: int) -> dict[str, Times]:
    """Time each pass once a round, one after the other, so that all meet the same machine; one round before is free."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if number > 0:
                taken[name].append(time.perf_counter() - start)
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def write_onnx(net: Net, path: Path) -> None:
    """The net, as `ristretto export --format onnx` writes it."""
    ops, run = record(net, rng=np.random.default_rng(0))
    lowered = lower(ops.graph, {blob.name: run.final[blob.name] for blob in net.outputs})
    onnx.save(lowered.model(embed_weights=True), path)


def onnxruntime_pass(model: Path, batch: Mapping[str, Array], threads: int) -> Pass:
    """A pass of an ONNX file on onnxruntime as anybody would run it. threads: 0 for one per core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.log_severity_level = FATAL_ONLY
    session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = {value.name: batch[value.name] for value in session.get_inputs()}
    return lambda: session.run(None, feeds)


def own_pass(net: Net, batch: Mapping[str, Array], threads: int) -> Pass:
    """A pass as scoring runs it."""
    session = compile_net(
        net,
        lambda run, ops: {blob.name: run.final[blob.name] for blob in net.outputs},
        rng=np.random.default_rng(0),
        execution=Execution(threads=threads),
    )
    return lambda: session.run(batch)
