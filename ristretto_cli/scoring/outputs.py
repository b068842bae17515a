"""Which outputs of a net have a score, and which one a net is judged by."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.layers.host_layer import Judging, JudgingLayer
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import VARIES, show

log = logging.getLogger("ristretto")


def default_score(net: Net) -> str:
    """The blob by which a net is judged where none is named: the top of its first Accuracy layer, or what is judged."""
    outputs = [blob.name for blob in scored(net)]
    for layer in net.layers:
        if layer.type == "Accuracy" and layer.tops[0].name in outputs:
            return layer.tops[0].name
    judged = [name for name in judges_of(net) if name in outputs]
    if judged:
        return judged[0]
    raise RistrettoError(
        "the net has no Accuracy output to score by",
        where=net.file,
        remedy=f"Name one of its outputs with --score: {', '.join(outputs)}.",
    )


def check_score(net: Net, blob: str) -> str:
    """The blob's name if it is an output of the net that has a score; else RistrettoError with those that are."""
    outputs = [output.name for output in scored(net)]
    if blob not in outputs:
        near = did_you_mean(blob, outputs)
        raise RistrettoError(
            f'"{blob}" is no output of the net',
            where=net.file,
            remedy=f"{near} Outputs: {', '.join(outputs)}.",
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
    found = [blob for blob in net.outputs if VARIES not in blob.shape or blob.name in judges]
    if not found:
        raise RistrettoError("the net has no outputs to score", where=net.file)
    return found


def tell_unscored(net: Net) -> None:
    """Name the outputs that have no score in the log."""
    has_score = {blob.name for blob in scored(net)}
    for blob in net.outputs:
        if blob.name not in has_score:
            log.info("%s (%s) has as many items as the data makes: it has no score.", blob.name, show(blob.shape))


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
            remedy="Leave --ap_version out.",
        )


def loss_weights(net: Net) -> dict[str, float]:
    """The loss weights of a net's blobs, by name; 0 where one is no loss."""
    return {
        blob.name: weight for layer in net.layers for blob, weight in zip(layer.tops, layer.loss_weights, strict=True)
    }
