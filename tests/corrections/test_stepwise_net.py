"""A net that is run a few layers at a time has the same blobs as one that is run at once."""

from __future__ import annotations

import resource
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.corrections.stepwise_net import OUTPUT, StepwiseNet, _in_a_file
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.engine import compile_net
from ristretto_cli.scoring.execution import Execution

FILLERS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.5 }'
TRIMMED = (
    "quantization_param { precision: DYNAMIC_FIXED_POINT bw_layer_in: 4 bw_layer_out: 4 bw_params: 4 "
    "fl_layer_in: %d fl_layer_out: 1 fl_params: 2 }"
)


def conv(name: str, bottom: str, *, fl: int | None = None) -> str:
    kind = "Convolution" if fl is None else "ConvolutionRistretto"
    trimmed = "" if fl is None else TRIMMED % fl
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {trimmed} '
        f"convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 {FILLERS} }} }}\n"
    )


NET = (
    'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }\n'
    'layer { name: "other" type: "Input" top: "other" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }\n'
    + conv("a", "in", fl=3)
    + 'layer { name: "bn" type: "BatchNorm" bottom: "a" top: "a" }\n'
    + 'layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }\n'
    + 'layer { name: "split" type: "Split" bottom: "a" top: "s" top: "t" }\n'
    # b quantizes its bottom where it is: d and the sum see the same.
    + conv("b", "s", fl=0)
    + conv("d", "t", fl=2)
    + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "d" bottom: "other" top: "sum" }\n'
    + 'layer { name: "flat" type: "Flatten" bottom: "sum" top: "flat" }\n'
    + 'layer { name: "tanh" type: "TanH" bottom: "flat" top: "flat" }\n'
    + conv("e", "b")
    + 'layer { name: "cat" type: "Concat" bottom: "e" bottom: "sum" top: "cat" }\n'
    + 'layer { name: "fc" type: "InnerProduct" bottom: "cat" top: "fc" '
    f"inner_product_param {{ num_output: 2 {FILLERS} }} }}\n"
)


@pytest.fixture
def net(workshop: Any) -> Net:
    found: Net = workshop.load(NET)
    found.weights["bn/1"][:], found.weights["bn/2"][:] = 2, 1
    return found


@pytest.fixture
def batches() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{name: rng.normal(size=(2, 3, 4, 4)).astype(np.float32) for name in ("in", "other")} for _ in range(3)]


def stepwise(net: Net, batches: list[dict[str, Any]], memory_bytes: int = 1 << 20) -> StepwiseNet:
    return StepwiseNet(net, batches, Execution(), memory_bytes=memory_bytes)


def bottoms_of(net: Net, position: int, batches: list[dict[str, Any]]) -> list[list[Any]]:
    """The bottoms of a layer in a run of the whole net, for each batch."""
    runner = compile_net(
        net,
        lambda run, ops: {str(i): value for i, value in enumerate(run.inputs[position])},
        rng=np.random.default_rng(0),
    )
    results = [runner.run(batch) for batch in batches]
    return [[found[str(i)] for i in range(len(found))] for found in results]


@pytest.mark.parametrize("memory_bytes", [0, 1000, 1 << 20])
def test_blobs_at_each_position_are_those_of_a_whole_run(
    net: Net, batches: list[dict[str, Any]], memory_bytes: int
) -> None:
    run = stepwise(net, batches, memory_bytes)
    for position, layer in enumerate(net.layers):
        if layer.is_source:
            continue
        run.run_to(position)
        assert run.position == position
        for batch, expected in enumerate(bottoms_of(net, position, batches)):
            for blob, values in zip(layer.bottoms, expected, strict=True):
                np.testing.assert_allclose(run.value(blob, batch), values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("skipped", [1, 2, 3, 5])
def test_several_layers_are_run_at_once(net: Net, batches: list[dict[str, Any]], skipped: int) -> None:
    run = stepwise(net, batches)
    for position in range(2, len(net.layers), skipped):
        run.run_to(position)
        run.run_to(position)
        for batch, expected in enumerate(bottoms_of(net, position, batches)):
            for blob, values in zip(net.layers[position].bottoms, expected, strict=True):
                np.testing.assert_allclose(run.value(blob, batch), values, rtol=1e-6, atol=1e-6)


def test_the_rest_of_the_net_continues_from_each_position(net: Net, batches: list[dict[str, Any]]) -> None:
    whole = compile_net(net, lambda run, ops: {"fc": run.final["fc"]}, rng=np.random.default_rng(0))
    run = stepwise(net, batches)
    for position in range(len(net.layers)):
        run.run_to(position)
        rest = run.rest_runner(position, "fc")
        for i, batch in enumerate(batches):
            expected = whole.run(batch)["fc"]
            np.testing.assert_allclose(rest.run(run.feeds(i))[OUTPUT], expected, rtol=1e-5, atol=1e-5)


def test_changed_blobs_and_weights_reach_the_rest(net: Net, batches: list[dict[str, Any]]) -> None:
    position = next(i for i, layer in enumerate(net.layers) if layer.name == "b")
    layer = net.layers[position]
    run = stepwise(net, batches)
    run.run_to(position)
    rest = run.rest_runner(position, "fc")
    zeros = {layer.bottoms[0].storage: np.zeros(layer.bottoms[0].shape, np.float32)}
    assert not np.allclose(rest.run(run.feeds(0))[OUTPUT], rest.run(run.feeds(0, zeros))[OUTPUT])
    new = {"b/0": np.zeros_like(net.weights["b/0"]), "b/1": np.full_like(net.weights["b/1"], 0.5)}
    top = run.layer_runner(layer, new).run(run.feeds(1))[OUTPUT]
    np.testing.assert_array_equal(top, np.full((2, 3, 4, 4), 0.5))
    run.set_weights(new)
    run.run_to(position + 1)
    np.testing.assert_array_equal(run.value(layer.tops[0], 2), np.full((2, 3, 4, 4), 0.5))
    assert net.weights["b/0"].any()


def test_a_layer_with_other_settings_replaces_one(net: Net, batches: list[dict[str, Any]]) -> None:
    position = next(i for i, layer in enumerate(net.layers) if layer.name == "d")
    run, same = stepwise(net, batches), stepwise(net, batches)
    message = type(net.layers[position].message)()
    message.CopyFrom(net.layers[position].message)
    message.quantization_param.fl_layer_out = 3
    run.set_layer(position, replace(net.layers[position], message=message))
    for each in (run, same):
        each.run_to(position + 1)
    (top,) = net.layers[position].tops
    assert np.abs(run.value(top, 0)).max() <= 1 < np.abs(same.value(top, 0)).max()


def test_a_full_folder_for_temporary_files_is_reported() -> None:
    """With a mapping of a sparse file, the process would be ended by SIGBUS."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(RistrettoError, match=r"activations cannot be kept in .*: file too large\. Set TMPDIR to"):
            _in_a_file((1000,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
