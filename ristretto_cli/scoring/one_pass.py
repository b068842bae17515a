"""One pass through a net, with every blob kept: what `ristretto forward` writes.

Keys: `blob`, right behind the last layer that has it as top; `blob@layer`, right behind an earlier one;
`blob@end`, after the whole pass, where a later layer changed it in place; `@total_loss`;
`param_end:layer/i`, a parameter that the pass itself changed. What the Input layers were fed is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import AUTOMATIC, Net, in_graph
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.host import Runner

_UPDATE = "param_end:"


class OnePass:
    """A net compiled so that a pass returns its blobs. blobs: only these, all by default.

    Raises RistrettoErrors for names that are no blobs.
    """

    def __init__(
        self, net: Net, *, rng: np.random.Generator, blobs: tuple[str, ...] = (), gpu: int | None = None
    ) -> None:
        self._net = net
        known = {top.name for layer in net.layers for top in layer.tops} - {AUTOMATIC}
        raise_all(
            RistrettoError(f'the net has no blob "{name}"', where=net.file, remedy=did_you_mean(name, known))
            for name in blobs
            if name not in known
        )
        wanted = set(blobs) or known
        tops = {top.name: top for layer in net.layers for top in layer.tops}
        on_host = [name for name, top in tops.items() if top.on_host and name in wanted]
        self._blobs = wanted - {name for name, top in tops.items() if top.on_host}
        self._runner: Runner = compile_net(net, self._select, rng=rng, gpu=gpu, on_host=on_host)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, AnyArray]:
        """The arrays of one pass, by key."""
        results: dict[str, AnyArray] = dict(self._runner.run(feeds))
        behind_its_layer = {**feeds, **results}
        for name in self._blobs:
            if _equal(results[f"{name}@end"], behind_its_layer[name]):
                del results[f"{name}@end"]
        for key in [key for key in results if key.startswith(_UPDATE)]:
            if _equal(results[key], self._net.weights[key.removeprefix(_UPDATE)]):
                del results[key]
        return results

    def _select(self, run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
        picked: dict[str, Node] = {}
        for layer, tops in zip(reversed(self._net.layers), reversed(run.written), strict=True):
            if layer.type == "Input":
                continue
            for top, value in reversed(list(zip(in_graph(layer.tops), tops, strict=True))):
                if top.name in self._blobs:
                    picked[f"{top.name}@{layer.name}" if top.name in picked else top.name] = value
        picked = dict(reversed(picked.items()))
        picked.update({f"{name}@end": run.end[name] for name in sorted(self._blobs)})
        picked.update({f"{_UPDATE}{key}": value for key, value in run.updates.items()})
        return picked if run.loss is None else {**picked, "@total_loss": run.loss}


def _equal(a: AnyArray, b: AnyArray) -> bool:
    return np.array_equal(a, b, equal_nan=True)
