"""Tells at the end of a run how many of the recorded cases passed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

_COUNTED = ("test_golden.py", "test_io_golden.py", "test_golden_torch.py", "test_golden_gradients.py")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            group = _group(report)
            if group:
                counts.setdefault(group, Counter())[outcome] += 1
    for group, counted in sorted(counts.items()):
        recorded = ", ".join(f"{number} {outcome}" for outcome, number in counted.items())
        terminalreporter.write_line(f"recorded cases, {group}: {recorded}")


def _group(report: pytest.TestReport) -> str:
    path, _, name = report.nodeid.partition("[")
    counted = path.partition("::")[0].endswith(_COUNTED)
    return name.partition("/")[0] if counted and "/" in name else ""
