"""The benchmarks run and count correctly; their measurements are not tested."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.__main__ import ROWS, main, parse
from benchmarks.commands import scored_nets
from benchmarks.machine import busy
from benchmarks.measure import COMMANDS, STATIC_QDQ, CommandRow, PassRow, measure
from benchmarks.nets import NETS, Benchmark, images, prepare
from benchmarks.once import ONCE, STATIC_BY_ONE, UNSCORED, Once, OnceRow
from benchmarks.passes import Times, take_turns
from benchmarks.real_images import real_images
from benchmarks.table import command_table, once_table, pass_table
from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.net.build import NetState
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.net_files import load_net

sys.path.pop(0)

NET = """
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
            data_param { source: "?" backend: LMDB batch_size: 1 } transform_param { scale: 0.01 } }
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
            data_param { source: "?" backend: LMDB batch_size: 1 } transform_param { scale: 0.01 } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Benchmark:
    (tmp_path / "net.prototxt").write_text(NET)
    return Benchmark(tmp_path / "net.prototxt", (1, 8, 8), batch=4, images=8)


def test_every_row_of_a_net_is_measured(tiny: Benchmark, tmp_path: Path) -> None:
    rows = [row for row in ROWS if row not in ONCE]
    found = list(measure("tiny", tiny, tmp_path / "files", rows=rows, threads=[1], rounds=1))
    passes = [row for each in found for row in each.passes]
    commands = [row for each in found for row in each.commands]
    timed = {row.row for row in passes}
    assert timed | {"minifloat 8"} == set(rows) - set(COMMANDS)
    assert STATIC_QDQ in timed
    assert all(row.ratio > 0 and math.isfinite(row.ratio) and row.batch == 4 for row in passes)
    assert [(row.row, row.images) for row in commands] == [(name, 8) for name in COMMANDS]
    assert all(row.nets >= 2 and row.peak_mb > 20 and row.ratio > 0 for row in commands)


def test_a_net_is_quantized_once_by_both_and_scored_on_the_same_images(tiny: Benchmark, tmp_path: Path) -> None:
    rows = [UNSCORED, STATIC_BY_ONE]
    found = list(measure("tiny", tiny, tmp_path / "files", rows=rows, threads=[1], rounds=1))
    assert found[0].told == "tiny: made-up images to quantize once with"
    ours, theirs = (row for each in found for row in each.once)
    assert [(row.row, row.images, row.scored, row.threads) for row in (ours, theirs)] == [
        (UNSCORED, 40, 40, 1),
        (STATIC_BY_ONE, 40, 40, 1),
    ]
    assert all(row.seconds > 0 and row.cpu_seconds > 0 and row.peak_mb > 20 for row in (ours, theirs))
    assert ours.exact_score is None
    assert theirs.exact_score is not None
    # Labels are what the float net says; eight bits change few of them.
    assert min(ours.score, theirs.exact_score) > 0.7


def test_both_are_given_the_same_images(tiny: Benchmark, tmp_path: Path) -> None:
    Once("tiny", tiny, tmp_path, rounds=1)
    with DataLoader(
        load_net(str(tmp_path / "once/train_val.prototxt"), None, NetState(TRAIN), rng=np.random.default_rng(0))
    ) as feeds:
        first = feeds.next()["data"]
    given = np.load(tmp_path / "calibration.npy")
    assert given.shape == (40, 1, 8, 8)
    np.testing.assert_array_equal(given[:4], first)


def test_real_images_are_split_into_those_for_ranges_and_those_to_score(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RISTRETTO_SHARED", str(tmp_path))
    assert real_images((3, 256, 256), 2, tmp_path / "none") is None
    assert real_images((3, 32, 32), 2, tmp_path / "none") is None
    assert real_images((1, 28, 28), 2, tmp_path / "none") is None
    pictures = tmp_path / "data" / "imagenet" / "images"
    pictures.mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(pictures / f"{i}.png"), np.full((4, 5, 3), 10 * i, np.uint8))
    (pictures.parent / "val.txt").write_text("".join(f"{i}.png {7 + i}\n" for i in range(3)))
    real = real_images((3, 256, 256), 2, tmp_path)
    assert real is not None
    assert (real.test_images, real.mean) == (1, None)
    assert records(real.train) == [(0, 7), (10, 8)]
    assert records(real.test) == [(20, 9)]


def records(folder: Path) -> list[tuple[int, int]]:
    """The first pixel and the label of each record."""
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as view:
        found = []
        for _, value in view.cursor():
            record = new("Datum")
            record.ParseFromString(value)
            found.append((record.data[0], record.label))
    return found


def test_the_float_net_is_right_about_all_images(tiny: Benchmark, tmp_path: Path, capsys: Any) -> None:
    from ristretto_cli.cli.main import run

    prepared = prepare(tiny, tmp_path / "files")
    assert prepared.made_up
    assert run(["test", f"--model={prepared.model}", f"--weights={prepared.weights}", "--iterations=2"]) == 0
    assert "accuracy = 1\n" in capsys.readouterr().out


