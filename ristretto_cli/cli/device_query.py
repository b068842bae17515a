"""Show the GPUs and whether nets can run on them."""

from __future__ import annotations

import click

from ristretto_cli.cli.flags import print_result
from ristretto_cli.cli.gflags import GflagsCommand, option

_EXAMPLES = """\b
Examples:
  ristretto device_query --gpu all"""


@click.command(cls=GflagsCommand, epilog=_EXAMPLES)
@option("--gpu", "The GPUs: a number, a list or all.", unit="devices", default="all")
@option("--require_gpu", "Fail unless nets can run on each of them.", is_flag=True)
def command(gpu: str, require_gpu: bool) -> None:
    """Show the GPUs and whether nets can run on them.

    A GPU is tested with onnxruntime, and with torch, which `train` needs, if it is installed.
    """
    import importlib.util

    from ristretto_cli.backends import onnx_session
    from ristretto_cli.backends.device_choice import GpuUnusable, parse_gpu
    from ristretto_cli.backends.device_query import gpu_properties
    from ristretto_cli.errors import RistrettoError
    from ristretto_cli.threads import default_threads
    from ristretto_cli.train import torch_import

    known = gpu_properties()
    if gpu == "all":
        numbers = sorted(known) or [0]
    else:
        try:
            parse_gpu(gpu, "--gpu")
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        numbers = [int(number) for number in gpu.split(",")]
    probes = {"onnxruntime": onnx_session.probe}
    if importlib.util.find_spec("torch") is not None:
        probes["torch"] = torch_import.probe
    lines, usable = [f"Querying GPUs {gpu}"], 0
    for number in numbers:
        lines.append(f"Device id: {number}")
        lines += [f"{name}: {value}" for name, value in known.get(number, {}).items()]
        for name, probe in probes.items():
            try:
                probe(number)
            except GpuUnusable as fault:
                lines.append(f"Not usable: {fault}")
            else:
                lines.append(f"Usable by {name}")
                usable += name == "onnxruntime"
    if usable < len(numbers):
        lines.append(f"Nets run on the CPU, with up to {default_threads()} threads.")
    print_result(lines)
    if require_gpu and usable < len(numbers):
        raise RistrettoError("nets cannot run on all of these GPUs", hint="Without --require_gpu this is no error.")
