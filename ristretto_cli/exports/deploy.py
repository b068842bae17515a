"""Deploy nets: prototxts of what a net computes for its users, without data, labels and losses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli import __version__
from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.backends.onnx_graph import unused
from ristretto_cli.caffe_io.files import write_atomically
from ristretto_cli.caffe_io.messages import TEST, Message, new
from ristretto_cli.caffe_io.named_weights import weights_line
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.exports.class_scores import class_scores
from ristretto_cli.exports.exporter import Exporter, ExportRequest, exporter, needed
from ristretto_cli.exports.given_shapes import load_for
from ristretto_cli.exports.program_exporter import DATA_FLAGS
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run
from ristretto_cli.net.header import format_lines
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.ops import DYNAMIC, show
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.metrics import measures
from ristretto_cli.scoring.user_data import check_has_data


@exporter("deploy")
class DeployExporter(Exporter):
    """A prototxt of the net's TEST phase with Input layers for its data layers, and without labels, losses and scores.

    Outputs are the class scores; of a SoftmaxWithLoss the Softmax. Layers keep their names, so that the weights fit.
    """

    takes = frozenset({"--batch", "--input_shape", "--check", *DATA_FLAGS})

    def write(self, request: ExportRequest) -> str:
        model, weights = needed(request.model, "--model"), needed(request.weights, "--weights")
        if request.batch == 0:
            raise RistrettoError("--batch=0: an Input layer has a fixed shape", hint="Use --batch=1.")
        net = load_for(request, read_net(model), batch=request.batch, phase=TEST)
        deploy = _Deploy.of(net)
        header = (
            f"# Deploy net by ristretto {__version__}, of {model}.\n"
            f"{weights_line(weights, request.output)}"
            f"{format_lines(deploy.message)}"
            f"{''.join(deploy.preprocessing)}"
        )
        write_atomically(request.output, header + to_text(deploy.message))
        inputs = ", ".join(f"{name} {show(shape)}" for name, shape in deploy.inputs.items())
        outputs = ", ".join(deploy.outputs)
        line = f"{request.output}: {len(deploy.message.layer)} layers, inputs {inputs}, outputs {outputs}"
        return f"{line}\n{_check(request, deploy.scores)}" if request.check else line


@dataclass(frozen=True)
class _Deploy:
    """A deploy net. inputs: their shapes, by name. scores: the blobs of the net that were class scores or outputs.

    preprocessing: comments with the transform_param of data layers.
    """

    message: Message
    inputs: Mapping[str, Sequence[int]]
    outputs: tuple[str, ...]
    scores: tuple[str, ...]
    preprocessing: tuple[str, ...]

    @classmethod
    def of(cls, net: Net) -> _Deploy:
        dropped = {blob.name for blob in (*measures(net), *net.inputs)}
        predicted = class_scores(net)
        others = [blob.name for blob in net.outputs if blob.name not in dropped]
        scores = tuple(dict.fromkeys([*(blob.name for blob, _ in predicted), *others]))
        if not scores:
            raise RistrettoError("the net has no outputs besides its data", where=net.file)
        kept = _needed(net, scores)
        message = new("NetParameter", name=net.name)
        read = {blob.name for layer in kept for blob in layer.bottoms}
        inputs, preprocessing = {}, []
        for layer in net.layers:
            tops = [top for top in layer.tops if layer.is_source and top.name in read]
            raise_all(
                RistrettoError(
                    f'layer "{layer.name}": the shape of "{top.name}" depends on the data',
                    where=layer.where,
                    hint=f"Set it with --input_shape={top.name}=N,C,H,W.",
                )
                for top in tops
                if DYNAMIC in top.shape
            )
            if not tops:
                continue
            added = message.layer.add(name=layer.name, type="Input", top=[top.name for top in tops])
            for top in tops:
                added.input_param.shape.add(dim=top.shape)
                inputs[top.name] = top.shape
            if layer.message.HasField("transform_param"):
                settings = " ".join(to_text(layer.message.transform_param).split())
                preprocessing.append(
                    f"# Input {tops[0].name} is made of images with transform_param {{ {settings} }}.\n"
                )
        renamed = _without_splits(kept, scores)
        for layer in kept:
            if layer.name not in renamed.removed:
                message.layer.append(renamed.apply(layer))
        outputs = _with_softmax(net, message, [(blob.name, layer) for blob, layer in predicted], scores)
        return cls(message, inputs, outputs, scores, tuple(preprocessing))


def _needed(net: Net, names: Collection[str]) -> list[Layer]:
    """The layers that these blobs depend on, without data layers.

    Among them are quantized layers of other branches that read a blob before one of these layers does: they quantize it
    in place.
    """
    wanted, read = set(names), {top.storage for layer in net.layers for top in layer.tops if top.name in names}
    kept: list[Layer] = []
    for layer in reversed(net.layers):
        if layer.is_source:
            continue
        quantizes = LAYERS.get(layer.type).quantized and any(blob.storage in read for blob in layer.bottoms)
        if quantizes or any(top.name in wanted for top in layer.tops):
            wanted.update(blob.name for blob in layer.bottoms)
            read.update(blob.storage for blob in layer.bottoms)
            kept.append(layer)
    return kept[::-1]


@dataclass(frozen=True)
class _Renamed:
    """Split layers that are removed, by name, and the blobs that their tops are."""

    removed: Collection[str]
    blobs: Mapping[str, str]

    def apply(self, layer: Layer) -> Message:
        """A layer's message without rules and loss weights, with other bottoms."""
        message = new("LayerParameter")
        message.CopyFrom(layer.message)
        for field in ("include", "exclude", "loss_weight", "phase"):
            message.ClearField(field)
        message.bottom[:] = [self.blobs.get(name, name) for name in message.bottom]
        message.top[:] = [self.blobs.get(name, name) for name in message.top]
        return message


