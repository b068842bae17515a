"""The batches of all data layers of a net, from the first record on."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array, show
from ristretto_cli.sources.open import open_source
from ristretto_cli.sources.prefetch import Prefetch


class Feeds:
    """What a net is fed, batch by batch, decoded ahead of the net.

    given: arrays by blob name, which are fed in each batch in place of what a data layer would bring; a layer
    all of whose tops are given is not opened. Use as a context manager: it closes the files.
    """

    def __init__(self, net: Net, *, given: Mapping[str, Array] | None = None, seed: int = 0) -> None:
        self._given = dict(given or {})
        self._sources: list[tuple[tuple[str, ...], Prefetch]] = []
        for blob in net.inputs:
            if blob.name in self._given and self._given[blob.name].shape != blob.shape:
                raise RistrettoError(
                    f'the given blob "{blob.name}" has shape {show(self._given[blob.name].shape)}, '
                    f"and the net takes {show(blob.shape)}"
                )
        try:
            for number, layer in enumerate(layer for layer in net.layers if layer.is_source):
                tops = tuple(blob.name for blob in layer.tops)
                if not self._given.keys() >= set(tops):
                    opened = open_source(layer.message, layer.phase, seed=seed + number)
                    self._sources.append((tops, Prefetch(opened)))
        except BaseException:
            self.close()
            raise

    def next(self) -> dict[str, Array]:
        """An array for each of the net's inputs."""
        batch: dict[str, Array] = {}
        for tops, source in self._sources:
            batch.update(zip(tops, source.next(), strict=True))
        return {**batch, **self._given}

    def close(self) -> None:
        """Stop reading and close the files."""
        for _, source in self._sources:
            source.close()

    def __enter__(self) -> Feeds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
