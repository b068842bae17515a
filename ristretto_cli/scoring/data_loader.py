"""The batches of all data layers of a net, from the first record on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array, fits, show
from ristretto_cli.scoring.label_check import LabelCheck
from ristretto_cli.scoring.user_data import UserData
from ristretto_cli.sources.open import open_source
from ristretto_cli.sources.prefetch import Prefetch
from ristretto_cli.sources.source import SOURCES, Source


class DataLoader:
    """The inputs of a net, batch by batch, prefetched by threads. A context manager, which closes the files.

    given: arrays by blob name that replace the data of each batch; data: the user's, which replaces that of layers as
    well. A data layer is not opened if all its tops are given. labels: checks labels; by default a check of its own.

    Raises RistrettoError(s) for arrays that fit no input of the net, and for layers without data of their own that
    are not given any.
    """

    def __init__(
        self,
        net: Net,
        *,
        given: Mapping[str, Array] | None = None,
        seed: int = 0,
        data: UserData | None = None,
        labels: Callable[[Mapping[str, Array]], None] | None = None,
    ) -> None:
        self._check_labels = labels or LabelCheck(net)
        self._given = dict(given or {})
        self._sources: list[tuple[Layer, Prefetch]] = []
        supplied: Mapping[str, Source] = {} if data is None else data.open(net)
        self._supplied = {name: Prefetch(opened) for name, opened in supplied.items()}
        errors = _mismatches(net, self._given)
        try:
            for number, layer in enumerate(layer for layer in net.layers if layer.is_source):
                missing = [blob.name for blob in layer.tops if blob.name not in {**self._given, **supplied}]
                if not missing:
                    continue
                try:
                    opened = open_source(layer.message, layer.phase, seed=seed + number)
                except RistrettoError as error:
                    raise _of(layer, str(error)) from error
                if opened.is_external:
                    errors.append(_missing(layer, missing))
                else:
                    self._sources.append((layer, Prefetch(opened)))
            raise_all(errors)
        except BaseException:
            self.close()
            raise

    def next(self) -> dict[str, Array]:
        """An array for each input of the net; images may have another size than the first one."""
        batch: dict[str, Array] = {}
        for layer, source in self._sources:
            try:
                arrays = source.next()
            except RistrettoError as error:
                raise _of(layer, str(error)) from error
            batch.update(zip((blob.name for blob in layer.tops), arrays, strict=True))
        for name, supplied in self._supplied.items():
            (batch[name],) = supplied.next()
        batch.update(self._given)
        self._check_labels(batch)
        return batch

    def close(self) -> None:
        """Stop reading and close the files."""
        for source in [*(source for _, source in self._sources), *self._supplied.values()]:
            source.close()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mismatches(net: Net, given: Mapping[str, Array]) -> list[RistrettoError]:
    """The errors for given arrays that fit no input."""
    shapes = {blob.name: blob.shape for blob in net.inputs}
    errors = []
    for name, array in given.items():
        if name not in shapes:
            inputs = f"Inputs: {', '.join(shapes) or 'none'}."
            what = f'"{name}" is not an input of the net'
            errors.append(RistrettoError(what, hint=did_you_mean(name, shapes) or inputs))
        elif not fits(array.shape, shapes[name]):
            what = f'input "{name}" has shape {show(array.shape)}; expected {show(shapes[name])}'
            hint = ""
            if len(array.shape) == len(shapes[name]) and 0 not in array.shape and _is_external(net, name):
                hint = f"For another size use --input_shape {name}={','.join(map(str, array.shape))}."
            errors.append(RistrettoError(what, hint=hint))
    return errors


def _is_external(net: Net, name: str) -> bool:
    """Whether an input belongs to a layer without data of its own."""
    return any(
        layer.is_source and SOURCES.get(layer.type).is_external and name in (top.name for top in layer.tops)
        for layer in net.layers
    )


def _missing(layer: Layer, missing: list[str]) -> RistrettoError:
    hint = "Use `ristretto forward --input=x.npz`, or replace it with a data layer such as Data or ImageData."
    return _of(layer, f"there is no data for {', '.join(missing)}", hint=hint)


def _of(layer: Layer, what: str, *, hint: str = "") -> RistrettoError:
    """An error of a data layer, with the layer's name and line."""
    return RistrettoError(f'layer "{layer.name}" ({layer.type}): {what}', where=layer.where, hint=hint)
