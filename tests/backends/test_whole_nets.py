"""Whole nets: the fast graph computes every blob as the plain graph does, bit for bit except the sign of zero.

A few nets and formats are compared always, all of them with RISTRETTO_FULL=1, each on every kind of machine.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.onnx_graph import Graph
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.caffe_io.messages import enum_value
from ristretto_cli.formats.number_format import Role
from ristretto_cli.net.forward import Run, forward
from ristretto_cli.net.ir import Net, in_graph
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import record

from ..conftest import FULL
from .conftest import MACHINES

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.modes import MODES_TIMED, Mode, Trimmer
from benchmarks.nets import NETS, prepare

sys.path.pop(0)

Pick = Callable[[Net, Run[Any]], dict[str, Any]]
IMAGES = 2
POWERS_OF_TWO = enum_value("QuantizationParameter.Precision", "INTEGER_POWER_OF_2_WEIGHTS")


def fixed_point(weights: int, activations: int) -> Mode:
    return Mode("dynamic_fixed_point", {Role.PARAMS: weights, Role.LAYER_IN: activations, Role.LAYER_OUT: activations})


FORMATS = {
    "8/8": fixed_point(8, 8),
    "unsigned 8/8": replace(fixed_point(8, 8), options={"unsigned": "true"}),
    "16/16": fixed_point(16, 16),
    "W4A8": fixed_point(4, 8),
    "W8A4": fixed_point(8, 4),
    "activations 16": MODES_TIMED["activations 16"],
    "minifloat 16": MODES_TIMED["minifloat 16"],
    "power of two": MODES_TIMED["power of two"],
}
QUICK = {
    *product(("lenet", "cifar10_full"), ("8/8", "unsigned 8/8", "W8A4", "minifloat 16", "power of two")),
    ("prelu_resnet", "8/8"),
}
full_only = pytest.mark.skipif(not FULL, reason="takes long: run it with RISTRETTO_FULL=1")
CASES = [pytest.param(*case, marks=() if case in QUICK else full_only) for case in product(NETS, FORMATS)]


@dataclass(frozen=True)
class Whole:
    """A net that can be trimmed, and a batch of its inputs."""

    trimmer: Trimmer
    batch: Mapping[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Whole]]:
    """Prepares a net, and keeps the last one: VGG-16 has weights of 550 MB."""
    kept: dict[str, Whole] = {}
    folder = tmp_path_factory.mktemp("whole")

    def prepared(name: str) -> Whole:
        if name not in kept:
            kept.clear()
            shutil.rmtree(folder)
            files = prepare(replace(NETS[name], batch=IMAGES, images=IMAGES), folder)
            trimmer = Trimmer(files.model, files.weights)
            with DataLoader(trimmer.float_net) as feeds:
                kept[name] = Whole(trimmer, feeds.next())
        if any(layer.type == "BatchNorm" for layer in kept[name].trimmer.float_net.layers) and not rounds_sqrt():
            pytest.skip("this onnxruntime rounds square roots wrongly: the plain graph's BatchNorms are off by a bit")
        return kept[name]

    yield prepared
    shutil.rmtree(folder)  # pytest would keep those of three runs


def rounds_sqrt() -> bool:
    """Whether onnxruntime computes square roots as IEEE 754 defines them (1.20 does not)."""
    values = np.linspace(0.01, 4, 1000, dtype=np.float32)
    graph = Graph()
    root = graph.record("Sqrt", [graph.input("x", values.shape)], [values.shape])[0]
    return np.array_equal(Session(graph, {"root": root}).run({"x": values})["root"], np.sqrt(values))


def every_blob(net: Net, run: Run[Any]) -> dict[str, Any]:
    """Each layer's tops as it leaves them, and each blob as the whole pass leaves it."""
    values = {f"end {name}": value for name, value in run.final.items()}
    for i, (layer, tops) in enumerate(zip(net.layers, run.outputs, strict=True)):
        for blob, value in zip(in_graph(layer.tops), tops, strict=True):
            values[f"{i} {layer.name} {blob.name}"] = value
    return values


