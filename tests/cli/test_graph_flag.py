"""--graph: the fast graph and the plain one give the same results, and the plain one is what `export` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.caffe_io.npz import read_npz
from ristretto_cli.cli.main import run

MODES = ["dynamic_fixed_point", "minifloat", "integer_power_of_2_weights"]
TRIMMED = ["--model=quantized.prototxt", "--weights=net.caffemodel"]


def quantize(mode: str, *flags: str) -> int:
    return run(
        [
            "quantize",
            "--model=net.prototxt",
            "--weights=net.caffemodel",
            f"--trimming_mode={mode}",
            "--iterations=2",
            "--json=found.json",
            *flags,
        ]
    )


def found() -> Any:
    found = json.loads(Path("found.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


@pytest.fixture
def models(tried_kernels: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models given to onnxruntime, except those of probes."""
    given: list[Any] = []
    real = onnxruntime.InferenceSession

    def make(model: bytes, *args: Any, **settings: Any) -> Any:
        given.append(onnx.ModelProto.FromString(model))
        return real(model, *args, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    return given


def nodes(model: Any) -> list[tuple[str, str]]:
    return [(node.name, node.op_type) for node in model.graph.node]


@pytest.mark.parametrize(
    ("mode", "flags"),
    [
        *((mode, flags) for mode in MODES for flags in ([], ["--cache_mb=0"], ["--legacy"])),
        ("dynamic_fixed_point", ["--early_stop"]),
    ],
    ids=str,
)
def test_a_search_finds_the_same(two_classes: Any, mode: str, flags: Sequence[str]) -> None:
    two_classes()
    assert quantize(mode, *flags) == 0
    expected = found(), Path("quantized.prototxt").read_text()
    assert quantize(mode, *flags, "--graph=plain") == 0
    assert (found(), Path("quantized.prototxt").read_text()) == expected


@pytest.mark.parametrize("mode", MODES)
def test_test_and_forward_give_the_same(two_classes: Any, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    assert quantize(mode) == 0
    scores, blobs = [], []
    for graph in ("fast", "plain"):
        capsys.readouterr()
        assert run(["test", *TRIMMED, "--iterations=2", f"--graph={graph}"]) == 0
        scores.append(capsys.readouterr().out)
        assert run(["forward", *TRIMMED, "--output=blobs.npz", f"--graph={graph}"]) == 0
        blobs.append(read_npz("blobs.npz"))
    assert "accuracy = " in scores[0]
    assert scores[0] == scores[1]
    assert blobs[0].keys() == blobs[1].keys()
    for name, array in blobs[0].items():
        np.testing.assert_array_equal(array, blobs[1][name], err_msg=name)


def test_features_are_the_same(two_classes: Any) -> None:
    two_classes()
    assert quantize("dynamic_fixed_point") == 0
    arrays = []
    for graph in ("fast", "plain"):
        words = ["net.caffemodel", "quantized.prototxt", "fc", f"{graph}.npz", "2", "lmdb", f"--graph={graph}"]
        assert run(["extract_features", *words]) == 0
        arrays.append(read_npz(f"{graph}.npz")["fc"])
    np.testing.assert_array_equal(*arrays)


@pytest.mark.parametrize("mode", MODES)
def test_the_plain_graph_is_the_one_that_is_exported(two_classes: Any, mode: str, models: list[Any]) -> None:
    two_classes()
    assert quantize(mode) == 0
    assert run(["export", "--format=onnx", "--output=net.onnx", "--outputs=accuracy,loss", *TRIMMED]) == 0
    exported = nodes(onnx.load("net.onnx"))
    models.clear()
    assert run(["test", *TRIMMED, "--iterations=1", "--graph=plain"]) == 0
    (model,) = models  # no second graph, which an assumption would need
    run_by_test = [(name, op) for name, op in nodes(model) if op != "Identity"]
    # `test` also adds up the losses, of which there is one here.
    assert [node for node in run_by_test if node in exported] == exported
    assert {op for _, op in run_by_test} <= {op for _, op in exported} | {"Mul"}
    models.clear()
    assert run(["test", *TRIMMED, "--iterations=1"]) == 0
    assert nodes(models[0]) != nodes(model)


@pytest.mark.parametrize("mode", MODES)
def test_a_plain_search_runs_no_integer_kernel(two_classes: Any, mode: str, models: list[Any]) -> None:
    two_classes()
    assert quantize(mode, "--graph=plain") == 0
    assert len(models) >= 3  # the float net, its ranges, what is trimmed
    ops = {op for model in models for _, op in nodes(model)}
    assert not {op for op in ops if op.startswith("QLinear") or "Quantize" in op or op == "QGemm"}
    assert {node.domain for model in models for node in model.graph.node} == {""}


def test_prefixes_are_kept_of_the_plain_graph_as_well(two_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of FC weights go on from what the float net left there."""
    two_classes()
    fed: list[list[str]] = []
    inner = Session.run

    def watched(session: Session, feeds: Any) -> Any:
        fed.append(sorted(feeds))
        return inner(session, feeds)

    monkeypatch.setattr(Session, "run", watched)
    assert quantize("dynamic_fixed_point", "--graph=plain") == 0
    assert any(name.startswith("activation ") for names in fed for name in names)


@pytest.mark.parametrize(
    ("passes", "integer"),
    [("-integer_products", False), ("-fuse_minifloats, -share_nodes", True), ("drop_quantize,integer_products", True)],
)
def test_graph_passes_chooses_rewrites(two_classes: Any, models: list[Any], passes: str, integer: bool) -> None:
    two_classes()
    assert quantize("dynamic_fixed_point", f"--graph_passes={passes}") == 0
    expected = found()
    ops = {op for model in models for _, op in nodes(model)}
    assert any(op.startswith("QLinear") or op == "QGemm" for op in ops) is integer
    assert quantize("dynamic_fixed_point") == 0
    assert found()["combined"] == expected["combined"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["test", *TRIMMED, "--graph_passes=drop_quantise"],
            """unknown graph pass "drop_quantise". Did you mean drop_quantize?""",
        ),
        (
            ["test", *TRIMMED, "--graph_passes=drop_quantize,-share_nodes"],
            "names with and without a leading minus exclude each other",
        ),
        (
            ["test", *TRIMMED, "--graph=plain", "--graph_passes=drop_quantize"],
            "--graph_passes applies to the fast graph, not to --graph=plain",
        ),
        (["test", *TRIMMED, "--graph=x"], "Invalid value for '--graph': 'x' is not one of 'fast', 'plain'."),
        (
            ["forward", "--model=net.prototxt", "--output=x.npz", "--backward", "--graph=fast"],
            "--graph applies to onnxruntime; --backward runs on torch",
        ),
    ],
    ids=["unknown pass", "both ways", "passes of the plain graph", "unknown", "with torch"],
)
def test_what_cannot_be_is_a_usage_error(
    two_classes: Any, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    two_classes()
    assert run(words) == 2
    assert message in capsys.readouterr().err
    assert not Path("x.npz").exists()
