"""A net as it is run: which layers, what they read and write, with which parameters.

Blobs name places in memory, as in Caffe: an in-place layer writes the place it reads, and the tops of
Split, Flatten and Reshape share their bottom's. `Blob.storage` numbers the places, so that whatever
writes one (a ReLU in place, a trim) is seen by every later reader, under whichever name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ristretto_cli.errors import Where
from ristretto_cli.ops import Array, Shape
from ristretto_cli.wire.messages import Message

AUTOMATIC = "(automatic)"  # the top of a loss layer that names none; it is no output of the net


@dataclass(frozen=True)
class Blob:
    """A blob: its name, its shape, and the number of the place in memory that it names.

    on_host: it never enters the graph. A layer behind the graph makes it, or it is fed and has an extent that VARIES.
    """

    name: str
    shape: Shape
    storage: int
    on_host: bool = False


@dataclass(frozen=True)
class ParamDef:
    """A parameter as a layer type asks for it: shape, and the FillerParameter that starts it."""

    shape: Shape
    filler: Message


@dataclass(frozen=True)
class Param:
    """A parameter of a layer. owner and index say whose it is: another layer's where it is shared by name."""

    owner: str
    index: int
    shape: Shape
    filler: Message

    @property
    def key(self) -> str:
        """`layer/i`, the parameter's name in files of weights."""
        return f"{self.owner}/{self.index}"


@dataclass(frozen=True)
class Layer:
    """One layer: its LayerParameter (never changed) and what building the net found out about it.

    phase: TRAIN or TEST of wire.messages. loss_weights: one per top, 0 where the top is no loss. is_source:
    its tops come from outside the net. on_host: it is computed behind the graph (see layers/host_layer.py).
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
    where: Where | None = None


@dataclass(frozen=True)
class Net:
    """A net for one phase. layers stand in the order they run.

    inputs: the tops of data and Input layers, to be fed. outputs: the blobs that no layer reads, sorted by
    name, as Caffe lists them. weights: an array for each parameter's key; missing until they are loaded.
    force_backward: gradients go everywhere, whatever the layers' propagate_down and lr_mult say.
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
    """Those that the graph has."""
    return tuple(blob for blob in blobs if not blob.on_host)
