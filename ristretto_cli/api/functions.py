"""The work of `test`, `quantize`, `train` and `export` as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ristretto_cli.backends.device_choice import GpuRequest
from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
from ristretto_cli.formats.number_format import MODES
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.integers.runner import IntegerCompiler
from ristretto_cli.net.build import NetState
from ristretto_cli.ops import AnyArray
from ristretto_cli.quantize import pipeline
from ristretto_cli.quantize.config import Minimize, QuantizeConfig, SearchKind
from ristretto_cli.quantize.header import weights_of
from ristretto_cli.quantize.pins import Skip, is_pin, pin
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.net_files import score_file
from ristretto_cli.scoring.scores import Scores
from ristretto_cli.scoring.user_data import UserData
from ristretto_cli.train.run import TrainConfig, TrainingResult, run


def evaluate(
    model: str,
    weights: str | None = None,
    *,
    iterations: int = 50,
    arrays: Mapping[str, AnyArray] | None = None,
    against: tuple[str, str] | None = None,
    score: str | None = None,
    arithmetic: str = "float",
    rounding: str = "half_even",
    level: int = 0,
    stages: Sequence[str] = (),
    threads: int = 0,
) -> Scores:
    """The scores of a net, quantized or not, as `ristretto test` prints them.

    weights: by default the file named in the model's header. iterations: batches to run. arrays: for inputs, by blob,
    with the images on the first axis, in place of data. against: the prototxt and the weights of a net to compare with;
    score: only this comparison. arithmetic: "float" or "integer", with its rounding. RistrettoError(s) for errors in
    the files and the data.
    """
    if arithmetic not in ("float", "integer"):
        raise RistrettoError(f'"{arithmetic}" is not an arithmetic', hint="Use float or integer.")
    integer = IntegerCompiler(rounding=ShiftRounding(rounding)) if arithmetic == "integer" else None
    return score_file(
        model,
        weights_of(model) if weights is None else weights,
        iterations,
        state=NetState(TEST, level, tuple(stages)),
        execution=Execution(threads=threads),
        against=against,
        score=score,
        data=_user_data(arrays),
        compiler=integer or compile_net,
    )


def quantize(
    model: str,
    weights: str,
    *,
    trimming_mode: str = "dynamic_fixed_point",
    model_quantized: str | None = None,
    bw: Mapping[str, int] | None = None,
    skip: Sequence[str] = (),
    search: str = "groups",
    minimize: str = "weights",
    error_margin: float | None = None,
    arrays: Mapping[str, AnyArray] | None = None,
    threads: int = 0,
    write: bool = True,
    **settings: Any,
) -> QuantizationResult:
    """Quantize a net, and write its prototxt, as `ristretto quantize` does.

    bw: widths in bits, by group ("conv_params", "layer") or part of a layer ("conv1.params"). skip: layers that stay
    float. search, minimize: which widths are searched. error_margin: in percentage points. arrays: for inputs, in place
    of data. model_quantized: the file to write, by default quantized.prototxt beside the model; write: whether to write
    it. settings: further fields of QuantizeConfig (iterations, weights_quantized, fold_batchnorm, ...), and options of
    the trimming mode (fl_params, fl_layer, ...). RistrettoError(s) for errors in the files, the data and the settings.
    """
    options = {each.name: each for each in MODES.get(trimming_mode).options}
    legacy = bool(settings.get("legacy", False))
    chosen = {name: each.default_for(legacy=legacy) for name, each in options.items()}
    chosen.update({name: _text(settings.pop(name)) for name in [*settings] if name in options})
    known = set(QuantizeConfig.__dataclass_fields__)
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, {*known, *options})
            raise RistrettoError(f'quantize has no setting "{name}"', hint=hint)
    target = model_quantized or str(Path(model).parent / "quantized.prototxt")
    if settings.get("fold_batchnorm") and not settings.get("weights_quantized"):
        settings.setdefault("weights_folded", str(Path(target).with_suffix(".caffemodel")))
    widths = dict(bw or {})
    groups = [group.name for group in (*MODES.get(trimming_mode).groups, *MODES.get(trimming_mode).optional_groups)]
    for name in widths:
        if not is_pin(name) and name not in groups:
            raise RistrettoError(f'bw: {trimming_mode} has no group "{name}"', hint=f"Its groups: {', '.join(groups)}.")
    config = QuantizeConfig(
        model=model,
        weights=weights,
        model_quantized=target,
        trimming_mode=trimming_mode,
        mode_options=chosen,
        bw={name: bits for name, bits in widths.items() if not is_pin(name)},
        pins=tuple(pin(name, bits, f"bw[{name!r}]") for name, bits in widths.items() if is_pin(name)),
        skip=tuple(Skip(name, f"skip {name!r}") for name in skip),
        search=_choice(SearchKind, search, "search"),
        minimize=_choice(Minimize, minimize, "minimize"),
        error_margin_percent=error_margin,
        execution=Execution(threads=threads),
        data=_user_data(arrays),
        **settings,
    )
    result = pipeline.quantize(config)
    if write:
        result.write()
    return result


def train(
    solver: str,
    weights: str | None = None,
    *,
    snapshot: str | None = None,
    stages: Sequence[str] = (),
    gpu: int | None = None,
    threads: int = 0,
    trim_activations: bool = False,
    round_to_nearest: bool = False,
    trimmed_weights: bool = False,
) -> TrainingResult:
    """Train the net of a solver prototxt, or fine-tune a quantized one, as `ristretto train` does.

    weights: to start from, comma-separated files; snapshot: a .solverstate to resume from. Needs torch, and runs in the
    main thread only. RistrettoError(s) for errors in the files and the data.
    """
    request = GpuRequest() if gpu is None else GpuRequest(number=gpu)
    config = TrainConfig(
        solver,
        weights=weights,
        snapshot=snapshot,
        gpu=request,
        stages=tuple(stages),
        threads=threads,
        trim_activations=trim_activations,
        round_to_nearest=round_to_nearest,
        trimmed_weights=trimmed_weights,
    )
    return run(config)


def export(
    format: str,
    output: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    rounding: str = "half_even",
    arrays: Mapping[str, AnyArray] | None = None,
    stages: Sequence[str] = (),
    **settings: Any,
) -> str:
    """Write a net or its weights in another format, as `ristretto export` does; lines about what was written.

    format: a name that `ristretto export --help` lists. settings: further fields of ExportRequest (vectors, check,
    batch, ...). RistrettoError(s) for errors in the files, and if a check fails.
    """
    if weights is None and model is not None:
        weights = weights_of(model)
    request = ExportRequest(
        model,
        weights,
        output,
        TEST,
        stages=tuple(stages),
        rounding=ShiftRounding(rounding),
        data=_user_data(arrays),
        **settings,
    )
    return EXPORTS.get(format).write(request)


def _user_data(arrays: Mapping[str, AnyArray] | None) -> UserData | None:
    if arrays is None:
        return None
    return UserData(None, {name: np.asarray(array, np.float32) for name, array in arrays.items()})


def _text(value: Any) -> str:
    """The value of a trimming mode's option as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choice(kind: Any, value: str, what: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(each.value for each in kind)
        raise RistrettoError(f'{what}: "{value}" is unknown', hint=f"Use one of {names}.") from None