def test_pictures_are_blocks_of_colour_under_noise() -> None:
    (picture,) = images(1, (3, 16, 16), np.random.default_rng(0))
    assert picture.dtype == np.uint8
    block = picture[0, :2, :2].astype(int)  # eight blocks a side, of two pixels
    assert block.max() - block.min() < 32
    assert np.ptp(picture.astype(int)) > 150


def test_the_nets_are_there() -> None:
    assert [name for name, net in NETS.items() if not net.net_file().message.layer] == []


def test_statistics_that_are_made_up_normalize_what_batch_norms_read(tmp_path: Path) -> None:
    prepared = prepare(replace(NETS["densenet"], batch=2, images=2), tmp_path / "files")
    net = load_net(prepared.model, prepared.weights, NetState(TEST), rng=np.random.default_rng(0))
    with DataLoader(net) as feeds:
        session = compile_net(net, lambda run, ops: normalized(net, run), rng=np.random.default_rng(0))
        found = session.run(feeds.next())
    assert len(found) == 28
    for values in found.values():
        assert np.abs(values.mean((0, 2, 3))).max() < 0.1
        assert abs(np.median(values.std((0, 2, 3))) - 1) < 0.1


def normalized(net: Net, run: Run[Any]) -> dict[str, Any]:
    """What BatchNorms make, by layer."""
    layers = zip(net.layers, run.outputs, strict=True)
    return {layer.name: tops[0] for layer, tops in layers if layer.type == "BatchNorm"}


def test_passes_take_turns_and_the_first_round_is_not_timed() -> None:
    calls: list[str] = []
    times = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(each.seconds) for name, each in times.items()} == {"a": 2, "b": 2}


def test_ratios_are_of_medians_and_of_least_times() -> None:
    assert Times((3.0, 9.0, 6.0)).over(Times((2.0, 1.0, 3.0))) == (3.0, 3.0)
    assert Times((3.0, 8.0, 4.0)).over(Times((2.0, 1.0, 3.0))) == (2.0, 3.0)


def test_the_float_net_the_trials_and_the_combined_net_are_counted() -> None:
    trial = {"bits": 8, "score": 1.0}
    groups = [{"trials": [trial, trial]}, {"trials": []}, {"trials": [trial]}]
    assert scored_nets({"groups": groups, "combined": trial}) == 5
    assert scored_nets({"groups": groups[:1], "combined": None}) == 3


def test_tables_have_a_line_for_each_row() -> None:
    row = PassRow("lenet", "8/8 bit", 0, 100, 12.34, 20.0, 0.617, 0.6, 8104.0)
    assert pass_table([row]).splitlines() == [
        "| net | pass | threads | batch | float, ms | ms | ratio, median | ratio, least | images/s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| lenet | 8/8 bit | all | 100 | 20.0 | 12.3 | 0.62 | 0.60 | 8104 |",
    ]
    search = CommandRow("lenet", "quantize minifloat", 1, 2000, 4, 2.5, 1.25, 3200.0, 123.4)
    assert command_table([search]).splitlines()[-1] == (
        "| lenet | quantize minifloat | 1 | 2000 | 4 | 2.5 | 1.25 | 3200 | 123 |"
    )
    once = OnceRow("lenet", UNSCORED, 1, 1000, 2000, 2.5, 2.34, 123.4, 0.99, None)
    theirs = OnceRow("lenet", STATIC_BY_ONE, 1, 1000, 2000, 5.0, 4.0, 500.0, 0.98, 0.985)
    assert once_table([once, theirs]).splitlines()[2:] == [
        "| lenet | once --noscore | 1 | 1000 | 2.5 | 2.3 | 123 | 2000 | 0.9900 | same |",
        "| lenet | once quantize_static by single images | 1 | 1000 | 5.0 | 4.0 | 500 | 2000 | 0.9800 | 0.9850 |",
    ]
    assert pass_table([]) == ""


@pytest.mark.parametrize(("load", "reported"), [(0.1, False), (1.5, True)])
def test_other_work_on_the_machine_is_reported(load: float, reported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    assert ("Load average 1.50" in busy()) is reported


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vgg"], 'no net is called "vgg"; there are lenet, '),
        (["--rows=9 bit"], 'no row is called "9 bit"; there are 8/8 bit, '),
        (["--threads=two"], '"two" is no list of numbers such as 1,0'),
        (["--rounds=0"], "threads begin at 0, rounds and images at 1"),
    ],
)
def test_what_is_not_there_cannot_be_timed(args: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        parse(args)
    assert message in capsys.readouterr().err


def test_help_names_the_nets(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "squeezenet_v1.0" in capsys.readouterr().out
