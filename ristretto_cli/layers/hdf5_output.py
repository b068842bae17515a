"""HDF5Output."""

from __future__ import annotations

from collections.abc import Sequence

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.layer_type import LayerType, layer_type
from ristretto_cli.net.ir import Layer
from ristretto_cli.ops import Ops, V, show


@layer_type("HDF5Output")
class HDF5Output(LayerType):
    """No computation: checks and consumes two blobs, so that they are not outputs of the net.

    Caffe writes them to file_name, as `data` and `label`. Here nets write no files; `ristretto forward` writes
    their blobs to its .npz.
    """

    bottoms = (2, 2)
    tops = (0, 0)

    def forward(self, ops: Ops[V], layer: Layer, bottoms: Sequence[V], params: Sequence[V]) -> Sequence[V]:
        data, label = bottoms
        if not layer.message.hdf5_output_param.file_name:
            raise LayerError("file_name is missing", hint="Set it, or use Silence for unused blobs.")
        if max(len(data.shape), len(label.shape)) > 4:
            raise LayerError(
                f"its bottoms have shapes {show(data.shape)} and {show(label.shape)}, but at most 4 axes are allowed"
            )
        if (data.shape or (1,))[0] != (label.shape or (1,))[0]:
            raise LayerError(
                f"its bottoms have shapes {show(data.shape)} and {show(label.shape)}: the batches differ in size"
            )
        return []
