"""Running statistics that a training is too short to renew: tests would use what was loaded."""

from __future__ import annotations

import logging

from ristretto_cli.layers.batch_norm import uses_stored
from ristretto_cli.net.ir import Net

log = logging.getLogger("ristretto")

_MUCH = 0.2


def warn_of_old_statistics(net: Net, passes: int) -> None:
    """Warn where much of a BatchNorm layer's statistics is still what the net holds now after so many passes."""
    left = {
        layer.name: share
        for layer in net.layers
        if layer.type == "BatchNorm" and not uses_stored(layer)
        for share in [
            old_share(
                float(net.weights[layer.params[2].key].item()),
                float(layer.message.batch_norm_param.moving_average_fraction),
                passes,
            )
        ]
        if share > _MUCH
    }
    if left:
        name = max(left, key=lambda each: left[each])
        log.warning(
            'At the end, %d %% of the statistics of layer "%s" will be those from before (of %d BatchNorm layers more '
            "than %d %%), and tests use them. Train longer, or give these layers a smaller moving_average_fraction.",
            round(100 * left[name]),
            name,
            len(left),
            round(100 * _MUCH),
        )


def old_share(factor: float, fraction: float, passes: int) -> float:
    """How much of a BatchNorm layer's running sums, which `factor` divides now, is old after so many passes.

    >>> round(old_share(factor=1000.0, fraction=0.999, passes=300), 2)
    0.74
    """
    old = factor * fraction**passes
    new = passes if fraction == 1 else (1 - fraction**passes) / (1 - fraction)
    return old / (old + new) if old + new > 0 else 0.0
