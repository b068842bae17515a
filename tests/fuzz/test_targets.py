"""The fuzz targets themselves: each takes its seeds, and a few hundred inputs made of them."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.errors import RistrettoError

sys.path.insert(0, str(Path(__file__).parents[2] / "fuzz"))
from mutate import mutate
from targets import TARGETS

sys.path.pop(0)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_refuses_damaged_files_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    target = TARGETS[name]
    seeds = target.seeds()
    if not seeds:
        pytest.skip("its seeds are recorded cases (RISTRETTO_SHARED), which are not there")
    rng = random.Random(1)
    inputs = seeds[:30] + [mutate(rng.choice(seeds), seeds, rng, text=target.text) for _ in range(100)]
    taken = refused = 0
    for data in inputs:
        try:
            target.run(data)
            taken += 1
        except RistrettoError:
            refused += 1
    assert taken
    assert refused
