"""Reads onnxruntime's profile of a session: which kernels ran, for which nodes of the graph, and for how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from ristretto_cli.backends.onnx_model import NodeProto

_KERNEL = "_kernel_time"  # what follows the node's name in the name of an event


@dataclass(frozen=True)
class Kernel:
    """A node as onnxruntime ran it. name, op: onnxruntime's own, which are not always those of a node of the graph."""

    name: str
    op: str
    microseconds: float  # over all runs of the session but the first


class Profiler:
    """Profiles the sessions that it is given to. Use it as a context manager: the profiles are temporary files."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="ristretto-profile-")
        self._sessions: list[tuple[Any, Sequence[NodeProto]]] = []

    @property
    def nodes(self) -> int:
        """The nodes of all sessions."""
        return sum(len(nodes) for _, nodes in self._sessions)

    def prepare(self, options: Any) -> None:
        """Set onnxruntime's options for a session that is to be made."""
        options.enable_profiling = True
        # onnxruntime adds the time of day, which two sessions may share.
        options.profile_file_prefix = str(Path(self._folder.name) / f"session{len(self._sessions)}")

    def add(self, session: Any, nodes: Sequence[NodeProto]) -> None:
        """A session of onnxruntime that was made with these options, and the nodes of its model."""
        self._sessions.append((session, list(nodes)))

    def kernels(self) -> list[tuple[Sequence[NodeProto], list[Kernel]]]:
        """For each session the nodes of its model and the kernels that ran; ends the profile."""
        found = []
        for session, nodes in self._sessions:
            profile = Path(session.end_profiling())
            found.append((nodes, _kernels(json.loads(profile.read_text(encoding="utf-8"), strict=False))))
            profile.unlink()
        self._sessions.clear()
        return found

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.clear()
        self._folder.cleanup()


def _kernels(events: Sequence[Any]) -> list[Kernel]:
    runs = [event["ts"] + event["dur"] for event in events if event["name"] == "model_run"]
    warm = min(runs, default=0)  # the first run also allocates memory
    ops: dict[str, str] = {}
    times: dict[str, float] = {}
    for event in events:
        if event["cat"] != "Node" or not event["name"].endswith(_KERNEL):
            continue
        name = event["name"].removesuffix(_KERNEL)
        ops[name] = event["args"]["op_name"]
        times[name] = times.get(name, 0.0) + (event["dur"] if event["ts"] >= warm else 0)
    return [Kernel(name, ops[name], time) for name, time in times.items()]
