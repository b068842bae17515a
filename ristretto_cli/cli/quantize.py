"""Quantize a trained net and write its prototxt."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ristretto_cli.cli.data_flags import DATA_RULES, data_options, user_data
from ristretto_cli.cli.flag_rules import Excludes, Needs
from ristretto_cli.cli.flags import (
    Finite,
    NotNegative,
    Percent,
    Positive,
    RegistryOption,
    ap_version_option,
    check_outputs,
    gpu_option,
    graph_option,
    integers,
    json_file,
    json_option,
    names,
    net_options,
    print_result,
    report_option,
    threads_option,
    usable_gpu,
    widths,
    write_json,
)
from ristretto_cli.cli.gflags import GflagsCommand, NegativeFlag, command_line, given_flags, given_words, option
from ristretto_cli.cli.progress import progress
from ristretto_cli.errors import RistrettoError

if TYPE_CHECKING:
    from ristretto_cli.layers.host_layer import MetricOptions

# Flags that only affect scoring. --cache_mb is a limit, which also holds if nothing is cached.
_FOR_SCORES = (
    "iterations",
    "error_margin",
    "error_margin_absolute",
    "min_sqnr",
    "score",
    "score_goal",
    "ap_version",
    "detection",
    "bit_widths",
    "search",
    "nohold_margin",
    "early_stop",
)

_LIMITS = ("--size_limit_kb", "--bitops_limit")

if TYPE_CHECKING:
    from ristretto_cli.backends.device_choice import GpuRequest
    from ristretto_cli.corrections.corrector import Method
    from ristretto_cli.quantize.pins import Settings
    from ristretto_cli.quantize.result import QuantizationResult


def _mode_flags() -> Sequence[click.Option]:
    """A flag for each option declared by a trimming mode."""
    from ristretto_cli.formats.number_format import mode_options

    for name, (_, modes) in mode_options().items():
        if name in _OWN_FLAGS:
            what = f"trimming mode {' or '.join(modes)} declares --{name}, which is already a flag of quantize"
            raise RistrettoError(what, hint="Rename the option, or uninstall the extension.")
    return [
        click.Option(
            [f"--{name}"],
            help=f"{declared.help} Only with {' or '.join(modes)}.",
            **(
                {"is_flag": True}
                if declared.is_flag
                else {"type": click.Choice(declared.choices), "default": declared.default, "show_default": True}
            ),
        )
        for name, (declared, modes) in mode_options().items()
    ]


_EXAMPLES = """\b
Examples:
  # A net with data layers and labels: a classifier, a detector, a regression
  ristretto quantize --model train_val.prototxt --weights x.caffemodel \\
    --trimming_mode dynamic_fixed_point
  # A deploy net of a classifier, with images and no labels
  ristretto quantize --model deploy.prototxt --weights x.caffemodel \\
    --trimming_mode dynamic_fixed_point \\
    --images photos --resize 256,256 --mean 104,117,123
  # A deploy net of a detector or a regression, with arrays
  ristretto quantize --model deploy.prototxt --weights x.caffemodel \\
    --trimming_mode dynamic_fixed_point \\
    --input x.npz --score sqnr --min_sqnr 30
  # All widths given, nothing to search
  ristretto quantize --model train_val.prototxt --weights x.caffemodel \\
    --trimming_mode dynamic_fixed_point \\
    --bw conv_params=8,fc_params=8,layer=8
  # Few bits: weights corrected without labels, and written to a file of their own
  ristretto quantize --model train_val.prototxt --weights x.caffemodel \\
    --trimming_mode dynamic_fixed_point \\
    --bw conv_params=4,fc_params=4,layer=8 --weights_quantized quantized.caffemodel
  # A width for each layer
  ristretto quantize --model train_val.prototxt --weights x.caffemodel \\
    --trimming_mode dynamic_fixed_point \\
    --search layers --minimize weights"""


@click.command(
    cls=GflagsCommand,
    epilog=_EXAMPLES,
    late_params=_mode_flags,
    rules=[
        Excludes("--json", "--dry_run"),
        Excludes("--report", "--dry_run"),
        *(Excludes(f"--{name}", "--noscore") for name in _FOR_SCORES),
        Excludes("--error_margin", "--error_margin_absolute"),
        Excludes("--error_margin_absolute", "--legacy"),
        Excludes("--min_sqnr", "--legacy"),
        Excludes("--images", "--legacy"),
        Excludes("--input", "--legacy"),
        Excludes("--detection", "--score"),
        *DATA_RULES,
        *(Needs(name, "--search", "layers") for name in ("--minimize", *_LIMITS)),
        *(Excludes(name, limit) for limit in _LIMITS for name in ("--minimize", "--error_margin")),
        Excludes(*_LIMITS, why=f"{' and '.join(_LIMITS)} exclude each other"),
        Needs("--weights_folded", "--fold_batchnorm"),
        Excludes("--weights_folded", "--weights_quantized"),
        Needs("--methods", "--weights_quantized"),
        *(
            Excludes(name, "--legacy")
            for name in ("--fold_batchnorm", "--weights_quantized", "--skip", "--config", "--search")
        ),
    ],
)
@net_options
@option("--model_quantized", "The net to write. Default: quantized.prototxt in the model's folder.", unit="file")
@option(
    "--trimming_mode",
    "The number format, and the way its bit widths are searched.",
    unit="mode",
    required=True,
    cls=RegistryOption,
    registry="ristretto_cli.formats.number_format:MODES",
)
@option("--iterations", "Number of batches to score each net on.", type=click.IntRange(min=1), default=50)
@option(
    "--error_margin",
    "The largest allowed loss of accuracy, in percentage points; "
    "if the score is a loss, its largest allowed increase, in percent. Default: 2.",
    unit="percent",
    type=Percent(),
)
@option(
    "--error_margin_absolute",
    "The same in the unit of the score, instead of --error_margin: the largest allowed loss of a score, or increase of "
    "a loss.",
    type=NotNegative(),
)
@option(
    "--min_sqnr",
    "The lowest allowed signal to noise ratio, in dB; only with --score sqnr. Default: 30.",
    unit="db",
    type=Finite(),
)
@data_options
@gpu_option
@threads_option
@graph_option
@option(
    "--score",
    "The output to use as the score; or, without labels, agreement (share of images with the class of the float net) "
    "or sqnr (signal to quantization noise ratio) of the net's prediction, or agreement:BLOB, sqnr:BLOB. Default: "
    "the output of an Accuracy layer, else of DetectionEvaluate, else a loss; of several, the one on the longest path "
    "through the net; without any, the agreement of a Softmax output.",
    unit="score",
)
@option(
    "--score_goal",
    "Whether a higher or a lower score is better. Default: min for a loss, else max.",
    type=click.Choice(["max", "min"]),
)
@ap_version_option
@option(
    "--detection",
    "Score by the mean average precision of a detector (DetectionEvaluate), as a fork for SSD does; by default with "
    "--ap_version 11point.",
    is_flag=True,
)
@option(
    "--calibration_iterations",
    "Number of batches for calibration (measuring ranges).",
    type=click.IntRange(min=1),
    default=10,
)
@option("--bit_widths", "The bit widths to try.", unit="bits,bits...", default="16,8,4,2,1", callback=integers)
@option(
    "--search",
    "groups tries --bit_widths for each group of layers; smallest finds the smallest width for each group; layers "
    "finds a width for each layer.",
    type=click.Choice(["groups", "smallest", "layers"]),
    default="groups",
)
@option(
    "--minimize",
    "What a search by layers makes small: the size of weights, bit operations, or the memory of activations.",
    type=click.Choice(["weights", "bitops", "activations"]),
    default="weights",
)
@option(
    "--size_limit_kb",
    "Search by layers for the best score with weights of at most this size, in units of 1,000 bytes.",
    type=Positive(),
)
@option(
    "--bitops_limit",
    "Search by layers for the best score with at most this number of bit operations for one input, such as 1.5e9.",
    type=Positive(),
)
@option(
    "--bw",
    "Fixed bit widths, not searched, such as conv_params=4,fc_params=4,layer=8; minifloat: net=8. In dynamic fixed "
    "point bias=16 gives biases a format of their own, and conv1.params=8 fixes the weights of layer conv1; its other "
    "parts are layer, layer_in, layer_out and bias.",
    unit="name=bits,...",
    default="",
    callback=widths,
)
@option(
    "--skip",
    "Layers to leave float; first and last are the first and the last layer that can be quantized.",
    unit="layer,...",
    default="",
    callback=names,
)
@option("--config", "A file with settings of --bw and --skip, such as conv1.params: 8 and skip: ip2.", unit="file")
@option(
    "--fold_batchnorm",
    "First fold BatchNorm, Scale and BN layers, and write the folded weights. In dynamic fixed point, biases then have "
    "a format of their own, of 16 bits unless --bw bias= gives another width.",
    is_flag=True,
)
@option(
    "--weights_folded",
    "The folded weights to write, .caffemodel or .h5. Default: as --model_quantized, ending in .caffemodel.",
    unit="file",
)
@option(
    "--weights_quantized",
    "Correct the weights of each quantized net without labels, and write them to this file, .caffemodel or .h5.",
    unit="file",
)
@option(
    "--methods",
    "The corrections: equalization scales channels, batch_norm matches the statistics of BatchNorm layers, rounding "
    "chooses the direction of rounding for the outputs of layers.",
    unit="name,...",
    default="equalization,batch_norm,rounding",
    callback=names,
)
@option(
    "--calibration_images",
    "Number of images that corrections use.",
    type=click.IntRange(min=1),
    default=1024,
)
@option("--seed", "Seed for the places of images that corrections look at.", type=click.IntRange(min=0), default=0)
@option(
    "--noscore",
    "Measure ranges and write the net without scoring. --bw must give all widths.",
    is_flag=True,
    cls=NegativeFlag,
)
@option(
    "--hold_margin/--nohold_margin",
    "Widen a combined net that misses the error margin.",
    is_flag=True,
    default=True,
)
@option(
    "--early_stop",
    "Stop evaluating a candidate as soon as the remaining batches cannot change whether it passes.",
    is_flag=True,
)
@option(
    "--cache_mb",
    "Memory for cached data, in MB; the excess is spilled to a temporary file. 0 disables the cache.",
    type=click.IntRange(0, 1 << 30),
    default=512,
)
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
@option("--legacy", "Follow the original's procedure exactly, flaws included.", is_flag=True)
@json_option("the complete result")
@report_option
@option("--dry_run", "Only list the nets that would be scored.", is_flag=True)
def command(
    model_quantized: str | None,
    weights_folded: str | None,
    weights_quantized: str | None,
    methods: tuple[str, ...],
    bw: dict[str, int],
    skip: tuple[str, ...],
    config: str | None,
    search: str,
    minimize: str,
    error_margin: float | None,
    score_goal: str | None,
    json: str | None,
    report: str | None,
    dry_run: bool,
    gpu: GpuRequest,
    threads: int,
    graph: tuple[str, ...] | None,
    ap_version: MetricOptions,
    detection: bool,
    **flags: Any,
) -> None:
    """Quantize a trained net and write its prototxt.

    Prints the bit widths tried and their scores, the output used as score, whether the error margin is kept, the
    other outputs, the layers that stay float, and the file written.
    """
    given = given_flags(click.get_current_context())
    mode_options = _pop_mode_options(flags, given)
    settings = _settings(bw, skip, config)
    _check(
        given,
        flags["trimming_mode"],
        settings,
        mode_options,
        legacy=flags["legacy"],
        by_layers=search == "layers",
        minimize=minimize,
    )
    from ristretto_cli.formats.number_format import MODES
    from ristretto_cli.quantize.config import Minimize, QuantizeConfig, SearchKind
    from ristretto_cli.quantize.margin import Goal
    from ristretto_cli.quantize.pipeline import planned_nets, quantize
    from ristretto_cli.quantize.prepare import UnsuitableFlags
    from ristretto_cli.scoring.execution import Execution

    target = model_quantized or str(Path(flags["model"]).parent / "quantized.prototxt")
    weights_target = weights_folded or str(Path(target).with_suffix(".caffemodel"))
    data_flags = {name: flags.pop(name) for name in inspect.signature(user_data).parameters}
    data = user_data(**data_flags)
    job = QuantizeConfig(
        model_quantized=target,
        weights_folded=weights_target if flags["fold_batchnorm"] and not weights_quantized else "",
        weights_quantized=weights_quantized or "",
        methods=_methods(methods),
        mode_options={each.name: mode_options[each.name] for each in MODES.get(flags["trimming_mode"]).options},
        error_margin_percent=error_margin,
        score_goal=None if score_goal is None else Goal(score_goal),
        metric_options=_for_detection(ap_version) if detection else ap_version,
        data=data,
        search=SearchKind(search),
        minimize=Minimize(minimize),
        bw=settings.groups,
        bw_lines=settings.lines,
        pins=settings.pins,
        skip=settings.skips,
        **flags,
    )
    check_outputs(
        [target, job.weights_folded or weights_quantized, json_file(json), report],
        [job.model, job.weights, config, data_flags["input"]],
    )
    if report is not None:
        from ristretto_cli.reports.report import require_libraries

        require_libraries()
    try:
        if dry_run:
            click.echo("\n".join(planned_nets(job)))
            return
        job = replace(job, execution=Execution(usable_gpu(gpu), threads, graph))
        with progress("quantize") as bar:
            result = quantize(job, on_batch=bar.on_batch)
    except UnsuitableFlags as fault:
        raise click.UsageError(str(fault), click.get_current_context()) from fault
    result.write()
    if json is not None:
        write_json(json, result.as_json())
    if report is not None:
        _write_report(report, result, data_flags)
    summary, notes = result.summary_lines(), result.notes()
    # The original's log ends with its summary.
    print_result([*summary, *notes], logged=[*notes, *summary], json=json)


def _write_report(path: str, result: QuantizationResult, data_flags: Iterable[str]) -> None:
    """Write the report. data_flags: the names of the flags for the net's data."""
    from ristretto_cli.reports.quantization import quantization_report
    from ristretto_cli.reports.report import write_report

    context = click.get_current_context()
    given = given_words(context)
    words = [word for name in data_flags for word in given.get(f"--{name}", ())]
    write_report(path, quantization_report(result, command=command_line(context), data_flags=words))


