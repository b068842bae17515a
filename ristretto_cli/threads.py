"""The default number of threads: one per core that this process may use."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_PERIOD_US = 100_000  # the kernel's default
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


@cache
def default_threads() -> int:
    """The default number of threads for this process, at least 1; determined once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return usable_cores(os.environ, allowed, _ROOT)


def usable_cores(environ: Mapping[str, str], allowed: Collection[int], root: Path) -> int:
    """The minimum of OMP_NUM_THREADS, the cores of the CPU affinity and the cgroups' quotas, at least 1.

    allowed: the CPUs that the process may run on. root: the folder that holds `proc` and `sys`; files
    missing there set no limit, and neither does a value of OMP_NUM_THREADS that is not a positive number.
    """
    limits = [_cores(allowed, root), *_quotas(root)]
    requested = _omp_num_threads(environ.get("OMP_NUM_THREADS", ""))
    if requested is not None:
        limits.append(requested)
    return max(1, min(limits))


def _omp_num_threads(text: str) -> int | None:
    """The first number of the list, for the outermost level of nesting; None if it is unusable."""
    first = text.split(",")[0].strip()
    return int(first) or None if _WHOLE_NUMBER.fullmatch(first) else None


def _cores(allowed: Collection[int], root: Path) -> int:
    """The number of cores of these CPUs: hardware threads of one core count once."""
    # A second thread on the same core makes matrix products slower, not faster.
    topology = root / "sys/devices/system/cpu"
    return len({_read(topology / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed})


def _quotas(root: Path) -> Iterator[int]:
    """The CPU quotas that apply to this process, in whole cores: those of its cgroups and of their ancestors."""
    mounts = list(_cgroup_mounts(root))
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = "2" if not controllers else "1" if "cpu" in controllers.split(",") else None
        for mounted_version, mounted_path, mount_point in mounts:
            if mounted_version == version:
                for folder in _up_to_mount_point(root, path, mounted_path, mount_point):
                    quota = _quota_of_v2(folder) if version == "2" else _quota_of_v1(folder)
                    if quota is not None:
                        yield quota


def _cgroup_mounts(root: Path) -> Iterator[tuple[str, str, str]]:
    """Each mounted hierarchy of cgroups that can limit the CPU: version, path of the mounted cgroup, mount point."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, file_system = line.partition(" - ")
        fields, kind = mount.split(), file_system.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            yield "2", _unescaped(fields[3]), _unescaped(fields[4])
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            yield "1", _unescaped(fields[3]), _unescaped(fields[4])


def _up_to_mount_point(root: Path, path: str, mounted_path: str, mount_point: str) -> Iterator[Path]:
    """The folders of a cgroup and of its ancestors, as far as they are mounted."""
    top = root / mount_point.lstrip("/")
    try:
        below = PurePosixPath(path).relative_to(mounted_path)
    except ValueError:
        below = PurePosixPath()
    if ".." in below.parts:
        below = PurePosixPath()  # the cgroup lies outside the cgroup namespace: only the root is visible
    folder = top / below
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _quota_of_v2(folder: Path) -> int | None:
    """The quota in `cpu.max`, `QUOTA PERIOD` in microseconds, in whole cores; None for `max`."""
    words = _read(folder / "cpu.max").split()
    return _whole_cores(words[0], words[1] if len(words) > 1 else "") if words else None


def _quota_of_v1(folder: Path) -> int | None:
    """The quota in `cpu.cfs_quota_us`, in whole cores; None for -1."""
    return _whole_cores(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _whole_cores(quota: str, period: str) -> int | None:
    if not _WHOLE_NUMBER.fullmatch(quota):
        return None
    periods = int(period) if _WHOLE_NUMBER.fullmatch(period) else 0
    return -(-int(quota) // (periods or _PERIOD_US))


def _read(path: Path) -> str:
    """A file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _unescaped(field: str) -> str:
    """A field of mountinfo, where whitespace is escaped in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
