"""Write a net or its weights in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ristretto_cli.cli.data_flags import DATA_RULES, data_options, user_data
from ristretto_cli.cli.flag_rules import Needs
from ristretto_cli.cli.flags import RegistryOption, check_outputs, names, phase_option, state_options
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.integer_flags import affine_bits_option, rounding_option
from ristretto_cli.cli.net_flags import input_shape_option

if TYPE_CHECKING:
    from ristretto_cli.exports.exporter import Exporter

_RULES = [
    Needs("--level", "--model"),
    Needs("--stage", "--model"),
    Needs("--allow_missing_weights", "--model"),
    *DATA_RULES,
]
# All formats use these.
_COMMON = frozenset({"--format", "--model", "--weights", "--output", "--level", "--stage", "--allow_missing_weights"})


_EXAMPLES = """\b
Examples:
  ristretto export --format onnx --model quantized.prototxt --output net.onnx"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES, rules=_RULES)
@option(
    "--format",
    "The format to write.",
    unit="format",
    required=True,
    cls=RegistryOption,
    registry="ristretto_cli.exports.exporter:EXPORTS",
)
@option("--model", "The net's definition, a prototxt.", unit="file")
@option("--weights", "The weights, .caffemodel or .h5. Default: the file named in the model's header.", unit="file")
@option("--output", "The file to write; a folder for formats of several files.", unit="path", required=True)
@rounding_option
@affine_bits_option
@option("--vectors", "Also write the integers of the first N images.", unit="N", type=click.IntRange(min=1))
@option(
    "--check",
    "Run what was written on the first N images, and compare every value with the integer program.",
    unit="N",
    type=click.IntRange(min=1),
)
@data_options
@option(
    "--batch",
    "Images per batch, 0 for any number. Default: any for qdq, 1 for qonnx, otherwise the net's.",
    unit="N",
    type=click.IntRange(min=0),
)
@input_shape_option
@option("--outputs", "The blobs to give, instead of the class scores.", unit="blob,blob...", default="", callback=names)
@option(
    "--pack",
    "Weights narrower than a byte share bytes: two of 4 bits in one. Words of memory files are whole bytes.",
    is_flag=True,
)
@option(
    "--per_line",
    "Weights in a word, a line of a memory file, the first one in its lowest bits.",
    unit="N",
    type=click.IntRange(min=1),
    default=1,
)
@phase_option
@state_options
@option("--allow_missing_weights", "Initialize layers without weights with the net's fillers.", is_flag=True)
def command(
    format: str,
    model: str | None,
    weights: str | None,
    output: str,
    rounding: str,
    affine_bits: int,
    vectors: int | None,
    check: int | None,
    batch: int | None,
    input_shape: dict[str, tuple[int, ...]],
    outputs: tuple[str, ...],
    pack: bool,
    per_line: int,
    phase: int,
    level: int,
    stage: tuple[str, ...],
    allow_missing_weights: bool,
    **data_flags: Any,
) -> None:
    """Write a net or its weights in another format.

    npz contains arrays under the keys layer/i. Without --model, these are the arrays of the weights file; with --model,
    the parameters as the layers of the net's TEST phase use them, quantized if the layer quantizes them.
    """
    from ristretto_cli.exports.exporter import EXPORTS, ExportRequest
    from ristretto_cli.exports.program_exporter import check_folder
    from ristretto_cli.integers.rounding import ShiftRounding
    from ristretto_cli.quantize.header import weights_of

    exporter = EXPORTS.get(format)
    _check_flags(format, exporter)
    if "--vectors" in exporter.takes and not vectors and not check:
        for flag in ("images", "input"):
            if data_flags[flag] is not None:
                raise click.UsageError(f"--{flag} has no effect without --vectors or --check")
    if weights is None and model is not None:
        weights = weights_of(model)
        click.echo(f"Exporting {model} with {weights}, named in its header.", err=True)
    if exporter.writes_folder:
        check_folder(Path(output))
    else:
        check_outputs([output], [model, weights, data_flags["input"]])
    request = ExportRequest(
        model,
        weights,
        output,
        phase,
        level,
        stage,
        allow_missing_weights,
        rounding=ShiftRounding(rounding),
        affine_bits=affine_bits,
        vectors=vectors or 0,
        check=check or 0,
        data=user_data(**data_flags),
        batch=batch,
        outputs=outputs,
        input_shapes=input_shape,
        pack=pack,
        per_line=per_line,
    )
    click.echo(exporter.write(request))


def _check_flags(format: str, exporter: Exporter) -> None:
    """UsageError for a flag that has no effect on a format."""
    context = click.get_current_context()
    for param in context.command.params:
        given = context.get_parameter_source(param.name or "") is not ParameterSource.DEFAULT
        flag = param.opts[0] if param.opts else ""
        if given and flag.startswith("--") and flag not in _COMMON and flag not in exporter.takes:
            raise click.UsageError(f"{flag} has no effect with --format={format}")
