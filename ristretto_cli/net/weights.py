"""Loading of a net's weights: from a file by layer name, from the net's fillers, or both."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ristretto_cli.caffe_io.weights import StoredBlob, WeightsFile
from ristretto_cli.errors import LayerError, RistrettoError, did_you_mean, raise_all
from ristretto_cli.fillers import fill
from ristretto_cli.net.format_checks import warn_of_formats
from ristretto_cli.net.ir import Layer, Net, Param
from ristretto_cli.ops import Array, Shape, show

log = logging.getLogger("ristretto")

_MAX_LISTED = 30


def load_weights(
    net: Net, file: WeightsFile, *, rng: np.random.Generator, allow_missing: bool = False, check_formats: bool = True
) -> Net:
    """The net with the weights of a file, matched by layer name, as views.

    A layer missing in the file is an error, unless its filler is deterministic (as for
    bilinear upsampling) or allow_missing lets the net's fillers, with rng, initialize it.
    Layers missing in the net are logged. Parameters owned by another layer may be missing, as in
    HDF5 files. check_formats: warn of number formats that cannot be meant. Raises RistrettoError(s) for a different
    number of blobs, different shapes, and values that are NaN or infinite.
    """
    weights: dict[str, Array] = {}
    errors: list[RistrettoError] = []
    missing: list[Layer] = []
    place = {name: i for i, name in enumerate(file.layers)}
    filled_by: dict[str, int] = {}  # the place in the file of the layer that gave a parameter its values
    for layer in net.layers:
        own = [param for param in layer.params if param.owner == layer.name]
        if not layer.params:
            continue
        if layer.name not in file.layers:
            missing += [layer] if own else []
            continue
        stored = file.layers[layer.name]
        borrowed = [param.owner != layer.name for param in layer.params]
        if len(stored) != len(layer.params) and not all(borrowed[len(stored) :] or [False]):
            errors.append(
                RistrettoError(
                    f'layer "{layer.name}" has {len(layer.params)} parameters, but {len(stored)} in the file',
                    where=file.file,
                )
            )
            continue
        for i, (param, blob) in enumerate(zip(layer.params, stored, strict=False)):
            if not blob.stored and borrowed[i]:
                continue
            errors += _faults(file, layer, i, param, blob)
            # Of the copies of a shared parameter, the last one in the file counts, as in Caffe.
            if _fits(param.shape, blob) and place[layer.name] >= filled_by.get(param.key, 0):
                filled_by[param.key] = place[layer.name]
                weights[param.key] = blob.array.reshape(param.shape)
    if not allow_missing:  # DIFFERS(D12)
        errors += _missing(file, net, [layer for layer in missing if not _has_fixed_filler(layer)])
    raise_all(errors)
    _log_ignored(net, file)
    filled = _filled(net, [param for param in _params(net) if param.key not in weights], rng)
    weights.update(filled)
    initialized = {layer.name for layer in missing} | {key.rpartition("/")[0] for key in filled}
    if initialized:
        log.warning("Not in %s, initialized by the net's fillers: %s", file.file, ", ".join(sorted(initialized)))
    loaded = replace(net, weights=weights)
    if check_formats:
        warn_of_formats(loaded)
    return loaded


def with_weights(file: WeightsFile, net: Net, changed: Mapping[str, Array]) -> WeightsFile:
    """The file with other arrays for parameters of a net, by Param.key; it then has all parameters of their layers."""
    layers = dict(file.layers)
    for layer in net.layers:
        if not changed.keys().isdisjoint(param.key for param in layer.params):
            arrays = (changed.get(param.key, net.weights[param.key]) for param in layer.params)
            layers[layer.name] = tuple(
                StoredBlob(array.reshape(param.shape)) for array, param in zip(arrays, layer.params, strict=True)
            )
    return replace(file, layers=layers)


def fill_weights(net: Net, *, rng: np.random.Generator) -> Net:
    """The net with all parameters initialized by its fillers. RistrettoError(s) for invalid fillers."""
    return replace(net, weights=_filled(net, list(_params(net)), rng))


def _filled(net: Net, params: Sequence[Param], rng: np.random.Generator) -> dict[str, Array]:
    """The parameters' arrays, by key, from their fillers."""
    owners = {layer.name: layer for layer in net.layers if layer.params}
    weights: dict[str, Array] = {}
    errors: list[RistrettoError] = []
    for param in params:
        try:
            weights[param.key] = fill(param.filler, param.shape, rng=rng)
        except LayerError as error:
            layer = owners[param.owner]
            what = f'layer "{layer.name}" ({layer.type}): parameter {param.index}: {error}'
            errors.append(RistrettoError(what, where=layer.where))
    raise_all(errors)
    return weights


def _params(net: Net) -> Iterator[Param]:
    seen = set()
    for layer in net.layers:
        for param in layer.params:
            if param.key not in seen:
                seen.add(param.key)
                yield param


def _fits(shape: Shape, blob: StoredBlob) -> bool:
    if not blob.legacy:
        # Forks disagree on whether a single value has an axis.
        return blob.array.shape == shape or {blob.array.shape, shape} == {(), (1,)}
    # Blobs older than N-D shapes have four extents, padded with leading ones.
    return len(shape) <= 4 and blob.array.shape == (1,) * (4 - len(shape)) + shape


def _faults(file: WeightsFile, layer: Layer, index: int, param: Param, blob: StoredBlob) -> Iterator[RistrettoError]:
    if not blob.stored:
        yield RistrettoError(f'parameter {index} of layer "{layer.name}" is missing in the file', where=file.file)
    elif not _fits(param.shape, blob):
        yield RistrettoError(
            f'parameter {index} of layer "{layer.name}" is {show(blob.array.shape)} in the file and '
            f"{show(param.shape)} in the net",
            where=file.file,
            hint="Use the weights of this net, or rename the layer to train it from scratch.",
        )
    elif not _is_finite(blob.array):
        yield RistrettoError(
            f'parameter {index} of layer "{layer.name}" contains NaN or infinite values',
            where=file.file,
            hint="The training diverged or the file is damaged.",
        )


def _is_finite(array: Array) -> bool:
    # The sum is finite if all values are, barring float32 overflow: one cheap pass settles nearly all cases.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def _has_fixed_filler(layer: Layer) -> bool:
    filler = layer.params[0].filler
    return bool(filler.type == "bilinear" or (filler.type == "constant" and filler.value != 0))


def _missing(file: WeightsFile, net: Net, layers: Sequence[Layer]) -> Iterator[RistrettoError]:
    """An error for each layer without weights; the last one lists the file's layers."""
    used = {known.name for known in net.layers}
    shown = layers[:_MAX_LISTED]
    for layer in shown:
        hints = [did_you_mean(layer.name, (name for name in file.layers if name not in used))]
        if layer is shown[-1]:
            them = "it with its filler" if len(layers) == 1 else "layers with their fillers"
            hints += [_listed(list(file.layers)), f"--allow_missing_weights initializes {them}."]
        more = len(layers) - len(shown) if layer is shown[-1] else 0
        yield RistrettoError(
            f'layer "{layer.name}"{f" and {more} more layers have" if more else " has"} no weights in {file.file}',
            where=layer.where,
            hint=" ".join(filter(None, hints)),
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"Layers there: {', '.join(names[:_MAX_LISTED])}{more}."


def _log_ignored(net: Net, file: WeightsFile) -> None:
    known = {layer.name for layer in net.layers}
    ignored = [name for name in file.layers if name not in known]
    if ignored:
        log.info("Ignoring source layers: %s", ", ".join(ignored))
