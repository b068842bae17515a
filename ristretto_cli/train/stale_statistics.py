"""A warning for running statistics that a short training hardly updates: tests would use the loaded ones."""

from __future__ import annotations

import logging

from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Net

log = logging.getLogger("ristretto")

_MAX_STALE_FRACTION = 0.2


def warn_of_stale_statistics(net: Net, passes: int) -> None:
    """Log a warning if the present statistics will still be a large fraction of a layer's after so many passes."""
    fractions = {
        layer.name: LAYERS.get(layer.type).stale_fraction(
            layer, [net.weights[param.key] for param in layer.params], passes
        )
        for layer in net.layers
        if layer.params
    }
    stale = {name: fraction for name, fraction in fractions.items() if fraction > _MAX_STALE_FRACTION}
    if stale:
        name = max(stale, key=lambda each: stale[each])
        others = f" (and {len(stale) - 1} more layers)" if len(stale) > 1 else ""
        log.warning(
            'Layer "%s": after this training, %d %% of its statistics will still be the initial ones%s. '
            "Train longer, or set a smaller moving_average_fraction or momentum.",
            name,
            round(100 * stale[name]),
            others,
        )
