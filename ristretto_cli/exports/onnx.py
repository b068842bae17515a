"""Nets as ONNX models, with fake-quant nodes for quantized layers."""

from __future__ import annotations

import logging

import numpy as np

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.caffe_io.files import atomic_write
from ristretto_cli.errors import RistrettoError
from ristretto_cli.exports.exporter import Exporter, ExportRequest, exporter, needed
from ristretto_cli.net.build import NetState
from ristretto_cli.scoring.engine import graph_outputs, record
from ristretto_cli.scoring.net_files import load_net

log = logging.getLogger("ristretto")


@exporter("onnx")
class OnnxExporter(Exporter):
    """The net of a phase as an ONNX model: inputs are the tops of its data layers, outputs are Caffe's.

    Host layers are omitted; the blobs that they read are outputs instead of their tops. Weights are included,
    quantized if the layer quantizes them.
    """

    takes = frozenset({"--phase"})

    def write(self, request: ExportRequest) -> str:
        import onnx

        model_file, weights = needed(request.model, "--model"), needed(request.weights, "--weights")
        rng = np.random.default_rng(0)
        state = NetState(request.phase, request.level, request.stages)
        net = load_net(model_file, weights, state, rng=rng, allow_missing=request.allow_missing)
        ops, run = record(net, rng=rng)
        leaving = graph_outputs(net, run)
        if not leaving:
            raise RistrettoError("the net has no outputs that an ONNX graph can compute", where=model_file)
        for layer in net.layers:
            if layer.on_host and layer.tops:
                log.info("%s (%s) is a host layer, computed after the graph, and is omitted.", layer.name, layer.type)
        lowered = lower(ops.graph, leaving)
        model = lowered.model(embed_weights=True)
        onnx.checker.check_model(model)
        with atomic_write(request.output) as temporary:
            onnx.save(model, temporary)
        inputs = ", ".join(value.name for value in model.graph.input)
        outputs = ", ".join(value.name for value in model.graph.output)
        return f"{request.output}: {len(model.graph.node)} nodes, inputs {inputs}, outputs {outputs}"
