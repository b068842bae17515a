"""Import and setup of torch, which only training needs."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from ristretto_cli.backends.device_choice import GpuUnusable
from ristretto_cli.errors import RistrettoError
from ristretto_cli.threads import default_threads


def import_torch() -> Any:
    """The module torch; RistrettoError if it is not installed."""
    if "torch" not in sys.modules:
        # By default torch's threads wait in busy loops. If another thread needs a core, such as the one that decodes
        # the next batch, an iteration takes ten times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ImportError as error:
        raise RistrettoError("training needs torch: pip install 'ristretto-cli[train]'") from error
    return torch


def use_threads(threads: int) -> None:
    """Set the number of CPU threads for torch, 0 for the default."""
    import_torch().set_num_threads(threads or default_threads())


def device_of(gpu: int | None) -> str:
    """torch's name of a GPU, or of the CPU for None."""
    return "cpu" if gpu is None else f"cuda:{gpu}"


def probe(gpu: int) -> None:
    """Compute a small convolution on a GPU; GpuUnusable if torch cannot."""
    torch = import_torch()
    with warnings.catch_warnings(record=True) as caught:  # such as that the driver is too old
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu >= count:
        found = f"the last GPU found is {count - 1}" if count else "no GPU found"
        raise _unusable(gpu, *(warning.message for warning in caught), found)
    try:
        x = torch.ones((1, 1, 2, 2), device=device_of(gpu))
        product = float(torch.nn.functional.conv2d(x, x))
    except RuntimeError as error:
        raise _unusable(gpu, error) from error
    if product != 4:
        raise _unusable(gpu, "it computes wrong values")


def _unusable(gpu: int, *reasons: object) -> GpuUnusable:
    return GpuUnusable(
        f"torch cannot use GPU {gpu}: {'; '.join(map(str, reasons))}",
        hint="Check that torch was built with CUDA and matches the driver.",
    )
