"""A session whose inputs and outputs stay where the net runs, so that a run can be timed without copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.backends.onnx_graph import Graph, Node
from ristretto_cli.backends.onnx_session import Session, run_faults, unusable
from ristretto_cli.ops import Array

DeviceValue: TypeAlias = Any  # onnxruntime's OrtValue: an array in the memory of the device; not typed


def to_device(array: Array, gpu: int | None) -> DeviceValue:
    """An array in the memory of the CPU or of a CUDA device; GpuUnusable where onnxruntime cannot use that."""
    import onnxruntime

    value = np.ascontiguousarray(array, dtype=np.float32).reshape(np.shape(array))
    try:
        return onnxruntime.OrtValue.ortvalue_from_numpy(value, *_device(gpu))
    except Exception as error:  # onnxruntime's errors have no common class
        if gpu is None:
            raise
        raise unusable(gpu, error) from error


class BoundSession(Session):
    """A Session that is fed once, and then run any number of times with the same inputs."""

    def __init__(self, graph: Graph, outputs: Mapping[str, Node], *, gpu: int | None = None, threads: int = 0) -> None:
        super().__init__(graph, outputs, gpu=gpu, threads=threads)
        self._gpu = gpu
        self._binding: Any = self._session.io_binding()

    def bind(self, feeds: Mapping[str, DeviceValue]) -> None:
        """Set the inputs, by name; those that no output depends on may be missing or be left over."""
        for name in self._feeds:
            self._binding.bind_ortvalue_input(name, feeds[name])
        for name in self._outputs.values():
            self._binding.bind_output(name, *_device(self._gpu))

    def run_bound(self) -> dict[str, DeviceValue]:
        """One run, waited for until it has ended. Raises what `run` raises."""
        with run_faults():
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        return dict(zip(self._outputs, self._binding.get_outputs(), strict=True))


def _device(gpu: int | None) -> tuple[str, int]:
    return ("cpu", 0) if gpu is None else ("cuda", gpu)
