"""Real networks, quantized as the original does it, against what the original wrote and printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.prototxt import read
from ristretto_cli.formats.fixed import integer_length
from ristretto_cli.formats.number_format import Role
from ristretto_cli.quantize.config import QuantizeConfig
from ristretto_cli.quantize.pipeline import quantize
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.scores import Scores

from ..conftest import FULL
from .conftest import NETS, Recorded

DYNAMIC, MINIFLOAT, POWER_OF_2 = "dynamic_fixed_point", "minifloat", "integer_power_of_2_weights"
QUICK = {("lenet", DYNAMIC), ("lenet", MINIFLOAT), ("lenet", POWER_OF_2), ("resnet20", DYNAMIC)}
QUICK |= {("cifar10_full", mode) for mode in (DYNAMIC, MINIFLOAT, POWER_OF_2)}

full_only = pytest.mark.skipif(not FULL, reason="takes long: run it with RISTRETTO_FULL=1")
Prepare = Callable[[str], Recorded]


def _cases() -> Iterator[Any]:
    for name in NETS:
        for mode in (DYNAMIC, MINIFLOAT, POWER_OF_2):
            marks = [] if (name, mode) in QUICK else [full_only]
            yield pytest.param(name, mode, id=f"{name}-{mode}", marks=marks)


@pytest.mark.parametrize(("name", "mode"), list(_cases()))
def test_legacy_finds_what_the_original_found(name: str, mode: str, recorded: Prepare, tmp_path: Path) -> None:
    case = recorded(name)
    expected = json.loads((case.folder / "gpu" / f"{mode}.json").read_text())
    assert (expected["iterations"], expected["error_margin"]) == (case.iterations, case.error_margin_percent)
    job = _job(case, tmp_path / "quantized.prototxt", mode, legacy=True)
    outcome = quantize(job)
    Path(job.model_quantized).write_text(outcome.prototxt())

    assert _integer_lengths(outcome) == expected["integer_lengths"] or mode != DYNAMIC
    assert _trims(job.model_quantized) == _trims(case.folder / "gpu" / f"{mode}.prototxt")
    one_image = 1 / case.images + 1e-6
    found = [scores.of(outcome.score_blob) for scores in _trials(outcome)]
    means = [trial["means"][outcome.score_blob] for i, trial in enumerate(expected["trials"]) if i != 1]
    assert found == pytest.approx(means, abs=one_image)
    _assert_same_summary(outcome.summary_lines(), expected["summary"], one_image)


def _job(case: Recorded, target: Path, mode: str, **settings: Any) -> QuantizeConfig:
    return QuantizeConfig(
        model=case.model,
        weights=case.weights,
        model_quantized=str(target),
        trimming_mode=mode,
        **{"iterations": case.iterations, "error_margin_percent": case.error_margin_percent, **settings},
    )


def _integer_lengths(outcome: QuantizationResult) -> dict[str, list[int]]:
    return {
        each.layer.name: [
            integer_length(each.ranges.of(role), role) for role in (Role.LAYER_IN, Role.LAYER_OUT, Role.PARAMS)
        ]
        for each in outcome.layers
    }


def _trims(path: str | Path) -> list[tuple[str, str, Message]]:
    """Each layer of a written net: its name, its type and its quantization_param."""
    message = read(path, "NetParameter").message
    return [(layer.name, layer.type, layer.quantization_param) for layer in message.layer]


def _trials(outcome: QuantizationResult) -> list[Scores]:
    """The scores in the order in which nets were scored."""
    trials = [trial for group in outcome.search.groups for trial in group.trials]
    combined = outcome.search.combined
    if combined is not None and not any(combined is trial for trial in trials):
        trials.append(combined)
    return [outcome.baseline_scores, *(trial.scores for trial in trials)]


def _assert_same_summary(found: list[str], expected: list[str], tolerance: float) -> None:
    """The same lines, except the digits of a score, which may differ by the tolerance."""
    score = re.compile(r"(?<=[\t ])[\d.e-]+$")
    assert [score.sub("#", line) for line in found] == [score.sub("#", line) for line in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if ours != theirs:
            (a,), (b,) = score.findall(ours), score.findall(theirs)
            assert float(a) == pytest.approx(float(b), abs=tolerance), ours


def test_resnet20_keeps_its_accuracy_with_8_bits(recorded: Prepare, tmp_path: Path) -> None:
    """The original's ranges leave 10 % of this net: it reads them after the in-place layers."""
    job = _job(recorded("resnet20"), tmp_path / "q.prototxt", DYNAMIC, bit_widths=(8,))
    outcome = quantize(job)
    (written,) = {
        (layer.quantization_param.bw_params, layer.quantization_param.bw_layer_in)
        for layer in outcome.net_file.message.layer
        if layer.HasField("quantization_param")
    }
    assert written == (8, 8)
    combined = outcome.search.combined
    assert combined is not None
    assert outcome.baseline == pytest.approx(0.919, abs=0.002)
    assert combined.score >= outcome.baseline - 0.01


@full_only
def test_resnet20_with_8_bits_on_all_10000_images(recorded: Prepare, tmp_path: Path) -> None:
    case = recorded("resnet20")
    outcome = quantize(_job(case, tmp_path / "q.prototxt", DYNAMIC, bit_widths=(8,), iterations=100))
    assert outcome.baseline == pytest.approx(0.9181, abs=0.0002)
    # 0.917, 0.9183 and 0.9153 were measured: convolutions' weights, inner products' weights, activations
    assert [group.trials[0].score >= 0.915 for group in outcome.search.groups] == [True] * 3
    combined = outcome.search.combined
    assert combined is not None
    assert combined.score >= 0.912  # 0.9131 was measured, with all of them together
