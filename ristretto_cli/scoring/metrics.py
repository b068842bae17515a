"""The scores and metrics of a net: which outputs have one, and which one is the default for comparing nets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from ristretto_cli.errors import RistrettoError, did_you_mean
from ristretto_cli.layers.host_layer import MetricLayer, MetricOptions
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import DYNAMIC, show

log = logging.getLogger("ristretto")


def default_score(net: Net) -> str:
    """The output to compare nets by if the user names none: that of the first head (see `heads`).

    Logs a warning if there are several heads. Raises RistrettoError if there are none.
    """
    found = heads(net)
    if not found:
        raise RistrettoError(
            "the net has no Accuracy layer and no loss to score by",
            where=net.file,
            hint="Compare it with its float net by --score agreement (classes) or --score sqnr (any output)"
            + _outputs_hint(net),
        )
    if len(found) > 1:
        log.warning(
            "The net has %d heads. The score is %s, at the end of the longest path; others: %s. Choose with --score.",
            len(found),
            found[0],
            ", ".join(found[1:]),
        )
    return found[0]


def detection_score(net: Net) -> str:
    """The output of the last layer that computes a metric, such as DetectionEvaluate; there is at least one."""
    return list(metrics_of(net))[-1]


def heads(net: Net) -> list[str]:
    """One output for each head of a net, the head at the end of the longest path first.

    A head is a prediction that is compared with labels; the layers that read the same blobs belong to one head. Heads
    are found by Accuracy layers, or without these by metrics such as DetectionEvaluate, or else by losses. A head is
    represented by its Accuracy layer with the lowest top_k, or its first layer. The length of a path is the number of
    layers from the data to the layer that scores; of equally long paths, the last in the file comes first.
    """
    return [top for _, top in ranked_heads(net)]


def ranked_heads(net: Net) -> list[tuple[Layer, str]]:
    """The layer and the output that represent each head (see `heads`)."""
    depths, sources = layer_depths(net), _score_sources(net)
    for scoring in (_accuracies(net), _metrics(net), _losses(net)):
        members: dict[tuple[int, ...], list[tuple[int, str]]] = {}
        for i, top in scoring:
            read = tuple(sources.get(blob.storage, blob.storage) for blob in net.layers[i].bottoms)
            members.setdefault(read, []).append((i, top))
        if members:
            ranked = sorted(members.values(), key=lambda head: max((depths[i], i) for i, _ in head), reverse=True)
            chosen = [min(head, key=lambda member: (_top_k(net.layers[member[0]]), member[0])) for head in ranked]
            return [(net.layers[i], top) for i, top in chosen]
    return []


def _outputs_hint(net: Net) -> str:
    outputs = ", ".join(blob.name for blob in net.outputs if has_score(net, blob))
    return f", or name one of its outputs: {outputs}." if outputs else "."


def check_score(net: Net, blob: str) -> str:
    """The blob's name; RistrettoError, listing the outputs, unless it is an output of the net with a score."""
    outputs = [output.name for output in scored(net)]
    if blob not in outputs:
        near = did_you_mean(blob, outputs)
        raise RistrettoError(
            f'"{blob}" is not an output of the net',
            where=net.file,
            hint=f"{near} Outputs: {', '.join(outputs)}.",
        )
    return blob


def is_loss(net: Net, blob: str) -> bool:
    """Whether lower values of a blob are better: it has a positive loss weight, or a loss layer without one.

    Training maximizes outputs with a negative weight.
    """
    for layer in net.layers:
        for i, (top, weight) in enumerate(zip(layer.tops, layer.loss_weights, strict=True)):
            if top.name == blob:
                return weight > 0 or (
                    weight == 0 and i == 0 and layer.type in LAYERS and LAYERS.get(layer.type).is_loss
                )
    return False


def scored(net: Net) -> list[Blob]:
    """The outputs with a score, at least one, sorted by name; RistrettoError if there are none."""
    found = [blob for blob in net.outputs if has_score(net, blob)]
    if not found:
        raise RistrettoError("the net has no outputs to score", where=net.file)
    return found


def has_score(net: Net, blob: Blob) -> bool:
    """Whether an output has a score: its mean, or that of a metric."""
    return DYNAMIC not in blob.shape or blob.name in metrics_of(net)


