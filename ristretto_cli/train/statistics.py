"""Running statistics that a training is too short to renew: tests would use what was loaded."""

from __future__ import annotations

import logging

from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Net

log = logging.getLogger("ristretto")

_MAX_STALE_FRACTION = 0.2


def warn_of_old_statistics(net: Net, passes: int) -> None:
    """Warn where much of a layer's statistics will be what the net holds now after so many passes."""
    shares = {
        layer.name: LAYERS.get(layer.type).stale_fraction(
            layer, [net.weights[param.key] for param in layer.params], passes
        )
        for layer in net.layers
        if layer.params
    }
    left = {name: share for name, share in shares.items() if share > _MAX_STALE_FRACTION}
    if left:
        name = max(left, key=lambda each: left[each])
        others = f" (others lag, too: {len(left) - 1})" if len(left) > 1 else ""
        log.warning(
            'Layer "%s": at the end, %d %% of the statistics that tests use will be those from before%s. Train longer, '
            "or let them move faster: a smaller moving_average_fraction or momentum.",
            name,
            round(100 * left[name]),
            others,
        )
