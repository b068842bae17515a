"""What a net computes when it is used: the blobs that its losses and scores compare with labels."""

from __future__ import annotations

from dataclasses import replace

from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.scoring.metrics import layer_depths, measures


def class_scores(net: Net) -> list[tuple[Blob, Layer]]:
    """The blobs that loss layers and layers of scores compare with labels, each with the first such layer.

    Those at the end of the longest path come first. Labels are blobs that do not depend on any parameter.
    """
    depths = layer_depths(net)
    of_scores = {blob.name for blob in measures(net)}
    trained: set[int] = set()
    found: list[tuple[int, int, Blob, Layer]] = []
    for i, layer in enumerate(net.layers):
        predicted = [blob for blob in layer.bottoms if blob.storage in trained]
        if any(top.name in of_scores for top in layer.tops) or _is_loss(layer):
            found += [(depths[i], i, blob, layer) for blob in predicted or layer.bottoms[:1]]
        elif layer.params or predicted:
            trained.update(top.storage for top in layer.tops)
    found.sort(key=lambda each: each[0], reverse=True)
    by_name: dict[str, tuple[Blob, Layer]] = {}
    for _, _, blob, layer in found:
        known = by_name.get(blob.name)
        # A loss tells more of the scores than an Accuracy does.
        if known is None or (_is_loss(layer) and not _is_loss(known[1])):
            by_name[blob.name] = (blob, layer)
    return list(by_name.values())


def without_measures(net: Net) -> Net:
    """The net with other outputs: without inputs that pass through, and without losses and scores in the graph."""
    dropped = {blob.name for blob in measures(net) if not blob.on_host} | {blob.name for blob in net.inputs}
    return replace(net, outputs=tuple(blob for blob in net.outputs if blob.name not in dropped))


def _is_loss(layer: Layer) -> bool:
    return not layer.is_source and LAYERS.get(layer.type).is_loss
