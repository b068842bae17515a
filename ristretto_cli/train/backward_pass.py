"""One forward and backward pass, with all blobs and gradients: the results of `ristretto forward --backward`.

In addition to the keys of a forward pass: `diff:blob`, the gradient of the loss with respect to a blob (for a blob that
layers change in place, with respect to its first value), and `pdiff:layer/i`, with respect to a parameter. Blobs that
get no gradient in Caffe are omitted: labels and indices, blobs that no loss depends on, and, without force_backward,
blobs that depend on no parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.host_layer import host_loss
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, computed_tops, forward, passes_gradients
from ristretto_cli.net.ir import AUTOMATIC, Net, in_graph
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.all_blobs import chosen_blobs, values_by_key, without_repetitions
from ristretto_cli.scoring.host_layers import HostLayers, host_layers
from ristretto_cli.train.host_losses import loss_computer
from ristretto_cli.train.torch_import import device_of, import_torch, use_threads

Tensor: TypeAlias = Any  # torch may be missing where types are checked


class Gradients:
    """A net on torch that returns its blobs and gradients. blobs: the names of those to return, all by default; the
    gradients of parameters are always returned.

    gpu: one that torch can use. RistrettoError(s) for unknown names, for a net without a loss, and if torch is
    missing.
    """

    def __init__(
        self,
        net: Net,
        *,
        rng: np.random.Generator,
        blobs: tuple[str, ...] = (),
        gpu: int | None = None,
        threads: int = 0,
    ) -> None:
        self._torch = import_torch()
        from ristretto_cli.backends.torch_ops import TorchOps

        use_threads(threads)
        self._net = net
        self._rng = rng
        self._ops: Any = TorchOps(rng, device_of(gpu))
        self._blobs, on_host = chosen_blobs(net, blobs)
        self._on_host = frozenset(on_host)
        if not any(weight for layer in net.layers for weight in layer.loss_weights):
            hint = "Add a loss layer, or a loss_weight, for this phase; see --phase."
            raise RistrettoError("the net has no loss, so there are no gradients", where=net.file, hint=hint)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, AnyArray]:
        """The arrays of one pass, by key."""
        params = {key: self._leaf(self._net.weights[key], learned) for key, learned in _learned(self._net).items()}
        fed = {blob.name: self._leaf(feeds[blob.name], self._net.force_backward) for blob in in_graph(self._net.inputs)}
        run: Run[Tensor] = forward(
            self._net,
            self._ops,
            fed,
            rng=self._rng,
            params=params,
            copy_top=self._copy_top,
            compute_loss=loss_computer(feeds, self._ops),
            to_array=_array,
        )
        results: dict[str, AnyArray] = {
            key: _array(value) for key, value in values_by_key(self._net, self._blobs, run).items()
        }
        results = without_repetitions(self._net, self._blobs, feeds, results)
        results.update(self._host_blobs(feeds, run))
        return {**results, **self._gradients(run, params)}

    def _copy_top(self, value: Tensor) -> Tensor:
        if self._net.force_backward and not value.requires_grad:  # even if no parameter precedes it
            return value.detach().requires_grad_()
        return value.view_as(value)

    def _leaf(self, array: Array, learned: bool) -> Tensor:
        return self._ops.constant(np.atleast_1d(array)).reshape(array.shape).requires_grad_(learned)

    def _gradients(self, run: Run[Tensor], params: Mapping[str, Tensor]) -> dict[str, AnyArray]:
        """The gradients of a run's loss, by key."""
        reached = _reached(self._net)
        values = _first_values(self._net, run)
        blobs = {name: values[name] for name in values if name in reached and values[name].requires_grad}
        learned = {key: value for key, value in params.items() if value.requires_grad}
        loss: Any = run.loss
        if loss.requires_grad:
            leaves = [*blobs.values(), *learned.values()]
            found = self._torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        else:
            found = ()
        of_blobs = dict(zip(blobs, map(_array, found), strict=False))
        of_params = dict(zip(learned, map(_array, found[len(blobs) :]), strict=False))
        results: dict[str, AnyArray] = {f"diff:{name}": of_blobs[name] for name in of_blobs if name in self._blobs}
        for layer in self._net.layers:
            for i, param in enumerate(layer.params):
                gradient = of_params.get(param.key)
                if gradient is None:
                    gradient = np.zeros(param.shape, np.float32)
                results[f"pdiff:{layer.name}/{i}"] = gradient.reshape(param.shape)
        return results

    def _host_blobs(self, feeds: Mapping[str, Array], run: Run[Tensor]) -> dict[str, Array]:
        """The requested blobs of host layers."""
        found = host_layers(self._net, self._on_host)
        layers = HostLayers(self._net, [layer for _, layer in found])
        blobs = layers.run(feeds, [[_array(value) for value in run.inputs[i]] for i, _ in found])
        return {name: blobs[name] for name in blobs if name in self._on_host}


def _array(value: Tensor) -> Array:
    array: Array = value.detach().cpu().numpy()
    return array


def _learned(net: Net) -> dict[str, bool]:
    """For each parameter, whether a gradient is computed: not if its lr_mult is 0."""
    found: dict[str, bool] = {}
    for layer in net.layers:
        statistics = LAYERS.get(layer.type).statistics(layer.message) if layer.params else ()
        for i, param in enumerate(layer.params):
            specs = layer.message.param
            rate = specs[i].lr_mult if i < len(specs) else 1.0
            moves = i not in statistics and (rate != 0 or net.force_backward)
            found[param.key] = found.get(param.key, False) or moves
    return found


def _reached(net: Net) -> set[str]:
    """The names of the blobs that gradients reach, by the layers' settings."""
    found: set[str] = set()
    for layer in reversed(net.layers):
        found.update(top.name for top, weight in zip(layer.tops, layer.loss_weights, strict=True) if weight)
        on_host = layer.on_host and host_loss(layer) is None and not layer.feeds_graph
        if layer.is_source or on_host or found.isdisjoint(top.name for top in layer.tops):
            continue
        passed = passes_gradients(net, layer)
        found.update(blob.name for blob, passes in zip(layer.bottoms, passed, strict=True) if passes)
    return found - {AUTOMATIC}


def _first_values(net: Net, run: Run[Tensor]) -> dict[str, Tensor]:
    """Each blob as its first layer wrote it."""
    found: dict[str, Tensor] = {}
    for layer, tops in zip(net.layers, run.outputs, strict=True):
        for blob, value in zip(computed_tops(layer, tops), tops, strict=True):
            found.setdefault(blob.name, value)
    return found
