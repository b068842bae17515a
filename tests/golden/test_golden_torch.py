"""Every recorded forward pass once more, computed by the torch backend."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import enum_value
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.net.build import NetState
from ristretto_cli.net.forward import Run, forward
from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.net_files import load_net

torch = pytest.importorskip("torch", reason="the torch backend needs torch: pip install 'ristretto-cli[train]'")

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "golden"
GROUPS = ("layers", "ristretto")
SEMANTICS = {"caffe", "ristretto-gpu"}


def cases() -> list[Any]:
    found = []
    for group in GROUPS:
        for path in sorted(GOLDEN.glob(f"{group}/*/case.json")):
            case = json.loads(path.read_text())
            if case.get("operation", "forward") == "forward" and case["semantics"] in SEMANTICS:
                found.append(pytest.param(path.parent, case, id=f"{group} on torch/{path.parent.name}"))
    return found or [pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {GOLDEN}"))]


@pytest.mark.parametrize(("folder", "case"), cases())
def test_a_forward_pass_on_torch_gives_what_the_original_gave(
    folder: Path, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ristretto_cli.backends.torch_ops import TorchOps

    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    weights = case.get("weights") or next((p.name for p in Path().glob("weights.*")), None)
    state = NetState(enum_value("Phase", case["phase"]), case.get("level", 0), tuple(case.get("stages", ())))
    net = load_net("net.prototxt", weights, state, rng=rng)
    given = read_npz("inputs.npz") if Path("inputs.npz").exists() else {}
    ops: Any = TorchOps(rng)
    with DataLoader(net, given=given) as feeds, torch.no_grad():
        batch = feeds.next()
        run = forward(net, ops, {blob.name: ops.constant(batch[blob.name]) for blob in in_graph(net.inputs)}, rng=rng)
    results, steps = made(net, run), grid_steps(net)
    expected = read_npz("outputs.npz")
    host = {top.name for layer in net.layers for top in layer.tops if top.on_host}
    compared = [key for key in expected if key.split("@")[0] not in host]
    if not compared:
        pytest.skip("all of it is computed after the graph")
    differing = {
        key: text
        for key in compared
        for text in [difference(results.get(key), expected[key], case, steps.get(key.split("@")[0], 0.0))]
        if text
    }
    assert not differing


def made(net: Net, run: Run[Any]) -> dict[str, Any]:
    """The arrays of a run by the keys of the recorded ones."""
    found: dict[str, Any] = {f"{name}@end": value for name, value in run.final.items()}
    for layer, tops in zip(net.layers, run.outputs, strict=True):
        for top, value in zip(in_graph(layer.tops), tops, strict=True):
            found[f"{top.name}@{layer.name}"] = found[top.name] = value
    found |= {f"param_end:{key}": value for key, value in run.updates.items()}
    if run.loss is not None:
        found["@total_loss"] = run.loss
    return {key: value.numpy() for key, value in found.items()}


def grid_steps(net: Net) -> dict[str, float]:
    """One step of the grid of each blob that a layer quantizes."""
    return {
        top.name: 2.0**-layer.message.quantization_param.fl_layer_out
        for layer in net.layers
        if layer.message.HasField("quantization_param")
        for top in layer.tops
    }


def difference(found: Any, expected: Any, case: Mapping[str, Any], step: float) -> str:
    """What is wrong with a result; empty where nothing is."""
    if found is None:
        return "missing"
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    tolerance = case["tolerance"]
    with np.errstate(all="ignore"):
        near = np.isclose(found, expected, rtol=tolerance["rtol"], atol=tolerance["atol"], equal_nan=True)
        flips = np.abs(found - expected) <= step * 1.001
    if near.all() or ((near | flips).all() and (~near).sum() <= case.get("max_rounding_flips", 0)):
        return ""
    where = tuple(np.argwhere(~near)[0])
    return f"{(~near).sum()} of {near.size}, first at {where}: {found[where]}, expected {expected[where]}"
