"""One pass through a net, with all its blobs: the results of `ristretto forward`.

Keys: `blob`, right after the last layer that has it as top; `blob@layer`, right after an earlier one;
`blob@end`, after the whole pass, if a later layer changed it in place; `@total_loss`;
`param_end:layer/i`, a parameter that the pass itself changed. The arrays for Input layers are omitted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.forward import Run, computed_tops
from ristretto_cli.net.ir import AUTOMATIC, Net
from ristretto_cli.ops import AnyArray, Array, V
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.host_layers import Runner, host_losses, total_loss

_TOTAL_LOSS = "@total_loss"
_UPDATE = "param_end:"


class OnePass:
    """A compiled net that returns its blobs. blobs: the names of those to return, all by default.

    Raises RistrettoErrors for unknown names.
    """

    def __init__(
        self,
        net: Net,
        *,
        rng: np.random.Generator,
        blobs: tuple[str, ...] = (),
        execution: Execution = DEFAULT,
    ) -> None:
        self._net = net
        self._blobs, on_host = chosen_blobs(net, blobs)
        self._host_losses = host_losses(net)
        self._extra = self._host_losses.keys() - set(on_host)
        on_host = [*on_host, *sorted(self._extra)]
        self._runner: Runner = compile_net(net, self._select, rng=rng, execution=execution, on_host=on_host)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, AnyArray]:
        """The arrays of one pass, by key."""
        results: dict[str, AnyArray] = dict(self._runner.run(feeds))
        if self._host_losses:
            results[_TOTAL_LOSS] = np.float32(total_loss(results, self._host_losses, _TOTAL_LOSS)).reshape(())
        results = {key: array for key, array in results.items() if key not in self._extra}
        return without_repetitions(self._net, self._blobs, feeds, results)

    def _select(self, run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
        return values_by_key(self._net, self._blobs, run)


def chosen_blobs(net: Net, blobs: Sequence[str]) -> tuple[set[str], list[str]]:
    """The names of these blobs, or of all if none are given: those in the graph, and those of host layers.

    Raises RistrettoErrors for unknown names.
    """
    known = {top.name for layer in net.layers for top in layer.tops} - {AUTOMATIC}
    raise_all(
        RistrettoError(f'the net has no blob "{name}"', where=net.file, hint=did_you_mean(name, known))
        for name in blobs
        if name not in known
    )
    wanted = set(blobs) or known
    tops = {top.name: top for layer in net.layers for top in layer.tops}
    on_host = [name for name, top in tops.items() if top.on_host and name in wanted]
    return wanted - {name for name, top in tops.items() if top.on_host}, on_host


def values_by_key(net: Net, blobs: Collection[str], run: Run[V]) -> dict[str, V]:
    """The values of these blobs in a run, by the keys of the results."""
    picked: dict[str, V] = {}
    for layer, tops in zip(reversed(net.layers), reversed(run.outputs), strict=True):
        if layer.type == "Input":
            continue
        for top, value in reversed(list(zip(computed_tops(layer, tops), tops, strict=True))):
            if top.name in blobs:
                picked[f"{top.name}@{layer.name}" if top.name in picked else top.name] = value
    picked = dict(reversed(picked.items()))
    picked.update({f"{name}@end": run.final[name] for name in sorted(blobs)})
    picked.update({f"{_UPDATE}{key}": value for key, value in run.updates.items()})
    return picked if run.loss is None else {**picked, _TOTAL_LOSS: run.loss}


def without_repetitions(
    net: Net, blobs: Collection[str], feeds: Mapping[str, AnyArray], results: Mapping[str, AnyArray]
) -> dict[str, AnyArray]:
    """The results without `blob@end` and `param_end:` arrays that equal the earlier values."""
    before = {**feeds, **results}
    before.update({f"{name}@end": before[name] for name in blobs})
    before.update({key: net.weights[key.removeprefix(_UPDATE)] for key in results if key.startswith(_UPDATE)})
    later = {*(f"{name}@end" for name in blobs), *(key for key in results if key.startswith(_UPDATE))}
    return {key: array for key, array in results.items() if key not in later or not _equal(array, before[key])}


def _equal(a: AnyArray, b: AnyArray) -> bool:
    return np.array_equal(a, b, equal_nan=True)
