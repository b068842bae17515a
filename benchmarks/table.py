"""What was measured, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import CommandRow, PassRow
from benchmarks.once import OnceRow


def pass_table(rows: Sequence[PassRow]) -> str:
    """A line for each kind of pass; empty without any."""
    return _table(
        ["net", "pass", "threads", "batch", "float, ms", "ms", "ratio, median", "ratio, least", "images/s"],
        [
            [
                row.net,
                row.row,
                _threads(row.threads),
                str(row.batch),
                f"{row.float_ms:.1f}",
                f"{row.ms:.1f}",
                f"{row.ratio:.2f}",
                f"{row.least_ratio:.2f}",
                f"{row.images_per_second:.0f}",
            ]
            for row in rows
        ],
    )


def command_table(rows: Sequence[CommandRow]) -> str:
    """A line for each command; empty without any."""
    return _table(
        ["net", "command", "threads", "images", "nets", "s", "s / float passes", "images/s", "peak memory, MB"],
        [
            [
                row.net,
                row.row,
                _threads(row.threads),
                str(row.images),
                str(row.nets),
                f"{row.seconds:.1f}",
                f"{row.ratio:.2f}",
                f"{row.images_per_second:.0f}",
                f"{row.peak_mb:.0f}",
            ]
            for row in rows
        ],
    )


def once_table(rows: Sequence[OnceRow]) -> str:
    """A line for each way to quantize a net once; empty without any."""
    return _table(
        ["net", "quantized", "threads", "images", "s", "CPU s", "peak memory, MB", "scored on", "score", "exact sums"],
        [
            [
                row.net,
                row.row,
                _threads(row.threads),
                str(row.images),
                f"{row.seconds:.1f}",
                f"{row.cpu_seconds:.1f}",
                f"{row.peak_mb:.0f}",
                str(row.scored),
                f"{row.score:.4f}",
                "same" if row.exact_score is None else f"{row.exact_score:.4f}",
            ]
            for row in rows
        ],
    )


def _threads(count: int) -> str:
    return str(count) if count else "all"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    numbers = [all(row[i].replace(".", "").isdigit() for row in rows) for i in range(len(head))]
    lines = [head, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