def outputs(net: Net, run: Run[Any]) -> dict[str, Any]:
    """Only the net's outputs, as in scoring: some nodes are merged, others omitted."""
    return {f"end {blob.name}": run.final[blob.name] for blob in in_graph(net.outputs)}


def recorded(net: Net, pick: Pick, ops: Any) -> dict[str, Any]:
    feeds = {blob.name: ops.input(blob.name, blob.shape) for blob in in_graph(net.inputs)}
    return pick(net, forward(net, ops, feeds, rng=np.random.default_rng(0)))


def results(
    net: Net, batch: Mapping[str, Any], picks: Sequence[Pick]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """For each kind of machine and each pick the values of the fast graph and those of the plain one; once for each
    graph."""
    ops, run = record(net, rng=np.random.default_rng(0))
    wanted = lower(ops.graph, every_blob(net, run)).session(threads=1).run(batch)
    assert all(np.isfinite(array).all() for array in wanted.values())
    seen: set[bytes] = set()
    for (name, machine), pick in product(MACHINES.items(), picks):
        made = machine.run(partial(recorded, net, pick), batch, seen=seen)
        if made is not None:
            found, assumed = made
            assert assumed
            yield name, found, {blob: wanted[blob] for blob in pick(net, run)}


def with_exact_biases(net: Net) -> Net:
    """The net with float biases of powers-of-two layers rounded to a quarter of the unit that the sums of products are
    multiples of: then float32 rounds none of these sums unless it saturates anyway."""
    weights = dict(net.weights)
    for layer in net.layers:
        settings = layer.message.quantization_param
        if settings.precision == POWERS_OF_TWO and len(layer.params) > 1:
            bits = settings.fl_layer_in - settings.exp_min + 2
            key = layer.params[1].key
            weights[key] = np.ldexp(np.rint(np.ldexp(weights[key], bits)), -bits)
    return replace(net, weights=weights)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_every_blob_of_a_whole_net_is_the_plain_graphs(whole: Callable[[str], Whole], name: str, form: str) -> None:
    net = whole(name).trimmer.net(FORMATS[form])
    assert net is not None
    for machine, found, wanted in results(with_exact_biases(net), whole(name).batch, (every_blob, outputs)):
        assert found.keys() == wanted.keys()
        for blob, array in found.items():
            np.testing.assert_array_equal(array, wanted[blob], err_msg=f"{blob}, {machine}")


@pytest.mark.parametrize(
    "name", [pytest.param(net, marks=() if (net, "power of two") in QUICK else full_only) for net in NETS]
)
def test_sums_that_float32_rounds_move_few_elements_by_one_step(whole: Callable[[str], Whole], name: str) -> None:
    # With powers of two biases stay float. In float32 the sum of a bias and of products may be rounded to the middle
    # between two numbers of the grid, and then goes to the even one; in integers it goes to the nearest.
    net = whole(name).trimmer.net(FORMATS["power of two"])
    assert net is not None
    steps: dict[str, float] = {}
    for layer in net.layers:
        if layer.message.quantization_param.precision == POWERS_OF_TWO and layer.params:
            steps[layer.tops[0].name] = 2.0**-layer.message.quantization_param.fl_layer_out
    for machine, found, wanted in results(net, whole(name).batch, (every_blob,)):
        for blob, array in found.items():
            differs = array != wanted[blob]
            if blob.startswith("end ") or not differs.any():
                continue  # the layer that wrote the blob says more
            top = blob.rpartition(" ")[2]
            assert top in steps, (blob, machine)
            assert set(np.abs(array - wanted[blob])[differs]) == {steps[top]}, (blob, machine)
            assert differs.mean() < 1e-3, (blob, machine)
            break  # what is computed from it may differ as well
