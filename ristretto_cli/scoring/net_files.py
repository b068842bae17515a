"""Scoring of a net file: the work of `ristretto test`."""

from __future__ import annotations

import numpy as np

from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import fill_weights, load_weights
from ristretto_cli.scoring.engine import log_device
from ristretto_cli.scoring.evaluation import OnBatch, ignore_progress
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.metrics import check_metric_options
from ristretto_cli.scoring.score import score_net
from ristretto_cli.scoring.scores import Scores
from ristretto_cli.sources.open import DataLayers


def load_net(
    model: str, weights: str | None, state: NetState, *, rng: np.random.Generator, allow_missing: bool = False
) -> Net:
    """The net of a prototxt for a state, with the weights of a file, or with those of its fillers if it is None."""
    net = build(read_net(model), state, DataLayers())
    if weights is None:
        return fill_weights(net, rng=rng)
    return load_weights(net, read_weights(weights), rng=rng, allow_missing=allow_missing)


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
) -> Scores:
    """The scores of a net file over `iterations` batches; RistrettoError(s) for all its errors."""
    log_device(execution.gpu)
    rng = np.random.default_rng(0)
    net = load_net(model, weights, state, rng=rng, allow_missing=allow_missing)
    check_metric_options([net], metric_options or MetricOptions(), model)
    return score_net(
        net, iterations, rng=rng, execution=execution, label="testing", metric_options=metric_options, on_batch=on_batch
    )
