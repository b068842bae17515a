"""Upgrade of old files to the current format: Caffe's three upgrade tools.

They log in the words of those tools. The upgrade of a net returns whether it is complete: false if it dropped a field
that did not belong to its layer; the rest is written anyway. Input and output may be the same file.
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
    """Upgrade a net's prototxt of any format. RistrettoError(s) for its errors."""
    check_writable(target)
    parsed = read(source, "NetParameter")
    old = parsed.message
    if not old.ListFields():
        raise RistrettoError("the file is empty", where=source)
    field = "layers" if len(old.layers) else "layer"
    places = [parsed.where(field, i) for i in range(len(getattr(old, field)))]
    net = upgrade(old, places, file=source, input_line=parsed.where("input"))
    _log_result(source, net.message == old, net.complete)
    write_atomically(target, to_text(net.message))
    _LOG.info("Wrote upgraded NetParameter text proto to %s", target)
    return net.complete


def upgrade_net_binary(source: str, target: str) -> bool:
    """Upgrade a caffemodel of any format. RistrettoError if it is not a caffemodel."""
    check_writable(target)
    old = read_net_binary(source)
    net = upgrade(old, file=source)
    _log_result(source, net.message == old, net.complete)
    write_atomically(target, net.message.SerializeToString())
    _LOG.info("Wrote upgraded NetParameter binary proto to %s", target)
    return net.complete


def upgrade_solver_text(source: str, target: str) -> None:
    """Upgrade a solver's prototxt: its solver_type becomes type. RistrettoError(s) for its errors."""
    check_writable(target)
    parsed = read(source, "SolverParameter")
    old = parsed.message
    if not old.ListFields():
        raise RistrettoError("the file is empty", where=source)
    solver = upgrade_solver(old, file=str(parsed.where("solver_type")))
    _log_result(source, solver == old, True)
    write_atomically(target, to_text(solver))
    _LOG.info("Wrote upgraded SolverParameter text proto to %s", target)


def _log_result(source: str, unchanged: bool, complete: bool) -> None:
    if unchanged:
        _LOG.warning("File already in latest proto format: %s", source)
    if not complete:
        _LOG.error("Encountered error(s) while upgrading prototxt; see details above.")
