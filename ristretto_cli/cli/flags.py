"""Flags shared by several commands, and the handling of their values."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ristretto_cli.cli.gflags import option
from ristretto_cli.cli.log import info_on_stderr, log_to_files, printable
from ristretto_cli.errors import RistrettoError
from ristretto_cli.extensions import ExtensionError
from ristretto_cli.registry import Registry, load_registry

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ristretto_cli.backends.device_choice import GpuRequest

_GRAPH_PASSES = "ristretto_cli.graph_passes"  # key of the names that --graph_passes gives
_REQUIRED = "ristretto_cli.require_gpu"  # key of --require_gpu in click's context

F = TypeVar("F", bound=Callable[..., Any])


class RegistryOption(click.Option):
    """An option that takes a name from a registry, which is loaded only when the help or the value is needed.

    registry: the registry's location, "package.module:NAME".
    """

    def __init__(self, *args: Any, registry: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._registry = registry

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        names = ", ".join(self._load().names(aliases=False))
        return record and (record[0], record[1].replace(self.help or "", f"{self.help} One of: {names}."))

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        value = super().type_cast_value(ctx, value)
        if value is not None:
            try:
                self._load().get(value)
            except ExtensionError:
                raise
            except RistrettoError as error:
                raise click.BadParameter(str(error), ctx, self) from error
        return value

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self._load().names() if name.startswith(incomplete)]

    def _load(self) -> Registry[Any]:
        return load_registry(self._registry)


def net_options(command: F) -> F:
    """--model and --weights, both required."""
    weights = option("--weights", "The trained weights, .caffemodel or .h5.", unit="file", required=True)
    return option("--model", "The net's definition, a prototxt.", unit="file", required=True)(weights(command))


def state_options(command: F) -> F:
    """--level and --stage, which select the layers of a net."""
    stage = option("--stage", "The net's stages, separated by commas.", default="", callback=names)
    return option("--level", "The net's level.", type=int, default=0)(stage(command))


def phase_option(command: F) -> F:
    """--phase, as its number in the schema."""
    return option("--phase", "TRAIN or TEST.", unit="phase", default="TEST", callback=_phase)(command)


def gpu_option(command: F) -> F:
    """--gpu and --require_gpu, as one GpuRequest called `gpu`; see usable_gpu."""
    return option(
        "--gpu",
        "The GPU to run on: a number, a list (the first is used) or all (GPU 0). "
        "Default: the CPU, which is also the fallback.",
        unit="device",
        callback=_gpu,
    )(require_gpu_option("--gpu")(command))


def require_gpu_option(gpu: str) -> Callable[[F], F]:
    """--require_gpu, read by gpu_required. gpu: the argument that it replaces, as named in the help."""
    return option(
        "--require_gpu",
        f"Fail if the GPU cannot be used. Without {gpu}, requests GPU 0.",
        is_flag=True,
        is_eager=True,  # the callback of --gpu needs it
        expose_value=False,
        callback=_require_gpu,
    )


def gpu_required(context: click.Context) -> bool:
    """Whether --require_gpu was given."""
    return bool(context.meta.get(_REQUIRED))


def usable_gpu(request: GpuRequest) -> int | None:
    """The GPU for nets on onnxruntime, None for the CPU; logs a warning, or raises, if it cannot be used."""
    from ristretto_cli.backends.device_choice import choose_gpu
    from ristretto_cli.backends.onnx_session import probe

    return choose_gpu(request, probe)


def threads_option(command: F) -> F:
    """--threads, the number of CPU threads for a net; 0 for the default."""
    return option(
        "--threads",
        "Number of threads for a net. Default: one per core, limited by OMP_NUM_THREADS, CPU affinity and CPU quotas.",
        type=click.IntRange(0, 1024),
        default=0,
        show_default=False,  # the text gives it
    )(command)


def graph_option(command: F) -> F:
    """--graph and --graph_passes, as one parameter `graph`: the names of graph passes, or None for all of them."""
    command = option(
        "--graph_passes",
        "The rewrites of the fast graph, separated by commas: those to run, or, each with a leading minus, those to "
        "omit.",
        metavar="NAMES",
        is_eager=True,
        expose_value=False,
        callback=_graph_passes,
    )(command)
    return option(
        "--graph",
        "The ONNX graph: fast (integer kernels, no redundant quantization) or plain (one node per primitive).",
        type=click.Choice(["fast", "plain"]),
        default="fast",
        callback=_graph,
    )(command)


def ap_version_option(command: F) -> F:
    """--ap_version, as MetricOptions."""
    return option(
        "--ap_version",
        "The average precision that DetectionEvaluate computes: 11point (VOC 2007), MaxIntegral (VOC 2012), Integral.",
        type=click.Choice(["11point", "MaxIntegral", "Integral"]),
        default="Integral",
        callback=_ap_version,
    )(command)


class Finite(click.types.FloatParamType):
    """A finite number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class NotNegative(click.FloatRange):
    """A finite number of at least 0, up to `most`."""

    def __init__(self, most: float | None = None) -> None:
        super().__init__(0, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):  # click's comparisons let NaN pass every range
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Percent(NotNegative):
    """A number from 0 to 100."""

    def __init__(self) -> None:
        super().__init__(100)