def measures(net: Net) -> list[Blob]:
    """The outputs that are measures of a net rather than its predictions: accuracies, losses, metrics."""
    metrics = metrics_of(net)
    of_scoring_layers = {
        top.name
        for layer in net.layers
        if not layer.is_source
        and (layer.type == "Accuracy" or any(layer.loss_weights) or LAYERS.get(layer.type).is_loss)
        for top in layer.tops
    }
    return [blob for blob in net.outputs if blob.name in metrics or blob.name in of_scoring_layers]


def log_unscored(net: Net) -> None:
    """Log the names of the outputs without a score."""
    for blob in net.outputs:
        if not has_score(net, blob):
            log.info("%s (%s) has a variable number of items and no score.", blob.name, show(blob.shape))


def metrics_of(net: Net) -> dict[str, tuple[MetricLayer, Layer]]:
    """The metrics of the net's outputs: the layer that computes each, by the output's name, in the net's order."""
    outputs = {blob.name for blob in net.outputs}
    on_host = [(LAYERS.get(layer.type), layer) for layer in net.layers if layer.on_host]
    return {
        layer.tops[0].name: (layer_type, layer)
        for layer_type, layer in on_host
        if isinstance(layer_type, MetricLayer) and layer.tops[0].name in outputs
    }


def check_metric_options(nets: Sequence[Net], metric_options: MetricOptions, file: str) -> None:
    """RistrettoError if the user set an option of metrics, and none of these nets has one. file: the nets' file."""
    flag = metric_options.requested_by
    if flag and not any(map(metrics_of, nets)):
        raise RistrettoError(
            f"{flag} has no effect: the net has no DetectionEvaluate layer as output",
            where=file,
            hint=f"Omit {flag}.",
        )


def loss_weights(net: Net) -> dict[str, float]:
    """The loss weights of a net's blobs, by name; 0 if a blob is not a loss."""
    return {
        blob.name: weight for layer in net.layers for blob, weight in zip(layer.tops, layer.loss_weights, strict=True)
    }


def _accuracies(net: Net) -> Iterator[tuple[int, str]]:
    """The positions of the Accuracy layers whose first top is an output, each with that top."""
    outputs = {blob.name for blob in net.outputs}
    for i, layer in enumerate(net.layers):
        if layer.type == "Accuracy" and layer.tops[0].name in outputs:
            yield i, layer.tops[0].name


def _metrics(net: Net) -> Iterator[tuple[int, str]]:
    """The same for the layers that compute a metric over all batches."""
    metrics = metrics_of(net)
    for i, layer in enumerate(net.layers):
        if layer.tops and layer.tops[0].name in metrics:
            yield i, layer.tops[0].name


def _losses(net: Net) -> Iterator[tuple[int, str]]:
    """The same for the layers with a top that is a loss."""
    losses = {blob.name for blob in net.outputs if is_loss(net, blob.name)}
    for i, layer in enumerate(net.layers):
        for top in layer.tops:
            if top.name in losses:
                yield i, top.name


def layer_depths(net: Net) -> list[int]:
    """For each layer, the number of layers on the longest path from the data to it, itself included.

    Data layers do not count, nor do layers that only rename memory, such as Split: they may be implicit or explicit.
    """
    depths: list[int] = []
    of_blob: dict[str, int] = {}
    for layer in net.layers:
        counts = not layer.is_source and not LAYERS.get(layer.type).shares_memory(layer)
        depths.append(max((of_blob[blob.name] for blob in layer.bottoms), default=0) + counts)
        of_blob.update((blob.name, depths[-1]) for blob in layer.tops)
    return depths


def _score_sources(net: Net) -> dict[int, int]:
    """For the storage of each Softmax, that of its input, which ranks the classes alike."""
    found: dict[int, int] = {}
    for layer in net.layers:
        if layer.type == "Softmax" and layer.tops[0].storage != layer.bottoms[0].storage:
            bottom = layer.bottoms[0].storage
            found[layer.tops[0].storage] = found.get(bottom, bottom)
    return found


def _top_k(layer: Layer) -> int:
    return int(layer.message.accuracy_param.top_k) if layer.type == "Accuracy" else 0