def _without_splits(layers: Sequence[Layer], outputs: Collection[str]) -> _Renamed:
    """The Split layers, which Caffe inserts by itself; those stay that outputs or a reader in place need."""
    removed: set[str] = set()
    blobs: dict[str, str] = {}
    for layer in layers:
        if layer.type != "Split" or any(top.name in outputs for top in layer.tops):
            continue
        tops = {top.name for top in layer.tops}
        readers = [each for each in layers if any(blob.name in tops for blob in each.bottoms)]
        beside = [each for each in layers if each is not layer and any(b == layer.bottoms[0] for b in each.bottoms)]
        in_place = any(top.name in tops for each in readers for top in each.tops)
        if not in_place or len(readers) + len(beside) == 1:
            removed.add(layer.name)
            root = blobs.get(layer.bottoms[0].name, layer.bottoms[0].name)
            blobs.update((name, root) for name in tops)
    return _Renamed(removed, blobs)


def _with_softmax(
    net: Net, message: Message, predicted: Sequence[tuple[str, Layer]], scores: Sequence[str]
) -> tuple[str, ...]:
    """Add a Softmax for each SoftmaxWithLoss, unless the net has one; the outputs of the net."""
    names = {layer.name for layer in net.layers} | {top.name for layer in net.layers for top in layer.tops}
    readers = dict(predicted)
    outputs = []
    for blob in scores:
        loss = readers.get(blob)
        known = next((each.top[0] for each in message.layer if each.type == "Softmax" and each.bottom[0] == blob), None)
        if loss is None or loss.type != "SoftmaxWithLoss" or known is not None:
            outputs.append(known or blob)
            continue
        name = unused("prob", names)
        added = message.layer.add(name=name, type="Softmax", bottom=[blob], top=[name])
        if loss.message.softmax_param.HasField("axis"):
            added.softmax_param.axis = loss.message.softmax_param.axis
        outputs.append(name)
    return tuple(dict.fromkeys(outputs))


def _check(request: ExportRequest, scores: Sequence[str]) -> str:
    """Run the written net and the original on images, and compare the scores before a Softmax that was added."""
    original = load_for(replace(request, input_shapes={}), read_net(request.model or ""), batch=None, phase=TEST)
    check_has_data(original, request.data)
    written = read_net(request.output)
    shapes = {blob.name: blob.shape for blob in original.inputs}
    tops = {top for layer in written.message.layer if layer.type == "Input" for top in layer.top}
    as_written = replace(
        request, level=0, stages=(), input_shapes={name: shapes[name] for name in shapes if name in tops}
    )
    deploy = load_for(as_written, written, batch=None, phase=TEST)
    on_host = {top.name for layer in original.layers for top in layer.tops if top.on_host}
    compared = [name for name in scores if name not in on_host]
    if not compared:
        return "not checked: its outputs are computed by host layers"
    runners = [_runner(net, compared) for net in (original, deploy)]
    images = values = differing = 0
    batches = -(-request.check // max(1, next(blob for blob in original.inputs if blob.shape).shape[0]))
    if request.data is not None:
        batches = request.data.iterations(original, batches, "Reading")
    with CachedBatches(original, data=request.data).reader() as reader:
        for _ in range(batches):
            feeds = reader.next()
            ours, theirs = (runner.run(feeds) for runner in runners)
            count = request.check - images
            for name in compared:
                values += ours[name][:count].size
                differing += int((ours[name][:count] != theirs[name][:count]).sum())
            images += len(next(iter(ours.values()))[:count])
    line = f"{images} images, {values:,} values of {', '.join(compared)}: {differing:,} differ"
    if differing:
        raise RistrettoError(f"checked, and it is wrong: {line}", where=request.output)
    return f"checked: {line}"


def _runner(net: Net, names: Sequence[str]) -> Runner:
    def select(run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
        return {name: run.final[name] for name in names}

    return compile_net(net, select, rng=np.random.default_rng(0))
