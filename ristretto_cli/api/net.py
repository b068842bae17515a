"""A net in Python: run on arrays or on its data, its blobs and parameters as numpy arrays."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weights, write_weights
from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net import ir
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.weights import fill_weights, load_weights
from ristretto_cli.ops import AnyArray, Array, Shape, show
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.net_files import unknown_inputs
from ristretto_cli.sources.open import DataLayers

PHASES = MappingProxyType({"TRAIN": TRAIN, "TEST": TEST})


@dataclass(frozen=True)
class LayerInfo:
    """A layer: its name, type, and the names of its bottoms and tops."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]


class Net:
    """A net of a prototxt, with the weights of a file, or those of its fillers.

    weights: a .caffemodel or .h5 file. phase: "TEST" or "TRAIN". level, stages: the rest of the state that chooses
    layers. input_shapes: other shapes for Input layers, by blob, such as {"data": (1, 3, 227, 227)}. seed: for fillers
    and for random layers. threads: 0 for one per core. RistrettoError(s) for errors in the files.
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        *,
        phase: str = "TEST",
        level: int = 0,
        stages: Sequence[str] = (),
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        allow_missing_weights: bool = False,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        if phase not in PHASES:
            raise RistrettoError(f'"{phase}" is not a phase', hint="Use TEST or TRAIN.")
        self._file = read_net(model)
        self._state = NetState(PHASES[phase], level, tuple(stages))
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._execution = Execution(threads=threads)
        self._input_shapes = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
        net = self._built()
        if weights is None:
            net = fill_weights(net, rng=self._rng)
        else:
            net = load_weights(net, read_weights(weights), rng=self._rng, allow_missing=allow_missing_weights)
        self._net = net
        self._copied: dict[str, Array] = {}
        self._loader: DataLoader | None = None
        self._pass: OnePass | None = None
        self._pass_of = (0, 0)
        self._blobs: Mapping[str, AnyArray] = MappingProxyType({})

    @property
    def name(self) -> str:
        """The name in the prototxt."""
        return self._net.name

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers of the phase, in order."""
        return tuple(
            LayerInfo(
                layer.name,
                layer.type,
                tuple(blob.name for blob in layer.bottoms),
                tuple(blob.name for blob in layer.tops),
            )
            for layer in self._net.layers
        )

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shapes of the blobs that are fed: those of Input and data layers."""
        return {blob.name: blob.shape for blob in self._net.inputs}

    @property
    def outputs(self) -> dict[str, Shape]:
        """The shapes of the blobs that no layer reads."""
        return {blob.name: blob.shape for blob in self._net.outputs}

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of all blobs."""
        return {blob.name: blob.shape for layer in self._net.layers for blob in layer.tops}

    @property
    def params(self) -> Mapping[str, tuple[Array, ...]]:
        """The parameters of each layer that has some, by its name: weights and biases, for example.

        The arrays are float32 and may be changed; the next run uses the changes. Layers that share a parameter have
        the same array.
        """
        found: dict[str, tuple[Array, ...]] = {}
        for layer in self._net.layers:
            if layer.params:
                found[layer.name] = tuple(self._own(param.key, param.shape) for param in layer.params)
        return MappingProxyType(found)

    @property
    def blobs(self) -> Mapping[str, AnyArray]:
        """The blobs of the last run, as they were at its end; empty before the first one."""
        return self._blobs

    def run(self, arrays: Mapping[str, AnyArray] | None = None, *, blobs: Sequence[str] = ()) -> dict[str, AnyArray]:
        """One forward pass; the outputs, or these blobs, by name.

        arrays: for inputs, by name, each of its shape; data layers whose tops are all given are not read. Others give
        their next batch. RistrettoError(s) for arrays that do not fit, missing ones, and faults of the data.
        """
        names = tuple(blobs)
        feeds = self._feeds(arrays or {})
        checksum = self._checksum()
        if self._pass is None or self._pass_of != checksum:
            self._pass = OnePass(self._net, rng=np.random.default_rng(self._seed), execution=self._execution)
            self._pass_of = checksum
        for name in names:
            if name not in self.shapes:
                raise RistrettoError(
                    f'the net has no blob "{name}"', where=self._net.file, hint=did_you_mean(name, self.shapes)
                )
        results = self._pass.run(feeds)
        last = {name: results.get(f"{name}@end", results.get(name, feeds.get(name))) for name in self.shapes}
        self._blobs = MappingProxyType({name: array for name, array in last.items() if array is not None})
        wanted = names or tuple(self.outputs)
        return {name: self._blobs[name] for name in wanted if name in self._blobs}

    def reshape(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Give Input layers other shapes, by blob; the parameters stay. RistrettoError(s) if layers do not fit."""
        before = self._input_shapes
        self._input_shapes = {**before, **{name: tuple(shape) for name, shape in shapes.items()}}
        try:
            rebuilt = self._built()
            for old, new in zip(self._net.layers, rebuilt.layers, strict=True):
                if [param.shape for param in old.params] != [param.shape for param in new.params]:
                    raise RistrettoError(
                        f'the parameters of layer "{new.name}" ({new.type}) have other shapes then',
                        where=new.where,
                        hint="Only fully convolutional nets take inputs of any size.",
                    )
        except RistrettoError:
            self._input_shapes = before
            raise
        self._net = replace(rebuilt, weights=self._net.weights)
        self._pass = None

    def save(self, path: str) -> None:
        """Write the parameters to a .caffemodel or .h5 file, atomically, which Caffe can read."""
        arrays = {layer: list(params) for layer, params in self.params.items()}
        write_weights(path, arrays, net=self._file.message)

    def close(self) -> None:
        """Close the data layers; the next run reads from the first record on."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {show(shape)}" for name, shape in self.inputs.items())
        return f"<Net {self.name!r}: {len(self._net.layers)} layers, inputs {inputs}>"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(layer.name)}</td><td>{escape(layer.type)}</td><td>{escape(', '.join(layer.bottoms))}</td>"
            f"<td>{escape(', '.join(f'{top} {show(self.shapes[top])}' for top in layer.tops))}</td></tr>"
            for layer in self.layers
        )
        head = "<tr><th>layer</th><th>type</th><th>bottoms</th><th>tops</th></tr>"
        return f"<table><caption>{escape(self.name)}</caption>{head}{rows}</table>"

    def _built(self) -> ir.Net:
        net = build(self._file, self._state, DataLayers(self._input_shapes))
        raise_all(unknown_inputs(net, self._input_shapes))
        return net

    def _own(self, key: str, shape: Shape) -> Array:
        """The array of a parameter, as a copy that may be changed."""
        if key not in self._copied:
            self._copied[key] = np.array(self._net.weights[key], np.float32)
            self._net = replace(self._net, weights={**self._net.weights, key: self._copied[key]})
        return self._copied[key].reshape(shape)

    def _checksum(self) -> tuple[int, int]:
        """Of the parameters that a user may have changed."""
        found = 0
        for array in self._copied.values():
            found = zlib.crc32(np.ascontiguousarray(array).data, found)
        return len(self._copied), found

    def _feeds(self, arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        given = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        if not given:
            return dict(self._opened().next())
        with DataLoader(self._net, given=given, seed=self._seed) as loader:
            return dict(loader.next())

    def _opened(self) -> DataLoader:
        if self._loader is None:
            self._loader = DataLoader(self._net, seed=self._seed)
        return self._loader
