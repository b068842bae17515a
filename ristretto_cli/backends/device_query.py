"""What is known of the GPUs of this machine, by NVIDIA's driver."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

_PROPERTIES = {
    "name": "Name",
    "compute_cap": "Compute capability",
    "memory.total": "Total global memory",
    "memory.used": "Used global memory",
    "driver_version": "Driver",
}
_SECONDS = 30


def gpu_properties() -> Mapping[int, Mapping[str, str]]:
    """The properties of each GPU, in words, by its number; empty if nvidia-smi is missing or finds none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = ",".join(["index", *_PROPERTIES])
    try:
        done = subprocess.run(
            [program, f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for line in done.stdout.splitlines():
        number, *values = (value.strip() for value in line.split(","))
        if number.isdigit() and len(values) == len(_PROPERTIES):
            found[int(number)] = dict(zip(_PROPERTIES.values(), values, strict=True))
    return found
