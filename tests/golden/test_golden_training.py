"""The forward part of the recorded gradients: nets in phase TRAIN, most of them with a loss."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import enum_value
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.net_files import load_net
from ristretto_cli.sources.source import SOURCES

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
TRAINING = SHARED / "golden" / "training"


def cases() -> list[Any]:
    found = []
    for path in sorted(TRAINING.glob("grad_*/case.json")):
        case = json.loads(path.read_text())
        if case["semantics"] == "caffe":  # trimmed weights are rounded at random in TRAIN
            found.append(pytest.param(path.parent, case, id=f"training/{path.parent.name}"))
    return found or [pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {TRAINING}"))]


@pytest.mark.parametrize(("folder", "case"), cases())
def test_a_forward_pass_in_training_gives_what_the_original_gave(
    folder: Path, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    types = dict.fromkeys(layer.type for layer in read_net("net.prototxt").message.layer)
    unknown = [name for name in types if name not in LAYERS and name not in SOURCES]
    if unknown:
        pytest.skip(f"layer types to come: {', '.join(unknown)}")
    rng = np.random.default_rng(0)
    weights = "weights.caffemodel" if Path("weights.caffemodel").exists() else None
    net = load_net("net.prototxt", weights, NetState(enum_value("Phase", case["phase"])), rng=rng)
    with DataLoader(net, given=dict(np.load("inputs.npz"))) as feeds:
        results = OnePass(net, rng=rng).run(feeds.next())
    expected = np.load("outputs.npz")
    compared = [key for key in expected.files if not key.startswith(("diff:", "pdiff:"))]
    assert compared
    for key in compared:
        np.testing.assert_allclose(results[key], expected[key], **case["tolerance"], err_msg=key)
