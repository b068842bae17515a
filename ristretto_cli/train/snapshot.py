"""Snapshots: a training's weights and state as Caffe's files, P_iter_N.caffemodel and P_iter_N.solverstate."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ristretto_cli.caffe_io.files import check_writable
from ristretto_cli.caffe_io.messages import Message, new
from ristretto_cli.caffe_io.solverstate import SolverStateFile, read_solver_state, write_solver_state
from ristretto_cli.caffe_io.temporary import remove_leftovers
from ristretto_cli.caffe_io.weights import StoredBlob, WeightsFile, write_weights
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import Array, Shape, show
from ristretto_cli.train import log_lines
from ristretto_cli.train.solver_settings import Snapshots
from ristretto_cli.train.solver_state import SolverState

log = logging.getLogger("ristretto")


def prepare_snapshots(settings: Snapshots, last: int = 0, *, trimmed: bool = False) -> None:
    """RistrettoError if snapshots cannot be written. Removes unfinished files of killed trainings.

    last: the last iteration, whose files have the longest names. trimmed: trimmed weights are written, too.
    """
    for name in (model_file, state_file, *([trimmed_file] if trimmed else [])):
        check_writable(name(settings, last))
    start = Path(os.path.realpath(f"{settings.prefix}_iter_"))
    remove_leftovers(start.parent, start.name, prefix=True)


def model_file(settings: Snapshots, iteration: int) -> str:
    """The name of a snapshot's weights file."""
    return f"{settings.prefix}_iter_{iteration}.caffemodel{_ending(settings)}"


def trimmed_file(settings: Snapshots, iteration: int) -> str:
    """The name of the file of a snapshot's trimmed weights."""
    return f"{settings.prefix}_iter_{iteration}_trimmed.caffemodel{_ending(settings)}"


def state_file(settings: Snapshots, iteration: int) -> str:
    """The name of a snapshot's state file."""
    return f"{settings.prefix}_iter_{iteration}.solverstate{_ending(settings)}"


def write_snapshot(
    settings: Snapshots,
    net: Net,
    state: SolverState,
    weights: Mapping[str, Array],
    diffs: Mapping[str, Array] | None = None,
) -> str:
    """Write the weights, then the state; returns the name of the weights' file.

    weights: float32 by Param.key. diffs: the gradients by Param.key, for snapshot_diff. state.learned_net is ignored.
    Each file is written atomically, the weights before the state that names them, so every state file has its weights
    even if the process is killed. RistrettoError if a file cannot be written; an existing one is then unchanged.
    """
    model, file = model_file(settings, state.iteration), state_file(settings, state.iteration)
    log.info(log_lines.writing_model(model))
    write_model(model, net, weights, diffs)
    log.info(log_lines.writing_state(file))
    write_solver_state(file, state.iteration, state.current_step, model, state.history)
    return model


def write_model(path: str, net: Net, weights: Mapping[str, Array], diffs: Mapping[str, Array] | None = None) -> None:
    """Write a net's weights with its layers, as Caffe does, in the format given by the file's name.

    Layers that Caffe inserts (Split) are omitted. In HDF5, a shared parameter is written only for its owner.
    """
    write_weights(
        path,
        _by_layer(net, weights),
        net=new("NetParameter", name=net.name, layer=map(_message, net.layers)),
        diffs=None if diffs is None else _by_layer(net, diffs),
        borrowed={
            f"{layer.name}/{i}"
            for layer in net.layers
            for i, param in enumerate(layer.params)
            if param.owner != layer.name
        },
    )


def read_state(path: str, expected: Sequence[tuple[str, Shape]]) -> SolverState:
    """The state in a file, to resume a training with these history arrays.

    expected: for each array of the solver's history, the Param.key of its parameter, and its shape. learned_net of the
    result is the path where the weights were found: as named in the file, or else next to it. RistrettoError if the
    file is damaged, is the state of another net or solver type, or its weights do not exist.
    """
    stored = read_solver_state(path)
    parameters = len(dict(expected))
    if len(stored.history) != len(expected):
        raise RistrettoError(
            f"its history has {len(stored.history)} arrays; expected {len(expected)} for this solver type and "
            f"{parameters} trainable parameters",
            where=path,
            hint=_hint(len(stored.history), parameters),
        )
    history = [
        _fitting(blob, key, shape, i, path)
        for i, (blob, (key, shape)) in enumerate(zip(stored.history, expected, strict=True))
    ]
    return SolverState(stored.iteration, stored.current_step, tuple(history), _find_weights(stored))


def check_complete(path: str, net: Net, weights: WeightsFile) -> None:
    """RistrettoError if the weights of the state in `path` lack a layer of the net."""
    needed = [layer.name for layer in net.layers if any(param.owner == layer.name for param in layer.params)]
    missing = [name for name in needed if name not in weights.layers]
    if missing:
        raise RistrettoError(
            f"its weights in {weights.file} lack the layers {', '.join(missing)}",
            where=path,
            hint="To initialize these with fillers, use only the weights, with --weights.",
        )


def _ending(settings: Snapshots) -> str:
    return ".h5" if settings.hdf5 else ""


def _by_layer(net: Net, arrays: Mapping[str, Array]) -> dict[str, list[Array]]:
    return {
        layer.name: [arrays[param.key].reshape(param.shape) for param in layer.params]
        for layer in net.layers
        if layer.params
    }


def _message(layer: Layer) -> Message:
    """The layer's message with the fields that Caffe adds when it builds a net."""
    message = new("LayerParameter")
    message.CopyFrom(layer.message)
    message.phase = layer.phase
    if not message.loss_weight and any(layer.loss_weights):
        message.loss_weight.append(1)
    return message


def _hint(there: int, parameters: int) -> str:
    if parameters and there == 2 * parameters:
        return "It seems to be from Adam or AdaDelta."
    if there == parameters:
        return "It seems to be from a solver type other than Adam and AdaDelta."
    return "It seems to be from another net."


def _fitting(blob: StoredBlob, key: str, shape: Shape, index: int, path: str) -> Array:
    # Old files have four extents; missing leading ones are 1.
    fits = blob.array.shape == ((1,) * (4 - len(shape)) + shape if blob.legacy else shape)
    if not fits:
        raise RistrettoError(
            f"history {index} has shape {show(blob.array.shape)}, but parameter {key} of this net has {show(shape)}",
            where=path,
            hint="It seems to be from another net.",
        )
    if not np.isfinite(blob.array).all():
        raise RistrettoError(
            f"history {index}, of parameter {key}, contains NaN or infinite values",
            where=path,
            hint="The training diverged; resume from an older state.",
        )
    return blob.array.reshape(shape)


def _find_weights(stored: SolverStateFile) -> str:
    """The weights file of a state: as named there, or else next to the state."""
    if not stored.learned_net:
        raise RistrettoError("names no weights file", where=stored.file, hint="Use only the weights, with --weights.")
    neighbour = str(Path(stored.file).parent / Path(stored.learned_net).name)
    for file in (stored.learned_net, neighbour):
        try:
            if Path(file).is_file():
                return file
        except (OSError, ValueError):  # not a valid file name
            continue
    raise RistrettoError(
        f"its weights are neither at {stored.learned_net} nor at {neighbour}",
        where=stored.file,
        hint="Put them in the folder of the state.",
    )
