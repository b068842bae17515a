"""Upgrade of old files to the current format: Caffe's three upgrade tools.

They log what they do in those tools' words. The upgrade of a net returns whether it is complete: false where
it dropped a field that did not belong to its layer; the rest is written all the same. Input and output may be
the same file.
"""

from __future__ import annotations

import logging

from ristretto_cli.caffe_io.files import check_writable, write_atomically
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.caffe_io.prototxt import read
from ristretto_cli.caffe_io.upgrade import upgrade, upgrade_solver
from ristretto_cli.caffe_io.weights import read_net_binary
from ristretto_cli.errors import RistrettoError

_LOG = logging.getLogger("ristretto")


def upgrade_net_text(source: str, target: str) -> bool:
    """A net's prototxt, in whatever format, to one in the present format. RistrettoError(s) for its faults."""
    check_writable(target)
    parsed = read(source, "NetParameter")
    old = parsed.message
    if not old.ListFields():
        raise RistrettoError("the file is empty", where=source)
    field = "layers" if len(old.layers) else "layer"
    places = [parsed.where(field, i) for i in range(len(getattr(old, field)))]
    net = upgrade(old, places, file=source, input_line=parsed.where("input"))
    _tell(source, net.message == old, net.complete)
    write_atomically(target, to_text(net.message))
    _LOG.info("Wrote upgraded NetParameter text proto to %s", target)
    return net.complete


def upgrade_net_binary(source: str, target: str) -> bool:
    """A caffemodel, in whatever format, to one in the present format. RistrettoError where it is none."""
    check_writable(target)
    old = read_net_binary(source)
    net = upgrade(old, file=source)
    _tell(source, net.message == old, net.complete)
    write_atomically(target, net.message.SerializeToString())
    _LOG.info("Wrote upgraded NetParameter binary proto to %s", target)
    return net.complete


def upgrade_solver_text(source: str, target: str) -> None:
    """A solver's prototxt with its solver_type, if it has one, as type. RistrettoError(s) for its faults."""
    check_writable(target)
    parsed = read(source, "SolverParameter")
    old = parsed.message
    if not old.ListFields():
        raise RistrettoError("the file is empty", where=source)
    solver = upgrade_solver(old, file=str(parsed.where("solver_type")))
    _tell(source, solver == old, True)
    write_atomically(target, to_text(solver))
    _LOG.info("Wrote upgraded SolverParameter text proto to %s", target)


def _tell(source: str, unchanged: bool, complete: bool) -> None:
    if unchanged:
        _LOG.warning("File already in latest proto format: %s", source)
    if not complete:
        _LOG.error("Encountered error(s) while upgrading prototxt; see details above.")
