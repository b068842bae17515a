"""The batches of all data layers of a net, from the first record on."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array, fits, show
from ristretto_cli.sources.open import open_source
from ristretto_cli.sources.prefetch import Prefetch
from ristretto_cli.sources.source import SOURCES


class Feeds:
    """What a net is fed, batch by batch, decoded ahead of the net.

    given: arrays by blob name, which are fed in each batch in place of what a data layer would bring; a layer
    all of whose tops are given is not opened. Use as a context manager: it closes the files.

    RistrettoError(s) for arrays that fit no input of the net, and for a layer that has no data and is given none.
    """

    def __init__(self, net: Net, *, given: Mapping[str, Array] | None = None, seed: int = 0) -> None:
        self._given = dict(given or {})
        self._sources: list[tuple[Layer, Prefetch]] = []
        errors = _unfit(net, self._given)
        try:
            for number, layer in enumerate(layer for layer in net.layers if layer.is_source):
                missing = [blob.name for blob in layer.tops if blob.name not in self._given]
                if not missing:
                    continue
                try:
                    opened = open_source(layer.message, layer.phase, seed=seed + number)
                except RistrettoError as error:
                    raise _of(layer, str(error)) from error
                if opened.fed:
                    errors.append(_lacking(layer, missing))
                else:
                    self._sources.append((layer, Prefetch(opened)))
            raise_all(errors)
        except BaseException:
            self.close()
            raise

    def next(self) -> dict[str, Array]:
        """An array for each of the net's inputs, of the shape that the net has for it, where that does not vary."""
        batch: dict[str, Array] = {}
        for layer, source in self._sources:
            try:
                arrays = source.next()
            except RistrettoError as error:
                raise _of(layer, str(error)) from error
            for blob, array in zip(layer.tops, arrays, strict=True):
                if not fits(array.shape, blob.shape) and blob.name not in self._given:
                    what = f"a batch for {blob.name} is {show(array.shape)}, the first one {show(blob.shape)}"
                    raise _of(layer, what, hint="Bring all images to one size.")
                batch[blob.name] = array
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


def _unfit(net: Net, given: Mapping[str, Array]) -> list[RistrettoError]:
    """What is wrong with the given arrays."""
    shapes = {blob.name: blob.shape for blob in net.inputs}
    errors = []
    for name, array in given.items():
        if name not in shapes:
            inputs = f"Inputs: {', '.join(shapes) or 'none'}."
            what = f'the given blob "{name}" is no input of the net'
            errors.append(RistrettoError(what, hint=did_you_mean(name, shapes) or inputs))
        elif not fits(array.shape, shapes[name]):
            what = f'the given blob "{name}" has shape {show(array.shape)}, and the net takes {show(shapes[name])}'
            errors.append(RistrettoError(what))
    return errors


def check_has_data(net: Net) -> None:
    """RistrettoError(s) for the layers that bring no data of their own."""
    sources = [layer for layer in net.layers if layer.is_source]
    raise_all(
        _of(
            layer,
            f"there is no data for {', '.join(blob.name for blob in layer.tops)}",
            hint="Put a layer with images and labels in its place, such as Data or ImageData.",
        )
        for layer in sources
        if SOURCES.get(layer.type).fed
    )


def _lacking(layer: Layer, missing: list[str]) -> RistrettoError:
    hint = "Give arrays by `ristretto forward --input=x.npz`, or put a data layer in its place."
    return _of(layer, f"there is no data for {', '.join(missing)}", hint=hint)


def _of(layer: Layer, what: str, *, hint: str = "") -> RistrettoError:
    """A fault of a data layer, with the layer's name and line."""
    return RistrettoError(f'layer "{layer.name}" ({layer.type}): {what}', where=layer.where, hint=hint)
