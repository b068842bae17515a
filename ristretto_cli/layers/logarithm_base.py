"""The base of Exp and Log."""

from __future__ import annotations

import math

import numpy as np

from ristretto_cli.errors import LayerError

E = -1.0  # the setting for base e


def log_of_base(base: float) -> float:
    """The natural logarithm of a base, in float32. LayerError for a base that is not above 0, or infinite."""
    if base == E:
        return 1.0
    if not 0 < base < math.inf:
        raise LayerError(f"base must be positive, or -1 for e, not {base:g}")
    return float(np.log(np.float32(base)))
