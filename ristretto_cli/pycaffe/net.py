"""pycaffe's Net: blobs and parameters as arrays that keep their identity between passes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ristretto_cli import api
from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.net.ir import AUTOMATIC, in_graph
from ristretto_cli.net.ir import Blob as NetBlob
from ristretto_cli.net.ir import Layer as NetLayer
from ristretto_cli.net.weights import load_weights
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.all_blobs import OnePass

_PHASES = {TEST: "TEST", TRAIN: "TRAIN"}
_random = {"seed": 0}


def set_random_seed(seed: int) -> None:
    """The seed of fillers and random layers of nets that are made from now on."""
    _random["seed"] = int(seed)


class Blob:
    """An array of a net, and its gradient's place, which stays zero."""

    def __init__(self, array: AnyArray) -> None:
        self._array = array
        self._diff: AnyArray | None = None

    @property
    def data(self) -> AnyArray:
        """The array; write to it with [...]."""
        return self._array

    @property
    def diff(self) -> AnyArray:
        """An array of the same shape."""
        if self._diff is None or self._diff.shape != self._array.shape:
            self._diff = np.zeros_like(self._array)
        return self._diff

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""
        return self._array.shape

    @property
    def count(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def num(self) -> int:
        """The first of four extents."""
        return self._extent(0)

    @property
    def channels(self) -> int:
        """The second of four extents."""
        return self._extent(1)

    @property
    def height(self) -> int:
        """The third of four extents."""
        return self._extent(2)

    @property
    def width(self) -> int:
        """The fourth of four extents."""
        return self._extent(3)

    def reshape(self, *shape: int) -> None:
        """Give it another shape. Net.reshape, or the next pass, adapts the other blobs to that of an input."""
        wanted = tuple(int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape))
        if wanted != self._array.shape:
            self._array = np.zeros(wanted, np.float32)

    def _extent(self, axis: int) -> int:
        return self._array.shape[axis] if axis < self._array.ndim else 1

    def _take(self, array: AnyArray) -> None:
        """Take over the values of an array, in the same memory if the shape is the same."""
        if array.shape == self._array.shape:
            self._array[...] = array
        else:
            self._array = np.array(array, np.float32)


class Layer:
    """A layer: its type and its parameters."""

    def __init__(self, kind: str, blobs: list[Blob]) -> None:
        self.type = kind
        self.blobs = blobs


