"""Nets for another number of images, or other shapes of inputs, than their files give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.exports.exporter import ExportRequest, needed
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.ops import Shape
from ristretto_cli.scoring.net_files import unknown_inputs
from ristretto_cli.sources.open import DataLayers
from ristretto_cli.sources.settings import checked_shape
from ristretto_cli.sources.source import SOURCES


def load_for(request: ExportRequest, net_file: NetFile, *, batch: int | None, phase: int) -> Net:
    """The net of a request with its weights, with the request's shapes. batch: None for the net's.

    RistrettoError(s) for shapes of no input, and for the net's errors.
    """
    state = NetState(phase, request.level, request.stages)
    net = build(net_file, state, _GivenShapes(request.input_shapes, batch))
    raise_all(unknown_inputs(net, request.input_shapes))
    weights = read_weights(needed(request.weights, "--weights"))
    return load_weights(net, weights, rng=np.random.default_rng(0), allow_missing=request.allow_missing)


class _GivenShapes(DataLayers):
    """Data layers with other shapes than their data. batch: the first extent of all tops."""

    def __init__(self, given: Mapping[str, Shape], batch: int | None) -> None:
        self._given = {name: checked_shape(shape, f'"{name}"') for name, shape in given.items()}
        self._batch = batch

    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        given = [self._given.get(top) for top in message.top]
        first = given[0] if given else None
        shapes: Sequence[Shape]
        if given and None not in given:
            shapes = [shape for shape in given if shape is not None]
        else:
            try:
                shapes = super().shapes(message, phase)
            except RistrettoError:
                if first is None or len(given) != 2:
                    raise
                shapes = [first, SOURCES.get(message.type).label_shape(first[0])]
            if first is not None:  # labels and the like have as many images
                shapes = [(first[0], *each[1:]) if each[:1] == shapes[0][:1] else each for each in shapes]
            shapes = [shape if known is None else known for shape, known in zip(shapes, given, strict=True)]
        if self._batch is None:
            return tuple(shapes)
        return tuple((self._batch, *shape[1:]) if shape else shape for shape in shapes)
