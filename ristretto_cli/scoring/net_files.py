"""Scoring of a net file: the work of `ristretto test`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weight_files
from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import fill_weights, load_weights
from ristretto_cli.ops import Shape, show
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.comparisons import Comparison, comparisons_for
from ristretto_cli.scoring.engine import compile_net, log_device
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.float_outputs import FloatOutputs
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.metrics import check_metric_options
from ristretto_cli.scoring.score import NetCompiler, Scorer, ScoringOptions
from ristretto_cli.scoring.scores import Scores
from ristretto_cli.scoring.user_data import UserData, check_has_data
from ristretto_cli.sources.open import DataLayers


def load_net(
    model: str,
    weights: str | None,
    state: NetState,
    *,
    rng: np.random.Generator,
    allow_missing: bool = False,
    input_shapes: Mapping[str, Shape] | None = None,
) -> Net:
    """The net of a prototxt for a state, with the weights of a file, or with those of its fillers if it is None.

    input_shapes: other shapes for its inputs without data of their own, by blob name.
    """
    net = build(read_net(model), state, DataLayers(input_shapes))
    raise_all(unknown_inputs(net, input_shapes or (), "--input_shape: "))
    if weights is None:
        return fill_weights(net, rng=rng)
    return load_weights(net, read_weight_files(weights), rng=rng, allow_missing=allow_missing)


def unknown_inputs(net: Net, names: Iterable[str], prefix: str = "") -> Iterator[RistrettoError]:
    """An error for each name that is no input of a net. prefix: of the messages."""
    inputs = [blob.name for blob in net.inputs]
    for name in names:
        if name not in inputs:
            hint = did_you_mean(name, inputs) or f"Inputs: {', '.join(inputs) or 'none'}."
            yield RistrettoError(f'{prefix}"{name}" is not an input of the net', where=net.file, hint=hint)


def score_file(
    model: str,
    weights: str,
    iterations: int,
    *,
    state: NetState,
    execution: Execution = DEFAULT,
    allow_missing: bool = False,
    metric_options: MetricOptions | None = None,
    on_batch: OnBatch = ignore_progress,
    against: tuple[str, str] | None = None,
    score: str | None = None,
    data: UserData | None = None,
    compiler: NetCompiler = compile_net,
    input_shapes: Mapping[str, Shape] | None = None,
) -> Scores:
    """The scores of a net file over `iterations` batches; RistrettoError(s) for all its errors.

    against: the prototxt and the weights of another net to compare it with on the same batches, normally its float
    net; score: the comparison, by default all (see comparisons_for). data: the user's, for inputs of the net; at most
    one pass over it is run. compiler: makes the net's runner. input_shapes: see load_net.
    """
    log_device(execution.gpu)
    rng = np.random.default_rng(0)
    net = load_net(model, weights, state, rng=rng, allow_missing=allow_missing, input_shapes=input_shapes)
    check_has_data(net, data)
    options = ScoringOptions(
        iterations if data is None else data.iterations(net, iterations, "Scoring"),
        CachedBatches(net, data=data),
        label="testing",
        on_batch=on_batch,
        metric_options=metric_options or MetricOptions(),
    )
    check_metric_options([net], options.metric_options, model)
    float_outputs = None
    if against is not None:
        other_rng = np.random.default_rng(0)
        other = load_net(*against, state, rng=other_rng, allow_missing=allow_missing, input_shapes=input_shapes)
        comparisons = comparisons_for(net, score)
        _check_comparable(net, other, [each.blob for each in comparisons])
        float_outputs = FloatOutputs(
            comparisons, partial(_blobs_of, other, comparisons, rng=other_rng, execution=execution)
        )
    return Scorer(net, rng=rng, execution=execution, float_outputs=float_outputs, compiler=compiler).run(options)


def _blobs_of(net: Net, comparisons: Sequence[Comparison], *, rng: np.random.Generator, execution: Execution) -> Runner:
    """A runner of the blobs that some comparisons need."""

    def select(run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
        return {each.blob: run.final[each.blob] for each in comparisons}

    return compile_net(net, select, rng=rng, execution=execution)


def _check_comparable(net: Net, other: Net, blobs: Sequence[str]) -> None:
    """RistrettoError(s) for inputs of the other net, and for blobs to compare, that differ from those of the net."""
    inputs = {blob.name: blob.shape for blob in net.inputs}
    tops, other_tops = (
        {top.name: top.shape for layer in each.layers for top in layer.tops if not top.on_host} for each in (net, other)
    )
    errors = [
        RistrettoError(
            f'its input "{blob.name}" is {show(blob.shape)}, but in {net.file} it {_is(inputs.get(blob.name))}',
            where=other.file,
            hint="Both nets must read the same data.",
        )
        for blob in other.inputs
        if inputs.get(blob.name) != blob.shape
    ]
    errors += [
        RistrettoError(
            f'its blob "{name}" {_is(other_tops.get(name))}, but in {net.file} it {_is(tops[name])}',
            where=other.file,
            hint="Choose a blob of both nets with --score.",
        )
        for name in blobs
        if other_tops.get(name) != tops[name]
    ]
    raise_all(errors)


def _is(shape: Shape | None) -> str:
    return "is missing" if shape is None else f"is {show(shape)}"