_OWN_FLAGS = frozenset(param.name for param in command.params)  # before those of trimming modes are added


def _pop_mode_options(flags: dict[str, Any], given: Collection[str]) -> dict[str, str]:
    """The values of the options that modes declare, removed from the command's flags. given: those on the command line.

    --legacy has defaults of its own.
    """
    from ristretto_cli.formats.number_format import FLAG, mode_options

    values = {name: flags.pop(name) for name in mode_options()}
    defaults = {name: option.default_for(legacy=flags["legacy"]) for name, (option, _) in mode_options().items()}
    chosen = {name: value for name, value in values.items() if f"--{name}" in given}
    return {**defaults, **{name: FLAG[value] if isinstance(value, bool) else value for name, value in chosen.items()}}


def _methods(names: Sequence[str]) -> tuple[Method, ...]:
    """The corrections with these names. UsageError for others."""
    from ristretto_cli.corrections.corrector import Method

    known = [each.value for each in Method]
    for name in names:
        if name not in known:
            raise click.UsageError(f'--methods: unknown correction "{name}"; known: {", ".join(known)}')
    if not names:
        raise click.UsageError(f"--methods: name at least one correction: {', '.join(known)}")
    return tuple(each for each in Method if each.value in names)


def _settings(bw: Mapping[str, int], skip: Sequence[str], config: str | None) -> Settings:
    """The settings of --bw, --skip and the file --config together; --bw has precedence over the file."""
    from ristretto_cli.quantize.pins import Settings, Skip, is_pin, pin, read_settings

    in_file = Settings() if config is None else read_settings(config)
    groups = {name: bits for name, bits in bw.items() if not is_pin(name)}
    pins = [pin(name, bits, f"--bw {name}={bits}") for name, bits in bw.items() if is_pin(name)]
    return Settings(
        {**in_file.groups, **groups},
        {name: line for name, line in in_file.lines.items() if name not in groups},
        (*in_file.pins, *pins),
        (*in_file.skips, *(Skip(name, f"--skip {name}") for name in skip)),
    )


