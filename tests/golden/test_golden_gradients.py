"""Every recorded gradient, as a user gets it: `ristretto forward --backward` on torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.cli.main import run

pytest.importorskip("torch", reason="gradients need torch: pip install 'ristretto-cli[train]'")

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
TRAINING = SHARED / "golden" / "training"


def cases() -> list[Any]:
    found = []
    for path in sorted(TRAINING.glob("grad_*/case.json")):
        found.append(pytest.param(path.parent, json.loads(path.read_text()), id=f"gradients/{path.parent.name}"))
    return found or [pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {TRAINING}"))]


@pytest.mark.parametrize(("folder", "case"), cases())
def test_forward_backward_writes_the_gradients_of_the_original(
    folder: Path, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    args = ["forward", "--backward", "--model=net.prototxt", "--input=inputs.npz", f"--output={tmp_path}/out.npz"]
    args += ["--weights=weights.caffemodel"] if Path("weights.caffemodel").exists() else []
    assert run([*args, f"--phase={case['phase']}"]) == 0
    expected, found = read_npz("outputs.npz"), read_npz(tmp_path / "out.npz")
    assert {key for key in expected if "diff:" in key} == {key for key in found if "diff:" in key}
    if "original_bug" in case.get("flags", ()):
        # Reshape loses the gradient in the original: before it all are 0. Here it continues.
        for key in ("diff:data", "diff:x"):
            assert not expected.pop(key).any()
            assert found[key].any()
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, **case["tolerance"], err_msg=key)
