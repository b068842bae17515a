"""Flags that several commands have, and what becomes of their values."""

from __future__ import annotations

import importlib
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
from ristretto_cli.cli.log import printable
from ristretto_cli.errors import RistrettoError
from ristretto_cli.extensions import ExtensionError
from ristretto_cli.registry import Registry

if TYPE_CHECKING:
    from ristretto_cli.backends.gpu import GpuRequest

_REQUIRED = "ristretto_cli.require_gpu"  # where click's context has the value of --require_gpu

F = TypeVar("F", bound=Callable[..., Any])


class RegistryOption(click.Option):
    """An option that takes a name of a registry, which is loaded no sooner than the help or the value is asked for.

    registry: the module and the name that it has there, "package.module:NAME".
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

    def _load(self) -> Registry[Any]:
        module, name = self._registry.split(":")
        registry: Registry[Any] = getattr(importlib.import_module(module), name)
        return registry


def net_options(command: F) -> F:
    """--model and --weights, both required."""
    weights = option("--weights", "The trained weights, .caffemodel or .h5.", unit="file", required=True)
    return option("--model", "The net's definition, a prototxt.", unit="file", required=True)(weights(command))


def state_options(command: F) -> F:
    """--level and --stage, which choose the layers of a net."""
    stage = option("--stage", "The net's stages, separated by commas.", default="", callback=_names)
    return option("--level", "The net's level.", type=int, default=0)(stage(command))


def phase_option(command: F) -> F:
    """--phase, as the number that it has in the schema."""
    return option("--phase", "TRAIN or TEST.", unit="phase", default="TEST", callback=_phase)(command)


def gpu_option(command: F) -> F:
    """--gpu and --require_gpu, as one GpuRequest called `gpu`; see usable_gpu."""
    text = (
        "The GPU to run on: a number, a list (its first) or all (GPU 0). Otherwise, and if it cannot be used: the CPU."
    )
    return option("--gpu", text, unit="device", callback=_gpu)(require_gpu_option(command))


def require_gpu_option(command: F) -> F:
    """--require_gpu, for gpu_required."""
    return option(
        "--require_gpu",
        "Fail if the GPU cannot be used. If none is given, GPU 0 is asked for.",
        is_flag=True,
        is_eager=True,  # the callback of --gpu needs it
        expose_value=False,
        callback=_require_gpu,
    )(command)


def gpu_required(context: click.Context) -> bool:
    """Whether --require_gpu was given."""
    return bool(context.meta.get(_REQUIRED))


def usable_gpu(request: GpuRequest) -> int | None:
    """The GPU for nets on onnxruntime, None for the CPU; a warning, or RistrettoError, where it cannot be used."""
    from ristretto_cli.backends.gpu import choose_gpu
    from ristretto_cli.backends.onnx_session import probe

    return choose_gpu(request, probe)


def threads_option(command: F) -> F:
    """--threads, how many of the CPU a net may use; 0 for the default."""
    return option(
        "--threads",
        "How many threads a net may use. Default: one per core, within OMP_NUM_THREADS, CPU affinity and CPU quotas.",
        type=click.IntRange(0, 1024),
        default=0,
    )(command)


def graph_option(command: F) -> F:
    """--graph, as the GraphKind that it names."""
    return option(
        "--graph",
        "The ONNX graph: fast, with integer kernels and without needless trims, or plain, a node per primitive.",
        type=click.Choice(["fast", "plain"]),
        default="fast",
        callback=_graph,
    )(command)


def ap_version_option(command: F) -> F:
    """--ap_version, as the Judging that it asks for."""
    return option(
        "--ap_version",
        "The average precision of DetectionEvaluate layers: 11point (VOC 2007), MaxIntegral (VOC 2012), Integral.",
        type=click.Choice(["11point", "MaxIntegral", "Integral"]),
        default="Integral",
        callback=_ap_version,
    )(command)


class Percent(click.FloatRange):
    """A number of 0 to 100."""

    def __init__(self) -> None:
        super().__init__(0, 100)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):  # which is in every range, as click compares
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


STDOUT = "-"  # the value of --json that stands for stdout


def json_option(what: str) -> Callable[[F], F]:
    """--json, the file that takes all of `what`, for write_json and print_result."""
    return option("--json", f"Also write {what} to this file. -: to stdout, in place of the result.", unit="file")


def json_file(json: str | None) -> str | None:
    """The file that --json names; None where it names stdout."""
    return None if json == STDOUT else json


def check_outputs(outputs: Iterable[str | None], inputs: Iterable[str | None]) -> None:
    """RistrettoError where an output cannot be written, is another one as well, or is a file that is read."""
    from ristretto_cli.wire.files import check_writable

    # What cannot be the name of a file is told where it is to be read.
    read = [path for path in inputs if path and "\0" not in path]
    taken = {os.path.realpath(path): "is read by this command" for path in read}
    for path in outputs:
        if path is None:
            continue
        check_writable(path)
        if (what := taken.get(os.path.realpath(path))) is not None:
            raise RistrettoError(what, where=path, remedy="Give the output a name of its own.")
        taken[os.path.realpath(path)] = "is written twice"


def integers(context: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """A list of whole numbers of 1 to 32, separated by commas."""
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f'"{value}" is no list of numbers such as 16,8,4') from None
    if not all(1 <= number <= 32 for number in numbers) or len(set(numbers)) < len(numbers):
        raise click.BadParameter(f'"{value}" must hold different numbers of 1 to 32')
    return numbers


_WIDTHS = frozenset(map(str, range(1, 33)))


def widths(context: click.Context, param: click.Parameter, value: str) -> dict[str, int]:
    """Widths in bits, 1 to 32, by what they are of: name=bits, separated by commas."""
    found: dict[str, int] = {}
    for part in value.split(",") if value else ():
        name, equals, bits = part.partition("=")
        if not equals or bits not in _WIDTHS:
            raise click.BadParameter(f'"{part}" is no width such as conv_params=4, of 1 to 32 bits')
        if name in found:
            raise click.BadParameter(f'"{name}" has two widths')
        found[name] = int(bits)
    return found


def write_json(path: str, data: Any) -> None:
    """Write data as JSON to a file, whole or not at all, or to STDOUT; NaN and infinity become null."""
    from ristretto_cli.wire.files import write_atomically

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
    """Print a result on stdout; log it as well where the log goes to a file, as scripts for Caffe expect it there.

    Where stdout and stderr are the same file, what is logged is not printed, too: such scripts read it in the log.
    logged: the lines as they go to the log, in another order. in_log: the log has them already. json: the value of
    --json; where it is STDOUT, the result goes to the log alone.
    """
    logger = logging.getLogger("ristretto")
    taken = json == STDOUT
    if not in_log and (taken or not sys.stderr.isatty()):
        for line in lines if logged is None else logged:
            logger.info("%s", line)
        in_log = True
    if taken or (in_log and logger.isEnabledFor(logging.INFO) and _one_stream()):
        return
    click.echo(printable("\n".join(lines)))


def _one_stream() -> bool:
    """Whether stdout and stderr are the same file, pipe or terminal."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # a stream that is no file, as in tests
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
    from ristretto_cli.wire.messages import TEST, TRAIN

    phases = {"TRAIN": TRAIN, "TEST": TEST}
    if value.upper() not in phases:
        raise click.BadParameter(f'"{value}" is neither TRAIN nor TEST')
    return phases[value.upper()]


def _ap_version(context: click.Context, param: click.Parameter, value: str) -> Any:
    from ristretto_cli.layers.average_precision import ApVersion
    from ristretto_cli.layers.host_layer import Judging

    given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    return Judging(ApVersion(value), asked_for=given)


def _graph(context: click.Context, param: click.Parameter, value: str) -> Any:
    from ristretto_cli.scoring.execution import GraphKind

    return GraphKind(value)


def _names(context: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name for name in value.split(",") if name)


def _gpu(context: click.Context, param: click.Parameter, value: str | None) -> GpuRequest:
    from ristretto_cli.backends.gpu import GpuRequest, parse_gpu

    required = gpu_required(context)
    if not value:
        return GpuRequest(required=required)
    try:
        return parse_gpu(value, f"--gpu={value}", required=required)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _require_gpu(context: click.Context, param: click.Parameter, value: bool) -> None:
    context.meta[_REQUIRED] = value