class Positive(click.FloatRange):
    """A finite number above 0, such as 125 or 1.5e9."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


STDOUT = "-"  # the value of --json that means stdout


def json_option(what: str) -> Callable[[F], F]:
    """--json, the file to write `what` to, for write_json and print_result."""
    return option(
        "--json", f"Also write {what} to this file. Use - for stdout, which then has only the JSON.", unit="file"
    )


def report_option(command: F) -> F:
    """--report, the HTML file to write a report to."""
    return option(
        "--report", "Also write a report to this file: an HTML page with charts and the next commands.", unit="file"
    )(command)


def json_file(json: str | None) -> str | None:
    """The file given by --json; None for stdout."""
    return None if json == STDOUT else json


def check_outputs(outputs: Iterable[str | None], inputs: Iterable[str | None]) -> None:
    """RistrettoError if an output cannot be written, is given twice, or is also an input."""
    from ristretto_cli.caffe_io.files import check_writable

    # An invalid file name is reported when the file is read.
    read = [path for path in inputs if path and "\0" not in path]
    taken = {os.path.realpath(path): "is an input of this command" for path in read}
    for path in outputs:
        if path is None:
            continue
        check_writable(path)
        if (what := taken.get(os.path.realpath(path))) is not None:
            raise RistrettoError(what, where=path, hint="Choose another name for the output.")
        taken[os.path.realpath(path)] = "is given for two outputs"


def integers(context: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """A comma-separated list of integers from 1 to 32."""
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f'"{value}": expected a list of numbers such as 16,8,4') from None
    if not all(1 <= number <= 32 for number in numbers) or len(set(numbers)) < len(numbers):
        raise click.BadParameter(f'"{value}": expected distinct numbers from 1 to 32')
    return numbers


_WIDTHS = frozenset(map(str, range(1, 33)))


def widths(context: click.Context, param: click.Parameter, value: str) -> dict[str, int]:
    """Bit widths from 1 to 32 by name: name=bits, separated by commas.

    A name is a group's, or a layer's with a part: conv1.params.
    """
    found: dict[str, int] = {}
    for part in value.split(",") if value else ():
        name, equals, bits = part.rpartition("=")  # names of layers may contain equals signs
        if not equals or bits not in _WIDTHS:
            raise click.BadParameter(f'"{part}": expected a width from 1 to 32 bits, such as conv_params=4')
        if name in found:
            raise click.BadParameter(f'"{name}" is given twice')
        found[name] = int(bits)
    return found


def write_json(path: str, data: Any) -> None:
    """Write data as JSON to a file, atomically, or to STDOUT; NaN and infinity become null."""
    from ristretto_cli.caffe_io.files import write_atomically

    text = json.dumps(_finite(data), indent=2, allow_nan=False) + "\n"
    if path == STDOUT:
        click.echo(text, nl=False)
    else:
        write_atomically(path, text)


def print_result(
    lines: Sequence[str],
    *,
    logged: Sequence[str] | None = None,
    in_log: bool = False,
    json: str | None = None,
) -> None:
    """Print a result on stdout, and also log it if the log goes to a file, where scripts for Caffe expect it.

    If stdout and stderr are the same file, logged lines are not printed as well: such scripts read the log.
    logged: the lines in the order of the log. in_log: they are in the log already. json: the value of --json; if it
    is STDOUT, the result goes only to the log.
    """
    logger = logging.getLogger("ristretto")
    taken = json == STDOUT
    if not in_log and (taken or not sys.stderr.isatty()):
        for line in lines if logged is None else logged:
            logger.info("%s", line)
        in_log = True
    elif not in_log:
        log_to_files(logging.INFO, lines if logged is None else logged)
    if taken or (in_log and info_on_stderr() and _one_stream()):
        return
    click.echo(printable("\n".join(lines)))


def _one_stream() -> bool:
    """Whether stdout and stderr are the same file, pipe or terminal."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # a stream without a file, as in tests
        return False


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not (float("-inf") < data < float("inf")):
        return None
    return data


