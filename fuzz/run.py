"""Fuzzes the readers for a bounded time: `python fuzz/run.py --seconds 60 [TARGET ...]`.

With atheris, inputs are led by what they reach; where there is no wheel of it, hypothesis drives the same mutations. A
finding is anything but RistrettoError, more than 2 seconds, or 500 MB, for an input of some kilobytes. Findings
go to build/fuzz/TARGET/, each with its traceback; the exit code tells whether there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOUND = HERE.parent / "build" / "fuzz"
MAX_SECONDS, MAX_BYTES = 2.0, 500e6
MAX_INPUT = 1 << 16
HANGS_AFTER = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=("atheris", "hypothesis"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    engine = flags.engine or ("atheris" if _has_atheris() else "hypothesis")
    if flags.child:
        _fuzz(flags.targets[0], engine, flags.seconds, flags.seed)
        return 0
    findings = 0
    for name in flags.targets or _names():
        findings += _run_child(name, engine, flags.seconds, flags.seed)
    return 1 if findings else 0


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def _names() -> list[str]:
    sys.path.insert(0, str(HERE))
    from targets import TARGETS

    return list(TARGETS)


def _run_child(name: str, engine: str, seconds: int, seed: int) -> int:
    """Fuzz one target in a process of its own, which native code may bring down; how many findings it left."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("finding-*"))
    last = _Last(folder)
    last.clear()
    started = time.monotonic()
    left = float(seconds)
    while left >= 1:
        settings = ["--child", f"--engine={engine}", f"--seconds={int(left)}", f"--seed={seed}"]
        command = [sys.executable, __file__, *settings, name]
        with tempfile.TemporaryDirectory(prefix="fuzz-") as work, (folder / "log").open("w") as log:
            done = subprocess.run(command, cwd=work, stdout=log, stderr=log, check=False)
        if done.returncode == 0:
            break
        seed, left = seed + 1, seconds - (time.monotonic() - started)
        _keep(folder, last.input, f"the process ended with {done.returncode}; see {folder / 'log'}")
        (folder / "log").rename(folder / f"log-{seed}")
    found = sorted(path.name for path in set(folder.glob("finding-*")) - before if path.suffix != ".txt")
    took = time.monotonic() - started
    print(f"{name:12} {last.count:9} inputs by {engine} in {took:.0f} s, {len(found)} findings", *found, flush=True)  # noqa: T201
    return len(found)


def _keep(folder: Path, data: bytes, what: str) -> None:
    path = folder / f"finding-crash-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(what)


class _Last:
    """How many inputs there have been, and the present one, in a file that outlives the process."""

    def __init__(self, folder: Path) -> None:
        path = folder / "last"
        if not path.exists() or path.stat().st_size != MAX_INPUT + 16:
            path.write_bytes(bytes(MAX_INPUT + 16))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    @property
    def count(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    @property
    def input(self) -> bytes:
        return bytes(self._memory[16 : 16 + int.from_bytes(self._memory[8:16], "little")])

    def set(self, data: bytes) -> None:
        self._memory[:16] = (self.count + 1).to_bytes(8, "little") + len(data).to_bytes(8, "little")
        self._memory[16 : 16 + len(data)] = data

    def clear(self) -> None:
        self._memory[:16] = bytes(16)


# --- in the child


def _fuzz(name: str, engine: str, seconds: int, seed: int) -> None:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    sys.path.insert(0, str(HERE))
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["ristretto_cli"]):
            from targets import TARGETS
    else:
        from targets import TARGETS
    import logging

    from mutate import mutate

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    target = TARGETS[name]
    seeds = [data for data in target.seeds() if len(data) <= MAX_INPUT]
    if not seeds:
        return  # they are recorded cases, which are not there
    one = _Judge(name, target.run)
    for data in seeds:
        one(data)
    _limit_memory()
    if engine == "atheris":
        _by_atheris(one, seeds, lambda data, rng: mutate(data, seeds, rng, text=target.text), seconds, seed)
    else:
        _by_hypothesis(one, seeds, lambda data, rng: mutate(data, seeds, rng, text=target.text), seconds, seed)


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + int(4e9), -1))


class _Judge:
    """Runs a target on one input after the other, and keeps those that are findings, once for each place."""

    def __init__(self, name: str, run: Callable[[bytes], None]) -> None:
        from ristretto_cli.errors import RistrettoError

        self._expected = RistrettoError
        self._run = run
        self._folder = FOUND / name
        self._seen = {path.name.split("-")[1] for path in self._folder.glob("finding-*")}
        self._last = _Last(self._folder)

    def __call__(self, data: bytes) -> None:
        data = data[:MAX_INPUT]
        self._last.set(data)
        before, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            self._run(data)
        except self._expected as error:
            str(error).encode("utf-8", "backslashreplace")
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = [f"{frame.filename}:{frame.lineno}" for frame in frames if "ristretto_cli" in frame.filename]
            self._keep(data, f"{type(error).__name__}{place[-1:]}", traceback.format_exc())
        seconds = time.perf_counter() - before
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
        if seconds > MAX_SECONDS:
            self._keep(data, "slow", f"{seconds:.1f} seconds")
        if grown > MAX_BYTES:
            self._keep(data, "large", f"{grown / 1e6:.0f} MB")

    def _keep(self, data: bytes, place: str, what: str) -> None:
        kind = hashlib.sha256(place.encode()).hexdigest()[:8] if place not in ("slow", "large") else place
        if kind in self._seen:
            return
        self._seen.add(kind)
        path = self._folder / f"finding-{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"{place}\n{what}")


Mutate = Callable[[bytes, random.Random], bytes]


def _by_atheris(one: _Judge, seeds: list[bytes], change: Mutate, seconds: int, seed: int) -> None:
    import atheris

    def custom(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.2:
            return bytes(atheris.Mutate(data, most))
        return change(data if data else rng.choice(seeds), rng)[:most]

    corpus = Path("corpus")
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)
    settings = [
        *(f"-max_total_time={seconds}", f"-timeout={HANGS_AFTER}", f"-seed={seed}", f"-max_len={MAX_INPUT}"),
        *("-rss_limit_mb=0", "-print_final_stats=1", "-artifact_prefix=./"),
    ]
    atheris.Setup([sys.argv[0], *settings, str(corpus)], one, custom_mutator=custom)
    atheris.Fuzz()


def _by_hypothesis(one: _Judge, seeds: list[bytes], change: Mutate, seconds: int, seed: int) -> None:
    import faulthandler

    import hypothesis
    from hypothesis import strategies as st

    until = time.monotonic() + seconds
    checks = list(hypothesis.HealthCheck)
    settings: Any = hypothesis.settings(max_examples=1000, deadline=None, database=None, suppress_health_check=checks)
    while time.monotonic() < until:
        seed += 1

        @hypothesis.seed(seed)
        @settings
        @hypothesis.given(st.sampled_from(seeds), st.integers(0, 2**32))
        def examples(data: bytes, number: int) -> None:
            if time.monotonic() < until:
                faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
                one(change(data, random.Random(number)))

        examples()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    sys.exit(main())
