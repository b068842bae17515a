"""A net that is run a few layers at a time: all calibration batches through each part before the next one."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.engine import CutPoint, Select, compile_net
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.host_layers import Runner

OUTPUT = "output"  # the name of the result of a runner for a single blob


class StepwiseNet:
    """A net with the blobs of all calibration batches at one position between its layers.

    batches: for each, the arrays of the net's inputs. memory_bytes: blobs beyond it lie in unnamed temporary files.
    The layers that are run are in the graph and keep no state.
    """

    def __init__(
        self, net: Net, batches: Sequence[Mapping[str, AnyArray]], execution: Execution, *, memory_bytes: int
    ) -> None:
        self.net = net
        self.position = 0  # of the next layer to run
        self._batches = batches
        self._execution = execution
        self._memory_bytes = memory_bytes
        self._blobs: dict[int, tuple[Blob, list[Array]]] = {}  # by Blob.storage, an array for each batch

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Replace parameters, by Param.key, of layers that have not run."""
        self.net = replace(self.net, weights={**self.net.weights, **weights})

    def set_layer(self, position: int, layer: Layer) -> None:
        """Replace a layer that has not run by one with other settings."""
        self.net = replace(self.net, layers=(*self.net.layers[:position], layer, *self.net.layers[position + 1 :]))

    def value(self, blob: Blob, batch: int) -> Array:
        """A blob of a batch, as it is at this position."""
        return self._blobs[blob.storage][1][batch].reshape(blob.shape)

    def run_to(self, position: int) -> None:
        """Run the layers up to the one at this position."""
        if position == self.position:
            return
        written = {top.storage: top for layer in self.net.layers[:position] for top in in_graph(layer.tops)}
        read = {blob.storage for layer in self.net.layers[position:] for blob in in_graph(layer.bottoms)}
        changed = self._changed(position)
        unchanged = {
            storage: held for storage, held in self._blobs.items() if storage in read and storage not in changed
        }
        kept = [blob for storage, blob in written.items() if storage in read and storage not in unchanged]

        def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
            return {str(blob.storage): run.final[blob.name] for blob in kept}

        runner = self._compile(self.net.layers[:position], select, self.position)
        held = sum(_bytes(blob, self._batches) for blob, _ in self._blobs.values())
        found: dict[int, tuple[Blob, list[Array]]] = {}
        spilled: dict[int, Array] = {}
        for blob in kept:
            held += _bytes(blob, self._batches)
            found[blob.storage] = blob, []
            if held > self._memory_bytes:
                spilled[blob.storage] = _in_a_file((len(self._batches), *blob.shape))
        for i in range(len(self._batches)):
            results = runner.run(self.feeds(i))
            for storage, (blob, values) in found.items():
                value = results[str(storage)].reshape(blob.shape)
                if storage in spilled:
                    spilled[storage][i][...] = value
                    value = spilled[storage][i]
                values.append(value)
        self._blobs = {**unchanged, **found}
        self.position = position

    def _changed(self, position: int) -> set[int]:
        """The storage that the layers up to a position write; quantized layers write their bottoms, too."""
        changed: set[int] = set()
        for layer in self.net.layers[self.position : position]:
            written = layer.tops
            if not layer.is_source and LAYERS.get(layer.type).quantized:
                written = (*layer.bottoms, *layer.tops)
            changed.update(blob.storage for blob in written)
        return changed

    def layer_runner(self, layer: Layer, weights: Mapping[str, Array]) -> Runner:
        """Runs the next layer with other settings and weights, for its first top, OUTPUT; see `feeds`."""
        front = (*self.net.layers[: self.position], layer)
        net = replace(self.net, weights={**self.net.weights, **weights})
        return self._compile(front, lambda run, ops: {OUTPUT: run.outputs[self.position][0]}, self.position, net)

    def rest_runner(self, position: int, output: str) -> Runner:
        """Runs the layers from a position on, for the blob of this name, OUTPUT; see `feeds`."""
        return self._compile(self.net.layers, lambda run, ops: {OUTPUT: run.final[output]}, position)

    def feeds(self, batch: int, changed: Mapping[int, Array] | None = None) -> dict[str, AnyArray]:
        """The inputs of a runner: a batch's data and blobs at this position. changed: other values, by storage."""
        values = {storage: held[batch] for storage, (_, held) in self._blobs.items()} | dict(changed or {})
        return {**self._batches[batch], **{_name(storage): array for storage, array in values.items()}}

    def _compile(self, layers: Sequence[Layer], select: Select, position: int, net: Net | None = None) -> Runner:
        """A runner that resumes at a position, with the blobs there."""
        net = replace(net or self.net, layers=tuple(layers))
        front = self.net.layers[:position]
        written = {top.storage: top for layer in front for top in in_graph(layer.tops)}
        read = {blob.storage for layer in layers[position:] for blob in in_graph(layer.bottoms)}
        used = {_name(storage): blob for storage, blob in written.items() if storage in read | self._blobs.keys()}
        inputs = frozenset(blob.name for layer in layers if layer.is_source for blob in layer.tops)
        cut_point = CutPoint(position, used, inputs)
        return compile_net(net, select, rng=np.random.default_rng(0), execution=self._execution, cut_point=cut_point)


def _name(storage: int) -> str:
    return f"activation {storage}"


def _bytes(blob: Blob, batches: Sequence[object]) -> int:
    return 4 * len(batches) * math.prod(blob.shape)


def _in_a_file(shape: Sequence[int]) -> Array:
    """An array in a file without a name. RistrettoError if there is no space for it."""
    try:
        file = tempfile.TemporaryFile(prefix="ristretto-")  # noqa: SIM115  # the mapping keeps its contents
    except OSError as fault:
        raise _no_space(fault) from None
    with file:
        try:
            file.truncate(4 * math.prod(shape))
            if hasattr(os, "posix_fallocate"):
                # A mapping of a file without its space would end the process when the disk is full.
                os.posix_fallocate(file.fileno(), 0, max(4 * math.prod(shape), 1))
        except OSError as fault:
            raise _no_space(fault) from None
        return np.memmap(file, np.float32, "r+", 0, tuple(shape))


def _no_space(fault: OSError) -> RistrettoError:
    folder = tempfile.tempdir or "the folder for temporary files"
    what = f"activations cannot be kept in {folder}: {(fault.strerror or str(fault)).lower()}"
    return RistrettoError(what, hint="Set TMPDIR to a folder with more space.")
