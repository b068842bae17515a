"""The scripts: what they run, and what they say when something is missing."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
QUANTIZE = "00_quantize_squeezenet.sh"
FIXED = "02_benchmark_fixedpoint_squeezenet.sh"
FLOATING = "benchmark_floatingpoint_squeezenet.sh"


@dataclass(frozen=True)
class Place:
    """All that the scripts ask for, in a folder. A stand-in for the command prints folder and arguments."""

    folder: Path

    def run(self, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
        data = self.folder / "data"
        given = {
            "PATH": os.environ["PATH"],
            "RISTRETTO": str(self.folder / "ristretto"),
            "WEIGHTS": str(self.folder / "w.caffemodel"),
            "QUANTIZED": str(self.folder / "q.prototxt"),
            "DATA": str(data),
            **settings,
        }
        return subprocess.run(
            [SCRIPTS / script],
            cwd=self.folder,
            env=given,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "data" / "ilsvrc12_train_lmdb").mkdir(parents=True)
    (tmp_path / "data" / "ilsvrc12_val_lmdb").mkdir()
    (tmp_path / "w.caffemodel").touch()
    (tmp_path / "q.prototxt").touch()
    command = tmp_path / "ristretto"
    command.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    command.chmod(0o755)
    return Place(tmp_path)


def test_quantizes_2000_batches_with_a_margin_of_3_from_the_folder_of_the_databases(place: Place) -> None:
    done = place.run(QUANTIZE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        str(place.folder / "data"),
        "quantize",
        f"--model={SCRIPTS.parent}/models/squeezenet_v1.0/train_val.prototxt",
        f"--weights={place.folder}/w.caffemodel",
        f"--model_quantized={place.folder}/q.prototxt",
        "--trimming_mode=dynamic_fixed_point",
        "--iterations=2000",
        "--error_margin=3",
    ]


def test_fixed_point_scores_the_quantized_net(place: Place) -> None:
    done = place.run(FIXED)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "test",
        f"--model={place.folder}/q.prototxt",
        f"--weights={place.folder}/w.caffemodel",
        "--iterations=2000",
    ]


def test_floating_point_scores_the_net_itself(place: Place) -> None:
    done = place.run(FLOATING, ITERATIONS="7")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "test",
        f"--model={SCRIPTS.parent}/models/squeezenet_v1.0/train_val.prototxt",
        f"--weights={place.folder}/w.caffemodel",
        "--iterations=7",
    ]


def test_paths_are_relative_to_the_folder_it_is_called_from(place: Place) -> None:
    done = place.run(FIXED, WEIGHTS="w.caffemodel", QUANTIZED="q.prototxt", DATA="data", RISTRETTO="./ristretto")
    assert done.stdout.splitlines()[:4] == [
        str(place.folder / "data"),
        "test",
        f"--model={place.folder}/q.prototxt",
        f"--weights={place.folder}/w.caffemodel",
    ]


def test_the_failure_of_the_command_is_the_scripts(place: Place) -> None:
    (place.folder / "ristretto").write_text("#!/bin/sh\nexit 3\n")
    assert place.run(QUANTIZE).returncode == 3


@pytest.mark.parametrize("script", [QUANTIZE, FIXED, FLOATING])
@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("MODEL", "the net is not there: {}. Set MODEL to it"),
        ("WEIGHTS", "the caffemodel is not there: {}. Set WEIGHTS to it"),
        ("DATA", "the folder of the databases is not there: {}. Set DATA to it"),
    ],
)
def test_says_which_path_is_missing(place: Place, script: str, variable: str, words: str) -> None:
    missing = str(place.folder / "nowhere")
    done = place.run(script, **{variable: missing})
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith(f"{script}: " + words.format(missing))
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", [QUANTIZE, FIXED, FLOATING])
def test_says_that_the_validation_database_is_missing(place: Place, script: str) -> None:
    (place.folder / "data" / "ilsvrc12_val_lmdb").rmdir()
    done = place.run(script)
    assert done.returncode == 66
    assert f"the database ilsvrc12_val_lmdb is not there: {place.folder}/data/ilsvrc12_val_lmdb." in done.stderr


def test_only_quantizing_reads_the_training_database(place: Place) -> None:
    (place.folder / "data" / "ilsvrc12_train_lmdb").rmdir()
    assert place.run(QUANTIZE).returncode == 66
    assert [place.run(script).returncode for script in (FIXED, FLOATING)] == [0, 0]


def test_fixed_point_says_to_quantize_first(place: Place) -> None:
    (place.folder / "q.prototxt").unlink()
    done = place.run(FIXED)
    assert done.returncode == 66
    assert (
        f"the quantized net is not there: {place.folder}/q.prototxt. Run 00_quantize_squeezenet.sh first" in done.stderr
    )


@pytest.mark.parametrize("script", [QUANTIZE, FIXED, FLOATING])
def test_says_that_the_command_is_missing(place: Place, script: str) -> None:
    done = place.run(script, RISTRETTO="no-such-ristretto")
    assert (done.returncode, done.stdout) == (69, "")
    assert "there is no command no-such-ristretto. Install it" in done.stderr
