"""Nets and weights that the original refuses are refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import enum_value
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.engine import record
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.sources.source import SOURCES

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
NEVER_KNOWN = {"NoSuchLayer"}


def recorded_errors():
    cases = sorted((SHARED / "golden" / "io").glob("error_*"))
    for case in cases:
        recorded = json.loads((case / "case.json").read_text())
        marks = []
        if recorded["stage"] == "training":
            continue  # solvers: see tests/golden/test_golden_solver.py
        if recorded["semantics"] == "ristretto-cpu" or "not implemented on CPU" in recorded["message"]:
            marks = [pytest.mark.skip("the original's CPU code lacks what we have")]
        yield pytest.param(case, recorded, id=case.name, marks=marks)
    if not cases:
        yield pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {SHARED}"))


@pytest.mark.parametrize(("case", "recorded"), list(recorded_errors()))
def test_what_the_original_refuses_is_refused(case, recorded, monkeypatch):
    monkeypatch.chdir(case)
    if not recorded.get("parse_error"):
        _skip_types_to_come()
    rng = np.random.default_rng(0)
    with pytest.raises(RistrettoError) as refused:
        record(
            load_net(
                "net.prototxt", recorded.get("weights"), NetState(enum_value("Phase", recorded["phase"])), rng=rng
            ),
            rng=rng,
        )
    # It says where: the file and, for a net, the line.
    assert str(refused.value).startswith((f"{recorded.get('weights')}: ", "net.prototxt:"))


def _skip_types_to_come():
    try:
        types = {layer.type for layer in read_net("net.prototxt").message.layer}
    except RistrettoError:
        return
    unknown = sorted(t for t in types - NEVER_KNOWN if t not in LAYERS and t not in SOURCES)
    if unknown:
        pytest.skip(f"layer types to come: {', '.join(unknown)}")
