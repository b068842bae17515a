"""Losses that numpy computes (HostLoss), as values of torch with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.layers.host_layer import host_loss
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import Array
from ristretto_cli.scoring.host_layers import located

Tensor: TypeAlias = Any  # torch may be missing where types are checked


def loss_computer(batch: Mapping[str, Array], ops: Any) -> Callable[[Layer, Sequence[Tensor]], Tensor]:
    """The function that computes such losses for a batch; for `forward`. ops: the TorchOps."""
    from ristretto_cli.backends.torch_functions import Derived

    def compute(layer: Layer, values: Sequence[Tensor]) -> Tensor:
        layer_type = host_loss(layer)
        if layer_type is None:
            raise TypeError(f"{layer.type} is not a loss that numpy computes")
        in_graph = iter(values)
        bottoms = [
            np.asarray(batch[blob.name], np.float32) if blob.on_host else next(in_graph).detach().cpu().numpy()
            for blob in layer.bottoms
        ]
        with located(layer):
            loss, gradients = layer_type.loss(layer, bottoms)
        derivatives = [
            None if gradient is None else ops.constant(gradient)
            for blob, gradient in zip(layer.bottoms, gradients, strict=True)
            if not blob.on_host
        ]
        # Not as a scalar: the backend keeps those for the next passes.
        value = ops.constant(loss.reshape(1)).reshape(())
        return Derived.apply(value, derivatives, *values)

    return compute


def computed(net: Net, blobs: Sequence[Blob]) -> tuple[Blob, ...]:
    """Those of the blobs that training computes: the ones in the graph, and these losses."""
    losses = {top.name for layer in net.layers if host_loss(layer) is not None for top in layer.tops}
    return tuple(blob for blob in blobs if not blob.on_host or blob.name in losses)