def _phase(context: click.Context, param: click.Parameter, value: str) -> int:
    from ristretto_cli.caffe_io.messages import TEST, TRAIN

    phases = {"TRAIN": TRAIN, "TEST": TEST}
    if value.upper() not in phases:
        raise click.BadParameter(f'"{value}": expected TRAIN or TEST')
    return phases[value.upper()]


def _ap_version(context: click.Context, param: click.Parameter, value: str) -> Any:
    from ristretto_cli.layers.average_precision import ApVersion
    from ristretto_cli.layers.host_layer import MetricOptions

    given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    return MetricOptions(ApVersion(value), requested_by="--ap_version" if given else "")


def _graph(context: click.Context, param: click.Parameter, value: str) -> tuple[str, ...] | None:
    passes: tuple[str, ...] | None = context.meta.get(_GRAPH_PASSES)
    if value == "plain" and passes is not None:
        raise click.UsageError("--graph_passes applies to the fast graph, not to --graph=plain")
    return () if value == "plain" else passes


def _graph_passes(context: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    from ristretto_cli.backends.graph_passes.graph_pass import GRAPH_PASSES, all_passes
    from ristretto_cli.errors import did_you_mean

    names = [name.strip() for name in value.split(",") if name.strip()]
    without = [name.removeprefix("-") for name in names if name.startswith("-")]
    if without and len(without) < len(names):
        raise click.BadParameter("names with and without a leading minus exclude each other")
    for name in without or names:
        if name not in GRAPH_PASSES:
            near = did_you_mean(name, GRAPH_PASSES.names()) or f"Known: {', '.join(all_passes())}."
            raise click.BadParameter(f'unknown graph pass "{name}". {near}')
    chosen = [name for name in all_passes() if (name not in without if without else name in names)]
    context.meta[_GRAPH_PASSES] = tuple(chosen)


def names(context: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """A comma-separated list of names."""
    return tuple(name for name in value.split(",") if name)


def _gpu(context: click.Context, param: click.Parameter, value: str | None) -> GpuRequest:
    from ristretto_cli.backends.device_choice import GpuRequest, parse_gpu

    required = gpu_required(context)
    if not value:
        return GpuRequest(required=required)
    try:
        return parse_gpu(value, f"--gpu={value}", required=required)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _require_gpu(context: click.Context, param: click.Parameter, value: bool) -> None:
    context.meta[_REQUIRED] = value
