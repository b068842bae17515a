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
from ristretto_cli.train.state import State

log = logging.getLogger("ristretto")


def prepare_snapshots(settings: Snapshots) -> None:
    """RistrettoError where snapshots could not be written; what a killed training left half-written is removed."""
    check_writable(model_file(settings, 0))
    start = Path(os.path.realpath(f"{settings.prefix}_iter_"))
    remove_leftovers(start.parent, start.name, prefix=True)


def model_file(settings: Snapshots, iteration: int) -> str:
    """The name of the weights of a snapshot."""
    return f"{settings.prefix}_iter_{iteration}.caffemodel{_ending(settings)}"


def state_file(settings: Snapshots, iteration: int) -> str:
    """The name of the state of a snapshot."""
    return f"{settings.prefix}_iter_{iteration}.solverstate{_ending(settings)}"


def write_snapshot(
    settings: Snapshots,
    net: Net,
    state: State,
    weights: Mapping[str, Array],
    diffs: Mapping[str, Array] | None = None,
) -> str:
    """Write the weights, then the state; the name of the weights' file.

    weights: float32 by Param.key. diffs: the gradients by Param.key, if they are to be written along (snapshot_diff).
    state.learned_net does not matter. Each file appears whole or not at all, the weights before the state that names
    them: whatever ends the process, each state that is there has its weights. RistrettoError where a file cannot be
    written; what was there before is still there.
    """
    model, file = model_file(settings, state.iteration), state_file(settings, state.iteration)
    log.info(log_lines.writing_model(model))
    write_model(model, net, weights, diffs)
    log.info(log_lines.writing_state(file))
    write_solver_state(file, state.iteration, state.current_step, model, state.history)
    return model


def write_model(path: str, net: Net, weights: Mapping[str, Array], diffs: Mapping[str, Array] | None = None) -> None:
    """Write a net's weights with its layers, as Caffe does, in the format that the file's name tells.

    Layers that Caffe inserts (Split) are left out. In HDF5 a shared parameter is written for its owner alone.
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


def read_state(path: str, expected: Sequence[tuple[str, Shape]]) -> State:
    """The state in a file, to go on with a training that has these history arrays.

    expected: for each array of the solver's history the Param.key of its parameter, and its shape. learned_net of
    the State is the file of the weights where it was found: where it is named, else beside the state. RistrettoError
    where the file is damaged, is the state of another net or solver type, or its weights are not there.
    """
    stored = read_solver_state(path)
    parameters = len(dict(expected))
    if len(stored.history) != len(expected):
        raise RistrettoError(
            f"holds a history of {len(stored.history)} arrays; this net with {parameters} parameters to learn and this "
            f"solver type need {len(expected)}",
            where=path,
            hint=_hint(len(stored.history), parameters),
        )
    history = [
        _fitting(blob, key, shape, i, path)
        for i, (blob, (key, shape)) in enumerate(zip(stored.history, expected, strict=True))
    ]
    return State(stored.iteration, stored.current_step, tuple(history), _find_weights(stored))


def check_complete(path: str, net: Net, weights: WeightsFile) -> None:
    """RistrettoError where the weights that belong to the state in `path` lack a layer of the net that has some."""
    needed = [layer.name for layer in net.layers if any(param.owner == layer.name for param in layer.params)]
    missing = [name for name in needed if name not in weights.layers]
    if missing:
        raise RistrettoError(
            f"its weights in {weights.file} lack the layers {', '.join(missing)}",
            where=path,
            hint="Give the weights alone, by --weights, to have those filled.",
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
    """The layer's message with what building a net adds to it in Caffe."""
    message = new("LayerParameter")
    message.CopyFrom(layer.message)
    message.phase = layer.phase
    if not message.loss_weight and any(layer.loss_weights):
        message.loss_weight.append(1)
    return message


def _hint(there: int, parameters: int) -> str:
    if parameters and there == 2 * parameters:
        return "It looks like one of Adam or AdaDelta."
    if there == parameters:
        return "It looks like one of another solver type than Adam and AdaDelta."
    return "It looks like one of another net."


def _fitting(blob: StoredBlob, key: str, shape: Shape, index: int, path: str) -> Array:
    # Old files have four extents, the missing ones in front being 1.
    fits = blob.array.shape == ((1,) * (4 - len(shape)) + shape if blob.legacy else shape)
    if not fits:
        raise RistrettoError(
            f"history {index} is {show(blob.array.shape)}, and parameter {key} of this net is {show(shape)}",
            where=path,
            hint="It looks like the state of another net.",
        )
    if not np.isfinite(blob.array).all():
        raise RistrettoError(
            f"history {index}, of parameter {key}, holds NaN or infinite values",
            where=path,
            hint="The training diverged: go on from an older state.",
        )
    return blob.array.reshape(shape)


def _find_weights(stored: SolverStateFile) -> str:
    """The file of the weights that belong to a state: Caffe's name for it, else one beside the state."""
    if not stored.learned_net:
        raise RistrettoError("names no weights", where=stored.file, hint="Give the weights alone, by --weights.")
    beside = str(Path(stored.file).parent / Path(stored.learned_net).name)
    for file in (stored.learned_net, beside):
        try:
            if Path(file).is_file():
                return file
        except (OSError, ValueError):  # what cannot be the name of a file
            continue
    raise RistrettoError(
        f"its weights are neither at {stored.learned_net} nor at {beside}",
        where=stored.file,
        hint="Put them beside the state.",
    )
