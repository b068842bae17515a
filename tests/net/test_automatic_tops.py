"""Loss layers that name no top, as nets of old often do."""

from __future__ import annotations

from typing import Any

import numpy as np

from ristretto_cli.scoring.all_blobs import OnePass

NET = """
    layer { name: "i" type: "Input" top: "x" top: "y" input_param { shape { dim: 1 dim: 2 } } }
    layer { name: "l2" type: "EuclideanLoss" bottom: "x" bottom: "y" }
    layer { name: "l3" type: "EuclideanLoss" bottom: "x" bottom: "y" loss_weight: 3 }
"""


def test_they_count_as_losses_and_are_no_outputs(workshop: Any) -> None:
    net = workshop.load(NET)
    assert net.outputs == ()
    feeds = {"x": np.array([[1, 2]], np.float32), "y": np.array([[1, 4]], np.float32)}
    results = OnePass(net, rng=np.random.default_rng(0)).run(feeds)
    assert {key: float(value) for key, value in results.items()} == {"@total_loss": 8.0}  # 2 and 3 times 2
