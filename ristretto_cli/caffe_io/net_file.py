"""Reading of net and solver prototxt files: upgraded, with the lines of their layers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.prototxt import Parsed, read
from ristretto_cli.caffe_io.upgrade import upgrade, upgrade_solver
from ristretto_cli.errors import Location, RistrettoError

_LOG = logging.getLogger("ristretto")


@dataclass(frozen=True)
class NetFile:
    """A net: its NetParameter in the current format, and the location of each message.layer.

    complete: false if upgrading dropped a field that did not belong to its layer.
    """

    file: str
    message: Message
    layers: tuple[Location, ...]
    complete: bool = True


@dataclass(frozen=True)
class SolverFile:
    """A solver: its SolverParameter in the current format. parsed: as written in the file, with locations."""

    file: str
    message: Message
    parsed: Parsed

    def net(self, field: str, index: int = 0) -> NetFile:
        """The net inside the solver: net_param, train_net_param, or one of test_net_param."""
        value = getattr(self.message, field)
        if field == "test_net_param":
            return _net_file(self.parsed, value[index], f"{field}[{index}].")
        return _net_file(self.parsed, value, f"{field}.")


def read_net(path: str | Path) -> NetFile:
    """The net in a prototxt file, in the current format. RistrettoError(s) with its errors."""
    _LOG.debug("Reading the net in %s", path)
    parsed = read(path, "NetParameter")
    return _net_file(parsed, parsed.message, "")


def read_solver(path: str | Path) -> SolverFile:
    """The solver in a prototxt file, in the current format. RistrettoError(s) with its errors.

    As in Caffe, a snapshot_prefix that is missing becomes the file's name without its ending, and one that is
    a folder gets that name inside it.
    """
    parsed = read(path, "SolverParameter")
    if not parsed.message.ListFields():
        raise RistrettoError("the file is empty", where=str(path))
    solver = upgrade_solver(parsed.message, file=str(parsed.where("solver_type")))
    if not solver.HasField("snapshot_prefix"):
        _set_prefix(solver, Path(path).with_suffix(""), path)
        _LOG.info("snapshot_prefix was not specified and is set to %s", solver.snapshot_prefix)
    elif Path(solver.snapshot_prefix).is_dir():
        _set_prefix(solver, Path(solver.snapshot_prefix) / Path(path).stem, path)
        _LOG.info("snapshot_prefix was a directory and is replaced to %s", solver.snapshot_prefix)
    return SolverFile(str(path), solver, parsed)


def _set_prefix(solver: Message, prefix: Path, path: str | Path) -> None:
    try:
        solver.snapshot_prefix = str(prefix)
    except UnicodeEncodeError:  # messages are UTF-8, but file names may have any bytes
        hint = "Set snapshot_prefix to a name, or rename the file."
        raise RistrettoError(
            "the file's name is not UTF-8, so snapshot_prefix cannot default to it", where=str(path), hint=hint
        ) from None


def _net_file(parsed: Parsed, message: Message, path: str) -> NetFile:
    file = parsed.file
    field = "layers" if len(message.layers) else "layer"
    if not message.ListFields():
        raise RistrettoError("the file is empty", where=file)
    places = [parsed.where(path + field, i) for i in range(len(getattr(message, field)))]
    upgraded = upgrade(message, places, file=file, input_line=parsed.where(f"{path}input"))
    if not len(upgraded.message.layer):
        raise RistrettoError("the net has no layers", where=file)
    return NetFile(file, upgraded.message, upgraded.layers, upgraded.complete)
