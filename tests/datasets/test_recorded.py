"""Databases and means that the original wrote, reproduced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.datasets.mean import mean_of_database, write_mean
from ristretto_cli.datasets.new_database import Backend
from ristretto_cli.scoring.scores import number

from .conftest import backend_or_skip, records

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))
ALL = {path.parent: json.loads(path.read_text()) for path in sorted((SHARED / "golden" / "io").glob("*/case.json"))}
CONVERTED = [folder for folder, case in ALL.items() if "convert_arguments" in case]
MEANS = [folder for folder, case in ALL.items() if "channel_means" in case]

pytestmark = pytest.mark.skipif(not ALL, reason="the folder of recorded cases (RISTRETTO_SHARED) is not there")


@pytest.mark.parametrize("folder", CONVERTED, ids=lambda folder: folder.name)
def test_a_database_is_that_of_the_original_byte_for_byte(folder: Path, here: Path) -> None:
    flags = ALL[folder]["convert_arguments"]
    backend = backend_or_skip(flags[flags.index("-backend") + 1])
    assert run(["convert_imageset", *flags, f"{folder}/images/", f"{folder}/list.txt", "db"]) == 0
    expected = records(folder / "db", backend)
    assert expected
    assert records("db", backend) == expected


@pytest.mark.parametrize("folder", MEANS, ids=lambda folder: folder.name)
def test_a_mean_file_is_that_of_the_original_byte_for_byte(folder: Path, here: Path) -> None:
    mean = mean_of_database(str(folder / "db"), Backend.LMDB)
    write_mean("mean.binaryproto", mean)
    assert Path("mean.binaryproto").read_bytes() == (folder / "mean.binaryproto").read_bytes()
    assert [float(number(value)) for value in mean.channels] == ALL[folder]["channel_means"]


def test_the_cases_are_as_many_as_there_were() -> None:
    assert (len(CONVERTED), len(MEANS)) == (23, 2)
