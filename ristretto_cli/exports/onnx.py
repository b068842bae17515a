"""Nets as ONNX models, with fake-quant nodes for quantized layers."""

from __future__ import annotations

import logging

import numpy as np

from ristretto_cli.backends.onnx import Node
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_model import ModelProto
from ristretto_cli.caffe_io.files import atomic_write
from ristretto_cli.caffe_io.net_file import NetFile, read_net
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.exports.any_batch import with_any_batch
from ristretto_cli.exports.class_scores import class_scores, without_measures
from ristretto_cli.exports.exporter import Exporter, ExportRequest, exporter, needed
from ristretto_cli.exports.given_shapes import load_for
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.all_blobs import chosen_blobs
from ristretto_cli.scoring.engine import graph_outputs, record

log = logging.getLogger("ristretto")


@exporter("onnx")
class OnnxExporter(Exporter):
    """The net of a phase as an ONNX model: inputs are the tops of its data layers, outputs the class scores.

    Class scores are what losses and Accuracy layers compare with labels; nets without such layers give their outputs.
    Host layers are omitted; the blobs that they read are outputs instead of their tops. Weights are included, quantized
    if the layer quantizes them.
    """

    takes = frozenset({"--phase", "--outputs", "--batch", "--input_shape"})

    def write(self, request: ExportRequest) -> str:
        import onnx

        net_file = read_net(needed(request.model, "--model"))
        needed(request.weights, "--weights")
        if request.batch == 0:
            model = with_any_batch(lambda batch: _model(request, net_file, batch), net_file.file)
        else:
            model = _model(request, net_file, request.batch)
        onnx.checker.check_model(model)
        with atomic_write(request.output) as temporary:
            onnx.save(model, temporary)
        inputs = ", ".join(value.name for value in model.graph.input)
        outputs = ", ".join(value.name for value in model.graph.output)
        return f"{request.output}: {len(model.graph.node)} nodes, inputs {inputs}, outputs {outputs}"


def _model(request: ExportRequest, net_file: NetFile, batch: int | None) -> ModelProto:
    net = load_for(request, net_file, batch=batch, phase=request.phase)
    ops, run = record(net, rng=np.random.default_rng(0))
    leaving = _chosen(net, run, request.outputs) if request.outputs else _default(net, run)
    return lower(ops.graph, leaving).model(embed_weights=True)


def _default(net: Net, run: Run[Node]) -> dict[str, Node]:
    scores = {blob.name: run.final[blob.name] for blob, _ in class_scores(net) if not blob.on_host}
    leaving = scores | graph_outputs(without_measures(net), run)
    if not leaving:
        raise RistrettoError("the net has no outputs that an ONNX graph can compute", where=net.file)
    for layer in net.layers:
        if layer.on_host and layer.tops:
            log.info("%s (%s) is a host layer, computed after the graph, and is omitted.", layer.name, layer.type)
    return leaving


def _chosen(net: Net, run: Run[Node], names: tuple[str, ...]) -> dict[str, Node]:
    _, on_host = chosen_blobs(net, names)
    inputs = {blob.name for blob in net.inputs}
    raise_all(
        RistrettoError(f'"{name}" {"is an input" if name in inputs else "is computed by a host layer"}', where=net.file)
        for name in names
        if name in inputs or name in on_host
    )
    return {name: run.final[name] for name in names}
