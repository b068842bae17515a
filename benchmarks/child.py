"""A command of ristretto in a process of its own, which then writes down its peak memory.

python -m benchmarks.child FILE COMMAND ...
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's peak begins with that of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(file: str, *args: str) -> int:
    """Run a command, write what it cost to the file, and return its exit code."""
    from ristretto_cli.cli.main import run

    code = run(args)
    Path(file).write_text(json.dumps({"peak_bytes": peak_bytes()}))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
