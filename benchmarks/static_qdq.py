"""The same net as onnxruntime.quantization makes it: static, eight bits, QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import Array


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[Mapping[str, Array]]) -> None:
        self._left: Iterator[Mapping[str, Array]] = iter(batches)

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._left, None)


def write_static_qdq(net: Net, model: Path, batches: Sequence[Mapping[str, Array]], path: Path) -> None:
    """The float model quantized, all but accuracies and losses. batches: what ranges are measured on (MinMax)."""
    prepared = path.with_suffix(".prepared.onnx")
    with _errors_only():
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared, load_external_data=False).graph
        inputs = {value.name for value in graph.input}
        quantize_static(
            str(prepared),
            str(path),
            _Batches([{name: array for name, array in batch.items() if name in inputs} for batch in batches]),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=False,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_behind_the_scores(net, graph),
        )
    prepared.unlink()


@contextmanager
def _errors_only() -> Iterator[None]:
    """onnxruntime's tools advise on the root logger: only errors are logged there in the block."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _behind_the_scores(net: Net, graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes of layers that judge: eight bits are not for them."""
    judging = tuple(
        f"{layer.name}/"
        for layer in net.layers
        if not layer.is_source and (layer.type == "Accuracy" or LAYERS.get(layer.type).is_loss)
    )
    tops = {top.name for layer in net.layers if layer.name + "/" in judging for top in layer.tops}
    named = [node.name for node in graph.node if node.name.startswith(judging)]
    return named + [node.name for node in graph.node if tops.intersection(node.output)]
