"""Whether the machine is there for the benchmark alone."""

from __future__ import annotations

import os

_QUIET = 0.3  # the load average up to which nothing else counts as running


def busy() -> str:
    """A line where something else is running, by the load average of the last minute; else empty."""
    if not hasattr(os, "getloadavg"):
        return ""
    load = os.getloadavg()[0]
    if load <= _QUIET:
        return ""
    return f"Load average {load:.2f} of {os.cpu_count()} cores at the start: other work disturbs these figures."
