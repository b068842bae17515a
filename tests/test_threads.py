"""The default number of threads: OMP_NUM_THREADS, CPU affinity and CPU quotas, in trees of files made up here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ristretto_cli import threads
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.sources import decoding
from ristretto_cli.threads import usable_cores

EIGHT = range(8)
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Writes files, by their absolute paths; the folder that stands for /."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_without_limits_there_is_a_thread_for_each_cpu_of_the_affinity(tmp_path: Path) -> None:
    assert usable_cores({}, EIGHT, tmp_path) == 8
    assert usable_cores({}, {3, 5}, tmp_path) == 2


def test_two_hardware_threads_of_a_core_are_one(machine: Callable[[dict[str, str]], Path]) -> None:
    siblings = {
        f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 4},{i % 4 + 4}\n" for i in EIGHT
    }
    root = machine(siblings)
    assert usable_cores({}, EIGHT, root) == 4
    assert usable_cores({}, {0, 4}, root) == 1
    assert usable_cores({}, {0, 1, 5}, root) == 2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        (" 3 ", 3),
        ("4,2", 4),
        ("08", 8),
        ("64", 8),  # more threads than cores only get in each other's way
        ("999999999", 8),
        ("9" * 5000, 8),
        ("", 8),
        ("abc", 8),
        ("0", 8),
        ("-2", 8),
        ("2.5", 8),
        (",2", 8),
        ("²", 8),
    ],
)
def test_omp_num_threads_is_a_limit_where_it_is_a_positive_number(tmp_path: Path, text: str, number: int) -> None:
    assert usable_cores({"OMP_NUM_THREADS": text}, EIGHT, tmp_path) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # a part of a core counts as one
        ("10000 100000\n", 1),
        ("30000 10000\n", 3),
        ("300000\n", 3),  # the default period
        ("300000 0\n", 3),
        ("max 100000\n", 8),
        ("", 8),
        ("many 100000\n", 8),
        ("6400000 100000\n", 8),
    ],
)
def test_cpu_max_is_rounded_up(machine: Callable[[dict[str, str]], Path], text: str, number: int) -> None:
    files = {"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": V2, "/sys/fs/cgroup/cpu.max": text}
    assert usable_cores({}, EIGHT, machine(files)) == number


@pytest.mark.parametrize(
    ("quota", "period", "number"),
    [("250000", "100000", 3), ("-1", "100000", 8), ("50000", "100000", 1), ("20000", "", 1), ("400000", "200000", 2)],
)
def test_the_quota_of_version_1_is_rounded_up(
    machine: Callable[[dict[str, str]], Path], quota: str, period: str, number: int
) -> None:
    files = {
        "/proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/\n1:name=systemd:/x\n",
        "/proc/self/mountinfo": V1,
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": quota + "\n",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": period + "\n",
    }
    assert usable_cores({}, EIGHT, machine(files)) == number


@pytest.mark.parametrize(
    ("own", "parent", "top", "number"),
    [("max 100000", "200000 100000", "300000 100000", 2), ("100000 100000", "max 100000", "max 100000", 1)],
)
def test_the_tightest_quota_up_to_the_root_holds(
    machine: Callable[[dict[str, str]], Path], own: str, parent: str, top: str, number: int
) -> None:
    files = {
        "/proc/self/cgroup": "0::/batch/job 7\n",
        "/proc/self/mountinfo": V2,
        "/sys/fs/cgroup/batch/job 7/cpu.max": own,
        "/sys/fs/cgroup/batch/cpu.max": parent,
        "/sys/fs/cgroup/cpu.max": top,
        "/sys/fs/cgroup/other/cpu.max": "1000 100000",
    }
    assert usable_cores({}, EIGHT, machine(files)) == number


def test_nested_cgroups_of_version_1(machine: Callable[[dict[str, str]], Path]) -> None:
    files = {
        "/proc/self/cgroup": "4:cpu,cpuacct:/batch/job\n0::/\n",
        "/proc/self/mountinfo": V1,
        "/sys/fs/cgroup/cpu,cpuacct/batch/job/cpu.cfs_quota_us": "-1",
        "/sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us": "500000",
        "/sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us": "100000",
    }
    assert usable_cores({}, EIGHT, machine(files)) == 5


def test_a_container_sees_its_cgroup_mounted_as_the_root(machine: Callable[[dict[str, str]], Path]) -> None:
    files = {
        "/proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n",
        "/proc/self/mountinfo": "33 31 0:29 /docker/abc /sys/fs/cg\\040roup ro - cgroup cgroup rw,cpu,cpuacct\n",
        "/sys/fs/cg roup/cpu.cfs_quota_us": "300000",
    }
    assert usable_cores({}, EIGHT, machine(files)) == 3


@pytest.mark.parametrize("path", ["/../../elsewhere", "/elsewhere"])
def test_of_a_cgroup_outside_of_what_is_mounted_the_mounted_one_counts(
    machine: Callable[[dict[str, str]], Path], path: str
) -> None:
    mounted = "/" if ".." in path else "/pod"
    files = {
        "/proc/self/cgroup": f"0::{path}\n",
        "/proc/self/mountinfo": f"30 23 0:26 {mounted} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "/sys/fs/cgroup/cpu.max": "200000 100000",
        "/sys/fs/elsewhere/cpu.max": "100000 100000",
        "/elsewhere/cpu.max": "100000 100000",
    }
    assert usable_cores({}, EIGHT, machine(files)) == 2


def test_files_of_another_form_set_no_limit(machine: Callable[[dict[str, str]], Path]) -> None:
    files = {"/proc/self/cgroup": "what\n\n0:\n", "/proc/self/mountinfo": "what\n - \n1 2 - cgroup2\n"}
    assert usable_cores({}, EIGHT, machine(files)) == 8


def test_the_least_of_all_limits_holds(machine: Callable[[dict[str, str]], Path]) -> None:
    files = {"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": V2, "/sys/fs/cgroup/cpu.max": "300000 100000"}
    root = machine(files)
    assert usable_cores({"OMP_NUM_THREADS": "5"}, EIGHT, root) == 3
    assert usable_cores({"OMP_NUM_THREADS": "2"}, EIGHT, root) == 2
    assert usable_cores({"OMP_NUM_THREADS": "5"}, {6}, root) == 1


# --- where threads are made


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that may use three cores."""
    threads.default_threads.cache_clear()
    monkeypatch.setattr(threads, "usable_cores", lambda *_: 3)
    yield
    threads.default_threads.cache_clear()


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(("given", "used"), [(0, 3), (1, 1), (5, 5)])
def test_onnxruntime_gets_the_default_or_the_number_that_is_given(
    monkeypatch: pytest.MonkeyPatch, given: int, used: int
) -> None:
    numbers: list[int] = []
    real = onnxruntime.InferenceSession

    def make(model: bytes, options: onnxruntime.SessionOptions, **settings: object) -> object:
        numbers.append(options.intra_op_num_threads)
        return real(model, options, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    ops = OnnxOps()
    Session(ops.graph, {"y": ops.relu(ops.input("x", (2,)))}, threads=given).run({"x": np.zeros(2, np.float32)})
    assert numbers == [used]


@pytest.mark.usefixtures("three")
def test_torch_gets_the_default_or_the_number_that_is_given() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")
    from ristretto_cli.train.torch_import import use_threads

    before = torch.get_num_threads()
    try:
        use_threads(0)
        assert torch.get_num_threads() == 3
        use_threads(2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("three")
def test_images_are_decoded_by_the_default_number_of_threads() -> None:
    assert decoding.decoding_threads() == 3


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("abc", None)])
def test_the_environment_reaches_a_process_of_its_own(text: str, number: int | None) -> None:
    code = (
        "from ristretto_cli.libraries import cv2; from ristretto_cli.threads import default_threads;"
        "print(default_threads(), cv2.getNumThreads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": text},
        capture_output=True,
        text=True,
        check=True,
    )
    default, of_opencv = map(int, done.stdout.split())
    assert default == of_opencv >= 1
    assert number in (None, default)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
def test_a_process_on_one_cpu_has_one_thread() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from ristretto_cli.threads import default_threads; print(default_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