class Net:
    """Net(model, phase), Net(model, weights, phase) or Net(model, phase, weights=file, level=0, stages=None).

    Attributes as in pycaffe: blobs, params, layers, layer_dict, inputs, outputs, top_names, bottom_names.
    RistrettoError(s) for errors in the files.
    """

    def __init__(
        self,
        network_file: str,
        *args: Any,
        phase: int | None = None,
        weights: str | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
    ) -> None:
        left = list(args)
        if left and isinstance(left[0], str):
            weights = left.pop(0)
        if left:
            phase = left.pop(0)
        if left or phase not in _PHASES:
            raise TypeError("Net takes (model, phase), (model, weights, phase) or (model, phase, weights=...)")
        self._net = api.Net(
            network_file,
            weights,
            phase=_PHASES[phase],
            level=level,
            stages=stages or (),
            allow_missing_weights=True,
            seed=_random["seed"],
        )
        shapes = self._net.shapes
        self.blobs: OrderedDict[str, Blob] = OrderedDict(
            (name, Blob(np.zeros(shape, np.float32))) for name, shape in shapes.items() if name != AUTOMATIC
        )
        self.params: OrderedDict[str, list[Blob]] = OrderedDict()
        shared: dict[int, Blob] = {}
        for name, arrays in self._net.params.items():
            blobs = ((array.__array_interface__["data"][0], Blob(array)) for array in arrays)
            self.params[name] = [shared.setdefault(address, blob) for address, blob in blobs]
        infos = self._net.layers
        self.layers = [Layer(each.type, self.params.get(each.name, [])) for each in infos]
        self.layer_dict = OrderedDict((each.name, layer) for each, layer in zip(infos, self.layers, strict=True))
        self._layer_names = [each.name for each in infos]
        self.top_names = OrderedDict((each.name, list(each.tops)) for each in infos)
        self.bottom_names = OrderedDict((each.name, list(each.bottoms)) for each in infos)
        self.inputs = [top for each in infos if each.type == "Input" for top in each.tops]
        self.outputs = list(self._net.outputs)

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **arrays: AnyArray
    ) -> dict[str, AnyArray]:
        """A pass, or its part from layer `start` to layer `end`, both included; the outputs and `blobs`, by name.

        arrays: for all inputs, or none; otherwise the inputs are what their blobs hold. Data layers read their next
        batch.
        """
        if arrays and set(arrays) != set(self.inputs):
            raise ValueError(f"forward takes arrays for all inputs, {', '.join(self.inputs)}, or for none")
        for name, array in arrays.items():
            if len(array) != self.blobs[name].num:
                raise ValueError(f"the array for {name} has {len(array)} images, its blob {self.blobs[name].num}")
            self.blobs[name].data[...] = array
        self.reshape()
        first = 0 if start is None else self._position(start)
        last = len(self._layer_names) - 1 if end is None else self._position(end)
        if start is None and end is None:
            feeds = {name: self.blobs[name].data for name in self.inputs}
            self._net.run(feeds)
            for name, array in self._net.blobs.items():
                if name in self.blobs and name not in feeds:
                    self.blobs[name]._take(array)
            outputs = list(self.outputs)
        else:
            self._run_part(first, last)
            outputs = list(self.outputs) if end is None else self.top_names[end]
        return {name: self.blobs[name].data for name in dict.fromkeys([*outputs, *(blobs or ())])}

    def forward_all(self, blobs: Sequence[str] | None = None, **arrays: AnyArray) -> dict[str, AnyArray]:
        """Passes over arrays of any number of images, in batches of the net's size; the results are copies."""
        total = len(next(iter(arrays.values())))
        found: dict[str, list[AnyArray]] = {}
        size = self.blobs[self.inputs[0]].num
        for begin in range(0, total, size):
            batch = {}
            for name, array in arrays.items():
                part = np.asarray(array[begin : begin + size], np.float32)
                batch[name] = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            for name, array in self.forward(blobs, None, None, **batch).items():
                found.setdefault(name, []).append(array[: total - begin].copy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def backward(self, *args: Any, **settings: Any) -> None:
        """Not available: RuntimeError."""
        raise RuntimeError("pycaffe's backward is not available; use `ristretto forward --backward`")

    def reshape(self) -> None:
        """Adapt all blobs to the shapes of the inputs."""
        built = self._net.inputs
        changed = {name: self.blobs[name].shape for name in self.inputs if self.blobs[name].shape != built[name]}
        if not changed:
            return
        self._net.reshape(changed)
        for name, shape in self._net.shapes.items():
            if name in self.blobs and name not in self.inputs:
                self.blobs[name].reshape(*shape)

    def copy_from(self, weights: str) -> None:
        """Read parameters from a .caffemodel or .h5 file, by layer name; layers that it lacks keep theirs."""
        net = self._net._net
        loaded = load_weights(net, read_weights(weights), rng=np.random.default_rng(0), allow_missing=True)
        stored = read_weights(weights).layers
        for layer in net.layers:
            if layer.name in stored and layer.name in self.params:
                for blob, param in zip(self.params[layer.name], layer.params, strict=True):
                    blob.data[...] = loaded.weights[param.key].reshape(param.shape)

    def share_with(self, other: Net) -> None:
        """Copy the parameters of the layers with the same names from another net."""
        for name, blobs in self.params.items():
            for mine, theirs in zip(blobs, other.params.get(name, blobs), strict=True):
                mine.data[...] = theirs.data

    def save(self, path: str) -> None:
        """Write the parameters to a .caffemodel file, atomically."""
        self._net.save(str(path))

    def save_hdf5(self, path: str) -> None:
        """Write the parameters to an HDF5 file, atomically; its name ends in .h5."""
        self._net.save(str(path))

    def load_hdf5(self, path: str) -> None:
        """See copy_from."""
        self.copy_from(path)

    def _position(self, layer: str) -> int:
        if layer not in self._layer_names:
            raise ValueError(f'the net has no layer "{layer}"')
        return self._layer_names.index(layer)

    def _run_part(self, first: int, last: int) -> None:
        """Run some layers on what the blobs hold."""
        net = self._net._net
        part = net.layers[first : last + 1]
        if any(layer.is_source and layer.type != "Input" for layer in part):
            raise ValueError("a part of a pass cannot include data layers; begin after them")
        written: set[int] = set()
        fed: dict[str, NetBlob] = {}
        body = tuple(layer for layer in part if not layer.is_source)
        for layer in body:
            for blob in layer.bottoms:
                if blob.storage not in written and blob.storage not in {each.storage for each in fed.values()}:
                    fed[blob.name] = blob
            written.update(top.storage for top in layer.tops)
        source = NetLayer(
            "blobs", "Input", net.phase, part[0].message, (), tuple(fed.values()), (), (0.0,) * len(fed), True
        )
        inner = replace(net, layers=(source, *body), inputs=tuple(fed.values()))
        tops = [top.name for layer in body for top in in_graph(layer.tops) if top.name in self.blobs]
        found = OnePass(inner, rng=np.random.default_rng(0), blobs=tuple(dict.fromkeys(tops))).run(
            {name: self.blobs[name].data for name in fed}
        )
        for name in dict.fromkeys(tops):
            self.blobs[name]._take(found.get(f"{name}@end", found[name]))
