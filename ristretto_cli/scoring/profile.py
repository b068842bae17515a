"""How long the parts of a net's passes take: kernels of its graph, and layers behind the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from ristretto_cli.backends.onnx_profile import Profiler
from ristretto_cli.layers.host_layer import Compute
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Array
from ristretto_cli.scoring.host_layers import start


class NetProfiler(Profiler):
    """A Profiler that also measures layers behind the graph. host: their milliseconds, by name, since `begin`."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self.host: dict[str, float] = {}
        self._clock = clock

    def begin(self) -> None:
        """Forget what was measured of the layers behind the graph."""
        self.host.clear()

    def start(self, layer: Layer) -> Compute:
        """What computes a layer behind the graph, and is measured."""
        compute = start(layer)

        def measured(bottoms: Sequence[Array]) -> Sequence[Array]:
            began = self._clock()
            tops = compute(bottoms)
            self.host[layer.name] = self.host.get(layer.name, 0.0) + (self._clock() - began) * 1000
            return tops

        return measured
