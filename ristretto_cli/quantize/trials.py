"""The nets of a search, scored: with as little work as the scores allow.

What passes have in common is done once: data are read once, equal nets are scored once, what stands in front of the
first trimmed layer is run once, and nets are built while others run. No score depends on any of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.net.build import State, build
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Shape
from ristretto_cli.quantize.ahead import Ahead
from ristretto_cli.scoring.cuts import Prefix, cut_that_pays
from ristretto_cli.scoring.score import Pass, Scorer, Scores, Until
from ristretto_cli.scoring.shelf import Shelf
from ristretto_cli.sources.open import DataLayers
from ristretto_cli.wire.messages import TEST, Message
from ristretto_cli.wire.net_file import NetFile

log = logging.getLogger("ristretto")

_MOST_AHEAD = 200 << 20  # bytes of weights of a net that is built while another one is in memory


@dataclass(frozen=True)
class Sharing:
    """What passes may have in common: prefixes of nets, scores of equal nets, time (one is built while one runs)."""

    prefixes: bool = True
    equal_nets: bool = True
    ahead: bool = True


@dataclass(frozen=True)
class Device:
    """What nets run on. threads: how many the CPU may use, 0 for the default."""

    gpu: int | None = None
    threads: int = 0


class Trials:
    """Scores the float net, and then nets that are like it but for what is trimmed. close it at the end.

    wanted: how all of them are scored. rng: what is random in them, the same in each. shelf: where values of the float
    net are kept.
    """

    def __init__(
        self,
        net_file: NetFile,
        net: Net,
        wanted: Pass,
        *,
        rng: np.random.Generator,
        device: Device,
        shelf: Shelf,
        sharing: Sharing,
    ) -> None:
        self._net_file = net_file
        self._net = net
        self._wanted = wanted
        self._rng = deepcopy(rng)  # never drawn from, but copied for each net
        self._device = device
        self._shelf = shelf
        self._sharing = sharing
        self._prefixes: list[Prefix] = []
        self._known: dict[bytes, tuple[str, Scores]] = {}
        self._ahead: Ahead[Scorer] = Ahead()

    def close(self) -> None:
        """Wait for what is being built."""
        self._ahead.close()

    def score_float_net(self, cut_before: Sequence[int]) -> Scores:
        """The scores of the net itself. cut_before: the layers that trials will differ from it from, by position."""
        cuts = [cut_that_pays(self._net, layer) for layer in cut_before] if self._sharing.prefixes else []
        prefixes = [Prefix(cut, self._shelf) for cut in cuts if cut is not None]
        log.info("Scoring the float net.")
        rng = deepcopy(self._rng)
        with self._wanted.stopwatch.measure("building nets"):
            scorer = self._scorer(self._net, rng, keep=prefixes)
        scores = scorer.run(replace(self._wanted, what="the float net"))
        # Of random numbers, a net that is cut would have others.
        if rng.bit_generator.state == self._rng.bit_generator.state:
            self._prefixes = prefixes
        self._remember(self._net_file, "the float net", scores)
        return scores

    def score(
        self, what: str, net_file: NetFile, until: Until | None, next_one: Callable[[], NetFile] | None
    ) -> Scores:
        """The scores of a net; next_one: the net that will probably be scored next."""
        log.info("Scoring %s.", what)
        key = _key(net_file)
        if key in self._known:
            other, scores = self._known[key]
            log.info("It is the same net as %s, and has its scores.", other)
            return scores
        with self._wanted.stopwatch.measure("building nets"):
            scorer = self._ahead.take(key, lambda: self._build(net_file))
        if next_one is not None:
            self._build_ahead(next_one())
        scores = scorer.run(replace(self._wanted, what=what, until=until))
        if scores.iterations == self._wanted.iterations:
            self._remember(net_file, what, scores)
        return scores

    def _remember(self, net_file: NetFile, what: str, scores: Scores) -> None:
        if self._sharing.equal_nets:
            self._known.setdefault(_key(net_file), (what, scores))

    def _build_ahead(self, net_file: NetFile) -> None:
        size = sum(array.nbytes for array in self._net.weights.values())
        if not self._sharing.ahead or self._device.gpu is not None or size > _MOST_AHEAD:
            return
        if _key(net_file) not in self._known:
            self._ahead.begin(_key(net_file), lambda: self._build(net_file))

    def _build(self, net_file: NetFile) -> Scorer:
        net = build(net_file, State(TEST), _KnownData(self._net))
        net = replace(net, weights=self._net.weights)
        serving = [each for each in self._prefixes if each.serves(net, self._net, self._wanted.iterations)]
        start = max(serving, key=lambda prefix: prefix.cut.layer, default=None)
        return self._scorer(net, deepcopy(self._rng), start=start)

    def _scorer(
        self, net: Net, rng: np.random.Generator, *, start: Prefix | None = None, keep: Sequence[Prefix] = ()
    ) -> Scorer:
        return Scorer(net, rng=rng, gpu=self._device.gpu, threads=self._device.threads, start=start, keep=keep)


class _KnownData(DataLayers):
    """The data layers of a net that is built already; no file is opened again."""

    def __init__(self, net: Net) -> None:
        self._shapes = {
            _text(layer.message): [top.shape for top in layer.tops] for layer in net.layers if layer.is_source
        }

    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        known = self._shapes.get(_text(message))
        return tuple(known) if known is not None else super().shapes(message, phase)


def _key(net_file: NetFile) -> bytes:
    return _text(net_file.message)


def _text(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))
