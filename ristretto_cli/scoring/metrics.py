"""Which outputs of a net have a score, and which one a net is judged by."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.layers.host_layer import Judging, JudgingLayer
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import DYNAMIC, show

log = logging.getLogger("ristretto")


def default_score(net: Net) -> str:
    """The output by which a net is judged where the user names none: that of its first head (see `heads`).

    Warns where there are others. Raises RistrettoError for a net without any.
    """
    found = heads(net)
    if not found:
        raise RistrettoError(
            "the net has no Accuracy layer and no loss to score by",
            where=net.file,
            hint=f"Name one of its outputs with --score: {', '.join(blob.name for blob in scored(net))}.",
        )
    if len(found) > 1:
        log.warning(
            "The net has %d heads. %s is scored, at the end of the longest path, and not %s. Choose with --score.",
            len(found),
            found[0],
            " or ".join(found[1:]),
        )
    return found[0]


def heads(net: Net) -> list[str]:
    """One output for each head of a net, the head at the end of the longest path first.

    A head is what is compared with labels: the layers that read the same blobs are one head. Accuracy layers define
    the heads; in a net without them layers such as DetectionEvaluate do, and without these losses. Of the Accuracy
    layers of one head the one with the lowest top_k stands for it, else the first in the file. The length of a path is
    the number of layers from the data to the layer that judges; of paths of equal length the last in the file is first.
    """
    depths, sources = _depths(net), _score_sources(net)
    for judging in (_accuracies(net), _judged_in_whole(net), _losses(net)):
        members: dict[tuple[int, ...], list[tuple[int, str]]] = {}
        for i, top in judging:
            read = tuple(sources.get(blob.storage, blob.storage) for blob in net.layers[i].bottoms)
            members.setdefault(read, []).append((i, top))
        if members:
            ranked = sorted(members.values(), key=lambda head: max((depths[i], i) for i, _ in head), reverse=True)
            return [min(head, key=lambda member: (_top_k(net.layers[member[0]]), member[0]))[1] for head in ranked]
    return []


def check_score(net: Net, blob: str) -> str:
    """The blob's name if it is an output of the net that has a score; else RistrettoError with those that are."""
    outputs = [output.name for output in scored(net)]
    if blob not in outputs:
        near = did_you_mean(blob, outputs)
        raise RistrettoError(
            f'"{blob}" is no output of the net',
            where=net.file,
            hint=f"{near} Outputs: {', '.join(outputs)}.",
        )
    return blob


def is_loss(net: Net, blob: str) -> bool:
    """Whether less of a blob is better: it has a loss weight, or a loss layer makes it that has none.

    A negative weight is one for what training is to make large.
    """
    for layer in net.layers:
        for i, (top, weight) in enumerate(zip(layer.tops, layer.loss_weights, strict=True)):
            if top.name == blob:
                return weight > 0 or (
                    weight == 0 and i == 0 and layer.type in LAYERS and LAYERS.get(layer.type).is_loss
                )
    return False


def scored(net: Net) -> list[Blob]:
    """The outputs that have a score, one or more, sorted by name; RistrettoError where there are none."""
    judges = judges_of(net)
    found = [blob for blob in net.outputs if DYNAMIC not in blob.shape or blob.name in judges]
    if not found:
        raise RistrettoError("the net has no outputs to score", where=net.file)
    return found


def tell_unscored(net: Net) -> None:
    """Name the outputs that have no score in the log."""
    has_score = {blob.name for blob in scored(net)}
    for blob in net.outputs:
        if blob.name not in has_score:
            log.info("%s (%s) has a variable number of items: it has no score.", blob.name, show(blob.shape))


def judges_of(net: Net) -> dict[str, tuple[JudgingLayer, Layer]]:
    """The layers that judge an output in whole, by its name, in the net's order."""
    outputs = {blob.name for blob in net.outputs}
    behind = [(LAYERS.get(layer.type), layer) for layer in net.layers if layer.on_host]
    return {
        layer.tops[0].name: (layer_type, layer)
        for layer_type, layer in behind
        if isinstance(layer_type, JudgingLayer) and layer.tops[0].name in outputs
    }


def check_judging(nets: Sequence[Net], how: Judging, file: str) -> None:
    """RistrettoError where a way to judge nets was asked for, and none of these is judged. file: what they are from."""
    if how.asked_for and not any(map(judges_of, nets)):
        raise RistrettoError(
            "--ap_version has no effect: no output is a DetectionEvaluate layer's",
            where=file,
            hint="Leave --ap_version out.",
        )


def loss_weights(net: Net) -> dict[str, float]:
    """The loss weights of a net's blobs, by name; 0 where one is no loss."""
    return {
        blob.name: weight for layer in net.layers for blob, weight in zip(layer.tops, layer.loss_weights, strict=True)
    }


def _accuracies(net: Net) -> Iterator[tuple[int, str]]:
    """The positions of the Accuracy layers whose first top is an output, and that top."""
    outputs = {blob.name for blob in net.outputs}
    for i, layer in enumerate(net.layers):
        if layer.type == "Accuracy" and layer.tops[0].name in outputs:
            yield i, layer.tops[0].name


def _judged_in_whole(net: Net) -> Iterator[tuple[int, str]]:
    """The same of the layers that judge all batches at once."""
    judges = judges_of(net)
    for i, layer in enumerate(net.layers):
        if layer.tops and layer.tops[0].name in judges:
            yield i, layer.tops[0].name


def _losses(net: Net) -> Iterator[tuple[int, str]]:
    """The same of the layers with a top that is a loss."""
    losses = {blob.name for blob in net.outputs if is_loss(net, blob.name)}
    for i, layer in enumerate(net.layers):
        for top in layer.tops:
            if top.name in losses:
                yield i, top.name


def _depths(net: Net) -> list[int]:
    """For each layer, how many layers the longest path from the data to it has, the layer included.

    Data layers do not count, nor do those that only give memory another name, such as Split: a net that has them
    written out is the same net.
    """
    depths: list[int] = []
    of_blob: dict[str, int] = {}
    for layer in net.layers:
        counts = not layer.is_source and not LAYERS.get(layer.type).shares_memory(layer)
        depths.append(max((of_blob[blob.name] for blob in layer.bottoms), default=0) + counts)
        of_blob.update((blob.name, depths[-1]) for blob in layer.tops)
    return depths


def _score_sources(net: Net) -> dict[int, int]:
    """For the places that hold a Softmax, those of its scores, whose classes have the same order."""
    found: dict[int, int] = {}
    for layer in net.layers:
        if layer.type == "Softmax" and layer.tops[0].storage != layer.bottoms[0].storage:
            bottom = layer.bottoms[0].storage
            found[layer.tops[0].storage] = found.get(bottom, bottom)
    return found


def _top_k(layer: Layer) -> int:
    return int(layer.message.accuracy_param.top_k) if layer.type == "Accuracy" else 0
