"""Upgrade of old nets and solvers to the current format, by Caffe's rules and in its order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ristretto_cli.caffe_io.messages import Message, new
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

# Settings in a data layer's own message that nothing reads, by type. WindowData does read its own scale.
_IGNORED = {
    "Data": ("data_param", TRANSFORMATIONS),
    "ImageData": ("image_data_param", TRANSFORMATIONS),
    "WindowData": ("window_data_param", ("mean_file", "crop_size", "mirror")),
}


@dataclass(frozen=True)
class Upgraded:
    """A net in the present format. layers: where each stands; complete: no field was dropped as unknown."""

    message: Message
    layers: tuple[Location, ...]
    complete: bool


def upgrade_net(
    net: Message, lines: Sequence[Location], *, file: str = "", input_line: Location | None = None
) -> tuple[Message, tuple[Location, ...]]:
    """A net in the present format, and where each of its layers stands; see `upgrade`."""
    upgraded = upgrade(net, lines, file=file, input_line=input_line)
    return upgraded.message, upgraded.layers


def upgrade(
    net: Message, lines: Sequence[Location] = (), *, file: str = "", input_line: Location | None = None
) -> Upgraded:
    """A copy of a NetParameter of any age in the present format.

    lines: where each entry of its `layer`, or of its `layers`, stands; may be empty. input_line: where its
    `input` stands. file: its name, for messages. RistrettoError where it contradicts itself.
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
    _warn_of_ignored(message, places)
    return Upgraded(message, places, complete)


def upgrade_solver(solver: Message, *, file: str = "") -> Message:
    """A copy of a SolverParameter with its old solver_type, if it has one, as type.

    RistrettoError where it has both.
    """
    message = new("SolverParameter")
    message.CopyFrom(solver)
    if not message.HasField("solver_type"):
        return message
    here = Location(file)
    _attempt("input file specified using deprecated 'solver_type' field (enum)", here)
    if message.HasField("type"):
        raise RistrettoError(
            "the solver has both solver_type and type", where=here if file else None, hint="Keep type."
        )
    message.type = SOLVER_TYPES[message.solver_type]
    message.ClearField("solver_type")
    _LOG.info(
        "Successfully upgraded file specified using deprecated 'solver_type' field (enum) to 'type' field (string)."
    )
    return message


def _upgrade_input(net: Message, place: Location) -> bool:
    """Put an Input layer in front for the net's own inputs; whether there was a shape to give it."""
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        if len(dims) % 4 and len(dims) < 4 * len(net.input):
            raise RistrettoError(
                f"{len(dims)} input_dim", where=place, hint="Give four for each input, or input_shape."
            )
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if shapes:
        if len(shapes) < len(net.input):
            raise RistrettoError(
                f"{len(net.input)} inputs, but shapes for {len(shapes)}",
                where=place,
                hint="Give an input_shape, or four input_dim, for each input.",
            )
        layer = new("LayerParameter", name="input", type="Input", top=net.input)
        layer.input_param.SetInParent()
        for _, shape in zip(net.input, shapes, strict=False):
            layer.input_param.shape.add(dim=shape)
        layers = [layer, *net.layer]
        net.ClearField("layer")
        net.layer.extend(layers)
    # Without a shape it is a caffemodel of old, whose inputs mean nothing.
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    return bool(shapes)


def _has_old_params(layer: Message) -> bool:
    return bool(layer.type == "BatchNorm" and len(layer.param) == 3)


def _upgrade_batch_norm(net: Message) -> None:
    """Stop solvers from training the statistics, which were parameters like others once."""
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
