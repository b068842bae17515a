"""One pass forward and backward, with every blob and every gradient kept: what `ristretto forward --backward` writes.

Keys beside those of a forward pass: `diff:blob`, the gradient of the loss by a blob (of one that layers change in
place: by what the first of them reads), and `pdiff:layer/i`, by a parameter. Blobs that get no gradient in Caffe are
left out: labels and indices, what no loss depends on, and, but for nets with force_backward, what no parameter stands
behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, forward, passes_gradients
from ristretto_cli.net.ir import AUTOMATIC, Net, in_graph
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.host_layers import HostLayers, host_layers
from ristretto_cli.scoring.one_pass import chosen_blobs, values_by_key, without_repetitions
from ristretto_cli.train.torch_import import device_of, import_torch, use_threads

Tensor: TypeAlias = Any  # torch may be missing where types are checked


class Gradients:
    """A net on torch of which a pass returns its blobs and gradients. blobs: only these, all by default; the
    parameters' gradients are there in any case.

    gpu: one that torch can use. RistrettoError(s) for names that are no blobs, for a net without a loss, and where
    torch is missing.
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
            hint = "Give it a loss layer, or a loss_weight, for this phase; see --phase."
            raise RistrettoError("the net has no loss: there are no gradients", where=net.file, hint=hint)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, AnyArray]:
        """The arrays of one pass, by key."""
        params = {key: self._leaf(self._net.weights[key], learned) for key, learned in _learned(self._net).items()}
        fed = {blob.name: self._leaf(feeds[blob.name], self._net.force_backward) for blob in in_graph(self._net.inputs)}
        run: Run[Tensor] = forward(self._net, self._ops, fed, rng=self._rng, params=params, copy_top=self._copy_top)
        results: dict[str, AnyArray] = {
            key: _array(value) for key, value in values_by_key(self._net, self._blobs, run).items()
        }
        results = without_repetitions(self._net, self._blobs, feeds, results)
        results.update(self._behind(feeds, run))
        return {**results, **self._gradients(run, params)}

    def _copy_top(self, value: Tensor) -> Tensor:
        if self._net.force_backward and not value.requires_grad:  # even where nothing of it is learned
            return value.detach().requires_grad_()
        return value.view_as(value)

    def _leaf(self, array: Array, learns: bool) -> Tensor:
        return self._ops.constant(np.atleast_1d(array)).reshape(array.shape).requires_grad_(learns)

    def _gradients(self, run: Run[Tensor], params: Mapping[str, Tensor]) -> dict[str, AnyArray]:
        """The gradients of a walk's loss, by key."""
        reached = _reached(self._net)
        made = _first_made(self._net, run)
        blobs = {name: made[name] for name in made if name in reached and made[name].requires_grad}
        learned = {key: value for key, value in params.items() if value.requires_grad}
        loss: Any = run.loss
        if loss.requires_grad:
            values = [*blobs.values(), *learned.values()]
            found = self._torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
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

    def _behind(self, feeds: Mapping[str, Array], run: Run[Tensor]) -> dict[str, Array]:
        """The blobs behind the graph that are asked for."""
        behind = host_layers(self._net, self._on_host)
        host = HostLayers(self._net, [layer for _, layer in behind])
        made = host.run(feeds, [[_array(value) for value in run.inputs[i]] for i, _ in behind])
        return {name: made[name] for name in made if name in self._on_host}


def _array(value: Tensor) -> Array:
    array: Array = value.detach().cpu().numpy()
    return array


def _learned(net: Net) -> dict[str, bool]:
    """For each parameter, whether gradients are computed for it: not where its lr_mult is 0."""
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
    """The blobs that gradients go down to, by name, as far as the layers tell."""
    found: set[str] = set()
    for layer in reversed(net.layers):
        found.update(top.name for top, weight in zip(layer.tops, layer.loss_weights, strict=True) if weight)
        if layer.is_source or layer.on_host or found.isdisjoint(top.name for top in layer.tops):
            continue
        passed = passes_gradients(net, layer)
        found.update(blob.name for blob, passes in zip(layer.bottoms, passed, strict=True) if passes)
    return found - {AUTOMATIC}


def _first_made(net: Net, run: Run[Tensor]) -> dict[str, Tensor]:
    """Each blob as the first layer with it as top made it."""
    found: dict[str, Tensor] = {}
    for layer, tops in zip(net.layers, run.outputs, strict=True):
        for blob, value in zip(in_graph(layer.tops), tops, strict=True):
            found.setdefault(blob.name, value)
    return found
