"""Every data layer against what the original read from the same files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.caffe_io.prototxt import read
from ristretto_cli.sources.open import DataLayers, open_source
from ristretto_cli.sources.prefetch import Prefetch

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
CASES = sorted(
    path.parent
    for path in (SHARED / "golden" / "io").glob("*/case.json")
    if (case := json.loads(path.read_text()))["operation"] == "data" and case["types"][0] in DataLayers()
)

pytestmark = pytest.mark.skipif(not CASES, reason="the folder of recorded cases (RISTRETTO_SHARED) is not there")


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
@pytest.mark.parametrize("ahead", [0, 2], ids=["plain", "prefetched"])
def test_batches_are_those_of_the_original(folder: Path, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if folder.name.startswith("leveldb"):
        pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel")
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    case = json.loads(Path("case.json").read_text())
    message = read("net.prototxt", "NetParameter").message.layer[0]
    source = open_source(message, TEST)
    if ahead:
        source = Prefetch(source, ahead)
    compared = 0
    with np.load("outputs.npz") as outputs:
        for turn in range(1, case["passes"] + 1):
            for top, array in zip(message.top, source.next(), strict=True):
                expected = outputs[top if turn == 1 else f"{top}@pass{turn}"]
                assert array.dtype == np.float32
                assert array.shape == expected.shape
                np.testing.assert_allclose(array, expected, **case["tolerance"])
                compared += 1
    source.close()
    assert compared == case["passes"] * len(message.top)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
