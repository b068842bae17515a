"""Corrections of the float net before it is quantized: the same function, with weights that are easier to quantize."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.corrections.batch_norm import absorb_biases
from ristretto_cli.corrections.corrector import Method
from ristretto_cli.corrections.equalization import equalize
from ristretto_cli.corrections.linear_layers import linear_layer
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.execution import Execution

_WORTHWHILE = 1.0  # dB by which the ratio of peak to mean square of the weights must fall, on average over the layers


def easier_weights(
    net: Net, methods: Collection[Method], batches: Sequence[Mapping[str, AnyArray]], execution: Execution
) -> dict[str, Array]:
    """Changed parameters, by Param.key, of a net that computes the same, except for float32 rounding.

    batches: arrays for the net's inputs, to measure the ranges of channels.
    """
    changed: dict[str, Array] = {}
    if Method.BATCH_NORM in methods:
        changed = absorb_biases(net)
    if Method.EQUALIZATION in methods:
        net = replace(net, weights={**net.weights, **changed})
        equalized = equalize(net, _largest_inputs(net, batches, execution))
        if _peak_to_mean(net, {}) - _peak_to_mean(net, equalized) >= _WORTHWHILE:
            changed.update(equalized)
    return changed


def _largest_inputs(net: Net, batches: Sequence[Mapping[str, AnyArray]], execution: Execution) -> dict[str, AnyArray]:
    """The largest magnitude of each channel of the bottom of each product, (C,), by layer; those in the graph only."""
    end = next((i for i, layer in enumerate(net.layers) if layer.on_host and not layer.is_source), len(net.layers))
    front = replace(net, layers=net.layers[:end])
    products = [(i, layer) for i, layer in enumerate(front.layers) if not layer.is_source and linear_layer(layer)]

    def select(run: Run[Node], ops: OnnxOps) -> Mapping[str, Node]:
        found = {}
        for i, layer in products:
            (value, *_) = run.inputs[i]
            axes = [axis for axis in range(len(value.shape)) if axis != 1]
            if len(value.shape) > 1:
                found[layer.name] = ops.max(ops.abs(value), axes)
        return found

    if not products:
        return {}
    runner = compile_net(front, select, rng=np.random.default_rng(0), execution=execution)
    largest: dict[str, AnyArray] = {}
    for batch in batches:
        for name, array in runner.run(batch).items():
            flat = array.ravel()
            largest[name] = np.maximum(largest.get(name, flat), flat)
    return largest


def _peak_to_mean(net: Net, changed: Mapping[str, Array]) -> float:
    """The mean over the products of the ratio of the largest to the mean square weight, in dB.

    It tells by how much the noise of rounding exceeds what equal weights would have.
    """
    ratios = []
    for layer in net.layers:
        if layer.is_source or linear_layer(layer) is None:
            continue
        weights = changed.get(layer.params[0].key, net.weights[layer.params[0].key])
        mean = float(np.square(weights, dtype=np.float64).mean())
        if mean > 0:
            ratios.append(10 * math.log10(float(np.abs(weights).max()) ** 2 / mean))
    return sum(ratios) / len(ratios) if ratios else 0.0
