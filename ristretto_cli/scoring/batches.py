"""The batches of a net's data layers, decoded once and cached for later passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

import numpy as np

from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.array_cache import ArrayCache, CachedArrays
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.label_check import LabelCheck, unchecked
from ristretto_cli.scoring.user_data import UserData


class CachedBatches:
    """The batches of a net, from the first record on, for any number of passes.

    cache: holds the batches after their first use. Without a cache, or once it is full, each pass reads the files
    again. data: the user's, for inputs of the net. check_labels: warn of labels that are not classes.
    """

    def __init__(
        self,
        net: Net,
        cache: ArrayCache | None = None,
        data: UserData | None = None,
        *,
        check_labels: bool = True,
    ) -> None:
        self._net = net
        self._data = data
        self._cache = cache
        self._cached: list[CachedArrays] = []
        self._labels = LabelCheck(net) if check_labels else unchecked  # one for all passes, so that it warns once

    def reader(self, only: Collection[str] | None = None, extra: Sequence[CachedArrays] = ()) -> BatchReader:
        """A pass over the batches. only: the names of the inputs to return, all by default. extra: arrays to add to
        each batch."""
        return BatchReader(self, only, extra)

    def cached(self, number: int) -> dict[str, AnyArray] | None:
        """A batch as views, by blob name; None if it is not cached."""
        return self._cached[number]() if number < len(self._cached) else None

    def has_own_shapes(self, batch: Mapping[str, AnyArray]) -> bool:
        """Whether all inputs in the graph have the shapes that they have in the net."""
        return all(np.shape(batch[blob.name]) == blob.shape for blob in in_graph(self._net.inputs))

    def open(self) -> DataLoader:
        """A loader that starts at the first record."""
        return DataLoader(self._net, data=self._data, labels=self._labels)

    def store(self, number: int, batch: Mapping[str, AnyArray]) -> None:
        """Cache a batch that was read, unless an earlier one is missing."""
        if self._cache is None or number != len(self._cached):
            return
        cached = self._cache.put(batch)
        if cached is not None:
            self._cached.append(cached)
            return
        # The files must be read from the beginning anyway, so a cache of only the first batches is useless.
        self._cache = None
        self._cached.clear()


class BatchReader:
    """One pass over batches; a context manager, which closes the files.

    has_own_shapes: whether all inputs of the last batch had the shapes that they have in the net.
    """

    def __init__(self, batches: CachedBatches, only: Collection[str] | None, extra: Sequence[CachedArrays]) -> None:
        self._batches = batches
        self._only = only
        self._extra = extra
        self._next = 0
        self.has_own_shapes = True
        self._loader: DataLoader | None = None

    def next(self) -> dict[str, AnyArray]:
        """The next batch, an array for each input of the net. Raises the errors of DataLoader."""
        number, self._next = self._next, self._next + 1
        batch = self._batches.cached(number)
        if batch is None:
            batch = self._read(number)
        self.has_own_shapes = self._batches.has_own_shapes(batch)
        if self._only is not None:
            batch = {name: array for name, array in batch.items() if name in self._only}
        return {**batch, **self._extra[number]()} if self._extra else batch

    def _read(self, number: int) -> dict[str, AnyArray]:
        if self._loader is None:
            self._loader = self._batches.open()
            for _ in range(number):
                self._loader.next()
        batch: dict[str, AnyArray] = dict(self._loader.next())
        self._batches.store(number, batch)
        return batch

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loader is not None:
            self._loader.close()
