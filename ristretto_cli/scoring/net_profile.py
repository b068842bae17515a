"""A profile of a net's passes: the kernels of its graph, and its host layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from ristretto_cli.backends.onnx_profile import Profiler
from ristretto_cli.layers.host_layer import Compute
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array
from ristretto_cli.scoring.host_layers import start


class NetProfiler(Profiler):
    """A Profiler that also times host layers. host_ms: their milliseconds since `begin`, by name."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self.host_ms: dict[str, float] = {}
        self._clock = clock

    def begin(self) -> None:
        """Reset the times of the host layers."""
        self.host_ms.clear()

    def start(self, layer: Layer) -> Compute:
        """The computation of a host layer, timed."""
        compute = start(layer)

        def timed(bottoms: Sequence[Array]) -> Sequence[Array]:
            began = self._clock()
            tops = compute(bottoms)
            self.host_ms[layer.name] = self.host_ms.get(layer.name, 0.0) + (self._clock() - began) * 1000
            return tops

        return timed
