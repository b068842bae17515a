"""torch, which training needs and nothing else does."""

from __future__ import annotations

import os
import sys
from typing import Any

from ristretto_cli.errors import RistrettoError
from ristretto_cli.threads import default_threads


def import_torch() -> Any:
    """The module torch; RistrettoError where it is not installed."""
    if "torch" not in sys.modules:
        # By default torch's threads wait for each other in busy loops. Where something else wants a core, be it the
        # thread that decodes the next batch, an iteration then takes ten times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ImportError as error:
        raise RistrettoError("training needs torch: pip install 'ristretto-cli[train]'") from error
    return torch


def use_threads(threads: int) -> None:
    """Have torch use this number of threads of the CPU, 0 for the default."""
    import_torch().set_num_threads(threads or default_threads())


def device_of(gpu: int | None) -> str:
    """torch's name of a GPU, or of the CPU for None; RistrettoError where torch does not have it."""
    if gpu is None:
        return "cpu"
    torch = import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu >= count:
        raise RistrettoError(
            f"torch has no GPU {gpu}: it knows of {count}",
            remedy="Look whether the driver fits the installed torch, or leave --gpu out.",
        )
    return f"cuda:{gpu}"
