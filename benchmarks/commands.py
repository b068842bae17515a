"""Whole `ristretto quantize` commands: their time and their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.nets import Prepared

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Search:
    """What a search cost. nets: as many as were scored, the float one with them."""

    seconds: float
    peak_bytes: int
    nets: int


def search(prepared: Prepared, trimming_mode: str, folder: Path, threads: int) -> Search:
    """Run the command in a process of its own. RuntimeError with what it said where it fails."""
    found, cost = folder / "found.json", folder / "cost.json"
    args = {
        "model": prepared.model,
        "weights": prepared.weights,
        "trimming_mode": trimming_mode,
        "iterations": prepared.images // prepared.batch,
        "model_quantized": folder / "quantized.prototxt",
        "json": found,
        "threads": threads,
    }
    command = [sys.executable, "-m", "benchmarks.child", str(cost), "quantize"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *(f"--{name}={value}" for name, value in args.items())],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "GLOG_minloglevel": "2"},
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"ristretto quantize failed:\n{done.stderr}")
    return Search(seconds, json.loads(cost.read_text())["peak_bytes"], scored_nets(json.loads(found.read_text())))


def scored_nets(found: dict[str, object]) -> int:
    """How many nets a command's JSON tells of: the float one, each trial, and the combined one."""
    groups = found["groups"]
    trials = sum(len(group["trials"]) for group in groups) if isinstance(groups, list) else 0
    return 1 + trials + (found["combined"] is not None)