def _check(
    given: Collection[str],
    trimming_mode: str,
    settings: Settings,
    mode_values: Mapping[str, str],
    *,
    legacy: bool,
    by_layers: bool,
    minimize: str,
) -> None:
    """UsageError for contradictory flags. given: those on the command line."""
    from ristretto_cli.formats.number_format import FLAG, MODES, mode_options

    mode = MODES.get(trimming_mode)
    names = [group.name for group in mode.groups]
    optional = [group.name for group in mode.optional_groups]
    bw = settings.groups
    unknown = [name for name in bw if name not in (*names, *optional)]
    if unknown:
        known = ", ".join([*names, *optional])
        origin = settings.lines.get(unknown[0], "--bw")
        parts = "; parts of layers: conv1.params, ..." if mode.per_layer else ""
        raise click.UsageError(f'{origin}: {trimming_mode} has no group "{unknown[0]}"; its groups: {known}{parts}')
    gives_all = all(name in bw for name in names)
    no_effect = f"has no effect with --trimming_mode={trimming_mode}"
    faults = [
        f"--bw {name}= has no effect with --legacy, which writes only what the original reads"
        for name in optional
        if name in bw and legacy
    ]
    if legacy and settings.pins:
        pinned = settings.pins[0]
        faults.append(
            f"--bw {pinned.layer}.{pinned.part}= has no effect with --legacy, which gives all layers the same widths"
        )
    for name, (declared, modes) in mode_options().items():
        if f"--{name}" in given and declared not in mode.options:
            faults.append(f"--{name} {no_effect}, only with {' or '.join(modes)}")
        if legacy and not declared.in_legacy and mode_values[name] != declared.default_for(legacy=True):
            value = "" if declared.is_flag else f"={mode_values[name]}"
            faults.append(f"--{name}{value} has no effect with --legacy")
    if mode_values.get("same_formats") == FLAG[True]:
        if mode_values.get("fl_layer") == "kl":
            faults.append("--fl_layer=kl excludes --same_formats, which gives several layers one format")
        faults += [
            f"--bw {pinned.layer}.{pinned.part}= excludes --same_formats, with which all activations have one width"
            for pinned in settings.pins
            if pinned.part.startswith("layer")
        ]
        if by_layers and (minimize != "weights" or "--bitops_limit" in given):
            what = "--bitops_limit" if "--bitops_limit" in given else f"--minimize={minimize}"
            faults.append(f"{what} excludes --same_formats, with which all activations have one width")
    if mode_values.get("fl_layer") != "kl" and "--weights_quantized" not in given:
        faults += [
            f"{name} has no effect without --weights_quantized or --fl_layer kl"
            for name in ("--calibration_images", "--seed")
            if name in given
        ]
    if "--bit_widths" in given and mode.widths((), []):
        faults.append(f"--bit_widths {no_effect}, which has fixed widths")
    elif "--bit_widths" in given and gives_all:
        faults.append("--bit_widths has no effect with --bw, which gives all widths")
    if "--search" in given and mode.widths((), []):
        faults.append(f"--search {no_effect}, which has fixed widths")
    elif "--search" in given and gives_all:
        faults.append("--search has no effect with --bw, which gives all widths")
    elif by_layers and not mode.per_layer:
        faults.append(f"--search=layers {no_effect}, which has one width for the whole net")
    if by_layers and "--nohold_margin" in given:
        faults.append("--nohold_margin has no effect with --search=layers, which holds the error margin or a limit")
    if "--early_stop" in given and len(names) == 1:
        faults.append(f"--early_stop {no_effect}, which scores all nets in full")
    elif "--early_stop" in given and gives_all:
        faults.append("--early_stop has no effect with --bw, which gives all widths")
    if "--nohold_margin" in given and len(names) == 1:
        faults.append(f"--nohold_margin {no_effect}, which combines no widths")
    elif "--nohold_margin" in given and gives_all:
        faults.append("--nohold_margin has no effect with --bw, which gives all widths")
    elif "--nohold_margin" in given and legacy:
        faults.append("--nohold_margin has no effect with --legacy, which never widens the combined net")
    if faults:
        raise click.UsageError("\n".join(faults))


def _for_detection(options: MetricOptions) -> MetricOptions:
    """The options of metrics with --detection."""
    from ristretto_cli.layers.average_precision import ApVersion

    version = options.ap_version if options.requested_by else ApVersion.ELEVEN_POINTS
    return replace(options, ap_version=version, requested_by="--detection", detection=True)
