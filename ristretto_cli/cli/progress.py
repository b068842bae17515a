"""A progress bar with the remaining time, below the log lines; shown only if stderr is a terminal.

    with progress("quantize") as p:
        search(net, ..., on_batch=p.on_batch)

Lower layers of the package see it as a `Callable[[int, int, str], None]`, called after each batch:
`on_batch(done, total, item)`, done counting from 1 to total; a different `item` or a smaller `done` starts
another bar. A command that counts itself calls `p.start(item, total)` and `p.advance(n)`.

While a bar is shown, output to sys.stderr (the log) appears above it. stdout is not redirected: print
results after the `with` block.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ristretto_cli.caffe_io.temporary import undone_at_termination

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress:
    """Receives progress; this base class shows nothing."""

    def __init__(self) -> None:
        self._current: tuple[str, int] | None = None
        self._done = 0

    def start(self, item: str, total: int) -> None:
        """Start counting to total; the previous bar is removed."""
        self._current, self._done = (item, total), 0
        self._begin(item, total)

    def advance(self, n: int = 1) -> None:
        """Count n more."""
        self._done += n
        self._show(self._done)

    def on_batch(self, done: int, total: int, item: str) -> None:
        """Report that `done` of `total` are complete."""
        if self._current != (item, total) or done < self._done:
            self.start(item, total)
        self.advance(done - self._done)

    def _begin(self, item: str, total: int) -> None: ...

    def _show(self, done: int) -> None: ...


class _Bar(Progress):
    """One bar on the terminal."""

    def __init__(self, rich: RichProgress, label: str) -> None:
        super().__init__()
        self._rich = rich
        self._label = label
        self._task: TaskID | None = None

    def _begin(self, item: str, total: int) -> None:
        if self._task is not None:
            self._rich.remove_task(self._task)
        self._task = self._rich.add_task(f"{self._label}: {item}", total=total)

    def _show(self, done: int) -> None:
        if self._task is not None:
            self._rich.update(self._task, completed=done)


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """A Progress for the duration of a command; label (the command) is shown before the counted item."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        # Long log lines are wrapped by the terminal, so that they can be copied as one line.
        console=Console(stderr=True, soft_wrap=True),
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,  # redirection would send the result to stderr
        redirect_stderr=True,
    )
    with bar as rich, undone_at_termination(bar.stop):  # the bar hides the cursor until it is stopped
        yield _Bar(rich, label)
