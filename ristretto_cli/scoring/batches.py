"""The batches of a net's data layers, decoded once and kept for all later passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

from ristretto_cli.net.ir import Net
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.array_cache import Kept, Shelf
from ristretto_cli.scoring.data_loader import Feeds


class Batches:
    """What a net is fed, from the first record on, as often as wanted.

    shelf: where batches are kept when they are first read; without one, or as soon as it is full, each pass reads
    them anew.
    """

    def __init__(self, net: Net, shelf: Shelf | None = None) -> None:
        self._net = net
        self._shelf = shelf
        self._kept: list[Kept] = []

    def reader(self, only: Collection[str] | None = None, beside: Sequence[Kept] = ()) -> Reader:
        """A pass through the batches, one at a time. only: the inputs that are wanted, by name, all by default.
        beside: for each batch, what else is to be in it."""
        return Reader(self, only, beside)

    def kept(self, number: int) -> dict[str, AnyArray] | None:
        """A batch as views, by blob name; None where it is not kept."""
        return self._kept[number]() if number < len(self._kept) else None

    def open(self) -> Feeds:
        """The files, from the first record on."""
        return Feeds(self._net)

    def keep(self, number: int, batch: Mapping[str, AnyArray]) -> None:
        """Keep a batch that was read, if it is the next one."""
        if self._shelf is None or number != len(self._kept):
            return
        kept = self._shelf.put(batch)
        if kept is not None:
            self._kept.append(kept)
            return
        # The files are read from their beginning, so that nothing is gained by having some of their batches.
        self._shelf = None
        self._kept.clear()


class Reader:
    """A pass through batches; use it as a context manager, which closes the files."""

    def __init__(self, batches: Batches, only: Collection[str] | None, beside: Sequence[Kept]) -> None:
        self._batches = batches
        self._only = only
        self._beside = beside
        self._next = 0
        self._feeds: Feeds | None = None

    def next(self) -> dict[str, AnyArray]:
        """The next batch, an array for each of the net's inputs. Raises what Feeds raise."""
        number, self._next = self._next, self._next + 1
        batch = self._batches.kept(number)
        if batch is None:
            batch = self._read(number)
        if self._only is not None:
            batch = {name: array for name, array in batch.items() if name in self._only}
        return {**batch, **self._beside[number]()} if self._beside else batch

    def _read(self, number: int) -> dict[str, AnyArray]:
        if self._feeds is None:
            self._feeds = self._batches.open()
            for _ in range(number):
                self._feeds.next()
        batch: dict[str, AnyArray] = dict(self._feeds.next())
        self._batches.keep(number, batch)
        return batch

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._feeds is not None:
            self._feeds.close()
