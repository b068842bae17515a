"""The choice of the device that a command runs on, made once before anything is computed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from ristretto_cli.errors import RistrettoError

log = logging.getLogger("ristretto")

_NUMBER = re.compile(r"[0-9]{1,9}")


class GpuUnusable(RistrettoError):
    """A GPU cannot be used; the message has the reason and a remedy."""


@dataclass(frozen=True)
class GpuRequest:
    """A user's request for a GPU. number: of the GPU; None: the CPU, or GPU 0 if one is required. several: whether the
    user named more GPUs. source: the flag or setting, for messages. required: whether it is an error if the GPU cannot
    be used.
    """

    number: int | None = None
    several: bool = False
    source: str = ""
    required: bool = False


def parse_gpu(text: str, source: str, *, required: bool = False) -> GpuRequest:
    """A request in Caffe's words: `0`, a list such as `0,1` (of which the first is used) or `all`, which is GPU 0.

    ValueError for any other text.
    """
    numbers = ["0"] if text == "all" else text.split(",")
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        raise ValueError(f'invalid GPU "{text}": expected a device number such as 0, a list such as 0,1, or all')
    return GpuRequest(int(numbers[0]), text == "all" or len(numbers) > 1, source, required)


def choose_gpu(request: GpuRequest, probe: Callable[[int], object]) -> int | None:
    """The number of the GPU to use, None for the CPU. Logs a warning if the CPU replaces a GPU that cannot be used.

    probe: computes something on a GPU; GpuUnusable if that fails. RistrettoError if a required GPU cannot be used.
    """
    if request.number is None and not request.required:
        return None
    number = request.number or 0
    try:
        probe(number)
    except GpuUnusable as fault:
        if request.required:
            hint = "Without --require_gpu the CPU is used."
            raise RistrettoError(f"the GPU cannot be used: {fault}", hint=hint) from fault
        hint = "Falling back to the CPU, which gives the same results. --require_gpu makes this an error."
        log.warning("%s: the GPU cannot be used: %s %s", request.source, fault, hint)
        return None
    if request.several:
        log.warning("%s: only one GPU is used, GPU %d.", request.source, number)
    return number
