"""Upgrade of old nets and solvers to the current format, by Caffe's rules and in its order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message, new
from ristretto_cli.caffe_io.upgrade_forks import (
    has_old_precisions,
    has_quantized_flags,
    upgrade_precisions,
    upgrade_quantized_flags,
)
from ristretto_cli.caffe_io.upgrade_v0 import is_v0, upgrade_v0
from ristretto_cli.caffe_io.upgrade_v1 import (
    SOLVER_TYPES,
    TRANSFORMATIONS,
    has_data_transformation,
    move_data_transformation,
    upgrade_v1,
)
from ristretto_cli.errors import Location, RistrettoError

_LOG = logging.getLogger("ristretto")

# Settings in the message of a data layer that have no effect, by type. WindowData does use its own scale.
_IGNORED = {
    "Data": ("data_param", TRANSFORMATIONS),
    "ImageData": ("image_data_param", TRANSFORMATIONS),
    "WindowData": ("window_data_param", ("mean_file", "crop_size", "mirror")),
}


@dataclass(frozen=True)
class Upgraded:
    """A net in the current format. layers: the location of each. complete: whether no field was dropped."""

    message: Message
    layers: tuple[Location, ...]
    complete: bool


def upgrade_net(
    net: Message, lines: Sequence[Location], *, file: str = "", input_line: Location | None = None
) -> tuple[Message, tuple[Location, ...]]:
    """A net in the current format, and the locations of its layers; see `upgrade`."""
    upgraded = upgrade(net, lines, file=file, input_line=input_line)
    return upgraded.message, upgraded.layers


def upgrade(
    net: Message, lines: Sequence[Location] = (), *, file: str = "", input_line: Location | None = None
) -> Upgraded:
    """A copy of a NetParameter of any format in the current one.

    lines: the locations of the entries of its `layer` or `layers`; may be empty. input_line: that of its `input`. file:
    the name for messages. RistrettoError if it contradicts itself.
    """
    here = Location(file or (lines[0].file if lines else ""))
    message = new("NetParameter")
    message.CopyFrom(net)
    complete = True
    places = tuple(lines) or (here,) * (len(net.layers) or len(net.layer))
    if is_v0(message):
        _attempt("input file specified using deprecated V0LayerParameter", here)
        message, places, complete = upgrade_v0(message, places)
        _succeeded("V0LayerParameter", complete)
    if has_data_transformation(message):
        _attempt("input file specified using deprecated transformation parameters", here)
        move_data_transformation(message)
        _succeeded("data transformation parameters", True)
    if len(message.layers):
        _attempt("input file specified using deprecated V1LayerParameter", here)
        message, complete_too = upgrade_v1(message, places[0])
        _succeeded("V1LayerParameter", complete_too)
        complete &= complete_too
    if len(message.input):
        _attempt("input file specified using deprecated input fields", here)
        if _upgrade_input(message, input_line or here):
            places = (input_line or here, *places)
        _succeeded("input fields", True)
    if any(_has_old_params(layer) for layer in message.layer):
        _attempt("batch norm layers using deprecated params", here)
        _upgrade_batch_norm(message)
        _LOG.info("Successfully upgraded batch norm layers using deprecated params.")
    if has_old_precisions(message):
        _attempt("input file specified using old names of precisions", here)
        upgrade_precisions(message)
        _succeeded("names of precisions", True)
    if has_quantized_flags(message):
        _attempt("input file specified using is_quantized instead of quantized types", here)
        upgrade_quantized_flags(message)
        _succeeded("is_quantized", True)
    _warn_of_ignored(message, places)
    return Upgraded(message, places, complete)


def upgrade_solver(solver: Message, *, file: str = "") -> Message:
    """A copy of a SolverParameter with its old solver_type, if set, as type.

    RistrettoError if both are set.
    """
    message = new("SolverParameter")
    message.CopyFrom(solver)
    if not message.HasField("solver_type"):
        return message
    here = Location(file)
    _attempt("input file specified using deprecated 'solver_type' field (enum)", here)
    if message.HasField("type"):
        raise RistrettoError(
            "the solver has both solver_type and type", where=here if file else None, hint="Use only type."
        )
    message.type = SOLVER_TYPES[message.solver_type]
    message.ClearField("solver_type")
    _LOG.info(
        "Successfully upgraded file specified using deprecated 'solver_type' field (enum) to 'type' field (string)."
    )
    return message


def _upgrade_input(net: Message, place: Location) -> bool:
    """Insert an Input layer for the net's own inputs; returns whether they have shapes."""
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        if len(dims) % 4 and len(dims) < 4 * len(net.input):
            raise RistrettoError(
                f"the net has {len(dims)} input_dim", where=place, hint="Set four for each input, or use input_shape."
            )
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if shapes:
        if len(shapes) < len(net.input):
            raise RistrettoError(
                f"the net has {len(net.input)} inputs, but shapes for {len(shapes)}",
                where=place,
                hint="Set an input_shape, or four input_dim, for each input.",
            )
        layer = new("LayerParameter", name="input", type="Input", top=net.input)
        layer.input_param.SetInParent()
        for _, shape in zip(net.input, shapes, strict=False):
            layer.input_param.shape.add(dim=shape)
        layers = [layer, *net.layer]
        net.ClearField("layer")
        net.layer.extend(layers)
    # Without shapes it is an old caffemodel, whose inputs have no meaning.
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    return bool(shapes)


def _has_old_params(layer: Message) -> bool:
    return bool(layer.type == "BatchNorm" and len(layer.param) == 3)


def _upgrade_batch_norm(net: Message) -> None:
    """Exclude the statistics from training; they used to be ordinary parameters."""
    for layer in net.layer:
        if _has_old_params(layer):
            for block in layer.param:
                block.lr_mult = 0.0
                block.decay_mult = 0.0


def _warn_of_ignored(net: Message, places: Sequence[Location]) -> None:
    for layer, place in zip(net.layer, places, strict=True):
        param, names = _IGNORED.get(layer.type, ("", ()))
        if not param or not layer.HasField(param):
            continue
        ignored = [name for name in names if getattr(layer, param).HasField(name)]
        if ignored:
            _LOG.warning(
                '%s: layer "%s": %s in %s has no effect; it belongs in transform_param.',
                place,
                layer.name,
                ", ".join(ignored),
                param,
            )


def _attempt(what: str, where: Location) -> None:
    _LOG.info("Attempting to upgrade %s: %s", what, where)


def _succeeded(what: str, complete: bool) -> None:
    if complete:
        _LOG.info("Successfully upgraded file specified using deprecated %s", what)
    else:
        _LOG.error(
            "Warning: had one or more problems upgrading %s to NetParameter (see above); continuing anyway.",
            what,
        )
