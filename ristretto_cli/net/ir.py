"""The net for execution: its layers, the blobs they read and write, and their parameters.

Blobs name places in memory, as in Caffe: an in-place layer writes the place it reads, and the tops of
Split, Flatten and Reshape share their bottom's. `Blob.storage` numbers the places, so that a write to
one (by an in-place ReLU, by quantization) is seen by every later reader under any of its names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ristretto_cli.caffe_io.messages import Message
from ristretto_cli.errors import Location
from ristretto_cli.ops import Array, Shape

AUTOMATIC = "(automatic)"  # the top of a loss layer without tops; it is not an output of the net


@dataclass(frozen=True)
class Blob:
    """A blob: its name, its shape, and the number of its place in memory.

    A DYNAMIC extent depends on the data. on_host: it is not in the graph: a host layer produces it, or it is an input
    with a DYNAMIC extent, and only host layers read it.
    """

    name: str
    shape: Shape
    storage: int
    on_host: bool = False


@dataclass(frozen=True)
class ParamDef:
    """A parameter declared by a layer type: its shape, and the FillerParameter that initializes it."""

    shape: Shape
    filler: Message


@dataclass(frozen=True)
class Param:
    """A parameter of a layer. owner and index: the layer that owns it; another one if it is shared by name."""

    owner: str
    index: int
    shape: Shape
    filler: Message

    @property
    def key(self) -> str:
        """`layer/i`, the parameter's name in weight files."""
        return f"{self.owner}/{self.index}"


@dataclass(frozen=True)
class Layer:
    """One layer: its LayerParameter (never modified) and the results of building the net.

    phase: TRAIN or TEST of caffe_io.messages. loss_weights: one per top, 0 if the top is not a loss. is_source:
    its tops come from data or from the user. on_host: it is a host layer (see layers/host_layer.py).
    """

    name: str
    type: str
    phase: int
    message: Message
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]
    params: tuple[Param, ...] = ()
    loss_weights: tuple[float, ...] = ()
    is_source: bool = False
    on_host: bool = False
    where: Location | None = None

    @property
    def feeds_graph(self) -> bool:
        """Whether it is a host layer whose tops are in the graph, because other layers than host layers read them."""
        return self.on_host and any(not top.on_host for top in self.tops)


@dataclass(frozen=True)
class Net:
    """A net for one phase. layers: in execution order.

    inputs: the tops of data and Input layers, to be fed; a batch may have other shapes (see net/reshape.py). outputs:
    the blobs without readers, sorted by name, as in Caffe. weights: an array for each parameter's key; missing until
    they are loaded.
    force_backward: gradients go everywhere, regardless of the layers' propagate_down and lr_mult.
    """

    name: str
    phase: int
    layers: tuple[Layer, ...]
    inputs: tuple[Blob, ...]
    outputs: tuple[Blob, ...]
    weights: Mapping[str, Array] = field(default_factory=dict)
    file: str = ""
    force_backward: bool = False


def in_graph(blobs: Sequence[Blob]) -> tuple[Blob, ...]:
    """Those in the graph."""
    return tuple(blob for blob in blobs if not blob.on_host)
