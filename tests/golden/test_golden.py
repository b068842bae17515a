"""Every recorded case of the original that is within reach: forward passes of layers and of trimmed nets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.caffe_io.messages import enum_value
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.minifloat import Minifloat
from ristretto_cli.formats.number_format import NumberFormat, Rounding
from ristretto_cli.formats.power_of_two import PowerOfTwo
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.net_files import load_net

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "golden"
SEMANTICS = {"caffe", "ristretto-gpu"}


def cases(group: str, operation: str) -> list[Any]:
    found = []
    for path in sorted(GOLDEN.glob(f"{group}/*/case.json")):
        case = json.loads(path.read_text())
        if case.get("operation", "forward") == operation and case["semantics"] in SEMANTICS:
            found.append(pytest.param(path.parent, case, id=f"{group}/{path.parent.name}"))
    return found or [pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {GOLDEN}"))]


@pytest.mark.parametrize(
    ("folder", "case"), [*cases("layers", "forward"), *cases("ristretto", "forward"), *cases("io", "forward")]
)
def test_a_forward_pass_gives_what_the_original_gave(
    folder: Path, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    _skip_unknown_types(folder)
    rng = np.random.default_rng(0)
    weights = case.get("weights") or next((p.name for p in Path().glob("weights.*")), None)
    state = NetState(enum_value("Phase", case["phase"]), case.get("level", 0), tuple(case.get("stages", ())))
    net = load_net("net.prototxt", weights, state, rng=rng)
    given = read_npz("inputs.npz") if Path("inputs.npz").exists() else {}
    with DataLoader(net, given=given) as feeds:
        results = OnePass(net, rng=rng).run(feeds.next())
    expected = np.load("outputs.npz")
    steps = {top.name: _step(layer.message) for layer in net.layers for top in layer.tops}
    differing = {
        key: text
        for key in expected.files
        for text in [_difference(results.get(key), expected[key], case, steps.get(key.split("@")[0], 0.0))]
        if text
    }
    assert not differing
    assert {key for key in results if key.endswith("@end")} <= set(expected.files)


@pytest.mark.parametrize(("folder", "case"), cases("ristretto", "trim"))
def test_trimming_an_array_gives_what_the_original_gave(folder: Path, case: Mapping[str, Any]) -> None:
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    ops = numpy_ops(np.random.default_rng(0))
    for key, setting in case["settings"].items():
        trimmed = _format(setting).quantize(ops, inputs[setting["input"]], Rounding.NEAREST)
        np.testing.assert_array_equal(trimmed, outputs[key], err_msg=key)
        np.testing.assert_array_equal(np.signbit(trimmed), np.signbit(outputs[key]), err_msg=key)


def _format(setting: Mapping[str, Any]) -> NumberFormat:
    if setting["mode"] == "fixed":
        return Fixed(setting["bw"], setting["fl"])
    if setting["mode"] == "minifloat":
        return Minifloat(setting["mant"], setting["exp"])
    return PowerOfTwo(setting["exp_min"], setting["exp_max"])


def _skip_unknown_types(folder: Path) -> None:
    from ristretto_cli.sources.source import SOURCES

    unknown = [t for t in _types(folder) if t not in LAYERS and t not in SOURCES]
    if unknown:
        pytest.skip(f"layer types to come: {', '.join(unknown)}")


def _types(folder: Path) -> Iterator[str]:
    yield from dict.fromkeys(layer.type for layer in read_net(folder / "net.prototxt").message.layer)


def _step(message: Any) -> float:
    """One step of the grid of a trimmed layer's output."""
    if not message.HasField("quantization_param"):
        return 0.0
    return float(2.0**-message.quantization_param.fl_layer_out)


def _difference(found: Any, expected: Any, case: Mapping[str, Any], step: float) -> str:
    """What is wrong with a result; empty where nothing is."""
    if found is None:
        return "missing"
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    tolerance = case["tolerance"]
    with np.errstate(all="ignore"):
        near = np.abs(found - expected) <= tolerance["atol"] + tolerance["rtol"] * np.abs(expected)
        flips = np.abs(found - expected) <= step * 1.001
    near |= (found == expected) | (np.isnan(found) & np.isnan(expected))
    if near.all() or ((near | flips).all() and (~near).sum() <= case.get("max_rounding_flips", 0)):
        return ""
    where = np.argwhere(~near)[0]
    return f"{(~near).sum()} of {near.size}, first at {where}: {found[tuple(where)]}, expected {expected[tuple(where)]}"
