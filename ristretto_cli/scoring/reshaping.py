"""Runners for batches of different shapes: the net compiled for each, and nets whose shapes depend on a host layer."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TypeAlias

import numpy as np

from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.net.reshape import reshaped
from ristretto_cli.ops import DYNAMIC, AnyArray, Array, Shape
from ristretto_cli.scoring.host_layers import Runner

_MAX_SHAPES = 8  # that are compiled at the same time
_MAX_BYTES = 2 << 30  # of all of them, as estimated; one is always kept
_LIVE_BLOBS = 4  # of the largest size, at the same time

Compile: TypeAlias = Callable[[Net, np.random.Generator], Runner]


class ReshapingRunner:
    """Runs a net on batches of different shapes: it is compiled for each, and the ones used last are kept.

    The net is compiled for its own shapes at once, unless they depend on the data. rng: given to the first compilation;
    the others get a copy of its first state, so that weights that are rounded at random are the same.
    """

    def __init__(self, net: Net, compile_net: Compile, *, rng: np.random.Generator) -> None:
        self._net = net
        self._compile = compile_net
        self._first_rng: np.random.Generator | None = rng
        self._rng = deepcopy(rng)
        self._own = {blob.name: blob.shape for blob in in_graph(net.inputs)}
        self._compiled: OrderedDict[tuple[Shape, ...], Runner] = OrderedDict()  # the one used last is at the end
        self._bytes: dict[tuple[Shape, ...], int] = {}
        if not any(DYNAMIC in shape for shape in self._own.values()):
            self._runner(self._own)

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        given = {name: np.shape(feeds[name]) if name in feeds else shape for name, shape in self._own.items()}
        return self._runner(given).run(feeds)

    def _runner(self, shapes: Mapping[str, Shape]) -> Runner:
        key = tuple(shapes.values())
        if key not in self._compiled:
            net = self._net if shapes == self._own else reshaped(self._net, shapes)
            size = _bytes(net)
            while self._compiled and (
                len(self._compiled) >= _MAX_SHAPES or sum(self._bytes.values()) + size > _MAX_BYTES
            ):
                oldest, _ = self._compiled.popitem(last=False)
                del self._bytes[oldest]
            rng, self._first_rng = self._first_rng, None
            self._compiled[key] = self._compile(net, deepcopy(self._rng) if rng is None else rng)
            self._bytes[key] = size
        self._compiled.move_to_end(key)
        return self._compiled[key]


def _bytes(net: Net) -> int:
    """An estimate of the memory of a compiled net: its parameters, of which it may have copies, and blobs."""
    blobs = (math.prod(top.shape) for layer in net.layers for top in layer.tops if not top.on_host)
    return sum(array.nbytes for array in net.weights.values()) + 4 * _LIVE_BLOBS * max(blobs, default=0)


class SplitRunner:
    """Runs a net with a host layer that feeds the graph: first the net up to that layer, then one that gets its tops.

    The second net computes the layers before once more. front_memory, memory: the states of both nets; the first one
    starts where the second one does.
    """

    def __init__(
        self, front: Runner, rest: Runner, front_memory: dict[str, Array] | None, memory: dict[str, Array] | None
    ) -> None:
        self._front = front
        self._rest = rest
        self._front_memory = front_memory
        self._memory = memory

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        if self._front_memory is not None and self._memory is not None:
            self._front_memory.update(self._memory)
        return self._rest.run({**feeds, **self._front.run(feeds)})
