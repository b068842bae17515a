"""Time training, beside plain PyTorch: `python -m benchmarks.training [net ...]`.

All train on one batch that lies in memory, in turns in one run; torch works with as many threads as it likes. Trimmed
nets have all convolutions and layers of neurons in 8-bit fixed point, whose weights are rounded at random.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import busy
from benchmarks.nets import NETS
from benchmarks.passes import Pass, take_turns
from ristretto_cli.caffe_io.messages import TRAIN, Message
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import fill_weights
from ristretto_cli.ops import Array
from ristretto_cli.sources.open import DataLayers
from ristretto_cli.train.solver import Solver
from ristretto_cli.train.solver_settings import LrPolicy, NetSource, Snapshots, SolverSettings, UpdateRule
from ristretto_cli.train.torch_import import import_torch
from ristretto_cli.train.trained_net import TrainNet

BITS = 8


@dataclass(frozen=True)
class Training:
    """A net to be trained: its name in plain.py, how many images a batch has, how many iterations a turn has."""

    plain: str
    batch: int
    iterations: int


TRAININGS = {
    "lenet": Training("lenet", 64, 20),
    "cifar10_full": Training("cifar10_full", 100, 4),
    "resnet20": Training("resnet20", 128, 2),
}


class _OneBatch:
    """Brings the same batch again and again."""

    def __init__(self, batch: Mapping[str, Array]) -> None:
        self._batch = batch

    def next(self) -> Mapping[str, Array]:
        return self._batch


def train_net(name: str, batch: int, *, trimmed: bool) -> Net:
    """A benchmark's net for phase TRAIN, filled, with inputs in place of its data."""
    file = NETS[name].net_file()
    for layer in file.message.layer:
        if layer.type == "Data":
            layer.type = "Input"
            layer.ClearField("transform_param")
            for shape in ((batch, *NETS[name].image), (batch,)):
                layer.input_param.shape.add(dim=shape)
    if trimmed:
        _trim(file, build(file, NetState(TRAIN), DataLayers()))
    return fill_weights(build(file, NetState(TRAIN), DataLayers()), rng=np.random.default_rng(0))


def _trim(file: NetFile, net: Net) -> None:
    bottoms = {layer.name: [blob.shape for blob in layer.bottoms] for layer in net.layers}
    for message in file.message.layer:
        layer_type = LAYERS.get(message.type) if message.type in LAYERS else None
        if layer_type is not None and layer_type.quantized_type:
            layer_type.fill_in_defaults(message, bottoms[message.name])
            message.type = layer_type.quantized_type
            _set_bits(message.quantization_param)


def _set_bits(quantization: Message) -> None:
    for role in ("layer_in", "layer_out", "params"):
        setattr(quantization, f"bw_{role}", BITS)
        setattr(quantization, f"fl_{role}", BITS - 1)


def own_loop(net: Net, batch: Mapping[str, Array], iterations: int) -> Pass:
    """What trains a net of ours for some iterations on one batch, as `ristretto train` does."""
    settings = SolverSettings(
        train=NetSource("net", 0, "net", TRAIN),
        policy=LrPolicy("fixed", 1e-4),
        rule=UpdateRule(momentum=0.9, weight_decay=5e-4),
        max_iter=0,
        snapshots=Snapshots("unused", after_train=False),
    )
    solver = Solver(settings, TrainNet(net, rng=np.random.default_rng(0)), _OneBatch(batch))
    return lambda: solver.run(solver.iteration + iterations)


def measure(name: str, training: Training, rounds: int) -> list[list[str]]:
    """A row for each way to train a net: milliseconds an iteration, and over plain PyTorch (median, least)."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((training.batch, *NETS[name].image), np.float32)
    label = rng.integers(0, 10, training.batch).astype(np.float32)
    batch = {"data": data, "label": label}
    import_torch()  # which says how torch's threads wait, for plain PyTorch as for ours
    from benchmarks import plain

    net_of_torch = getattr(plain, training.plain)()
    loops: dict[str, Pass] = {"PyTorch": plain.plain_loop(net_of_torch, data, label, training.iterations)}
    for what, trimmed in (("float", False), ("trimmed", True)):
        net = train_net(name, training.batch, trimmed=trimmed)
        loops[what] = own_loop(net, batch, training.iterations)
    times = take_turns(loops, rounds)
    rows = []
    for what, taken in times.items():
        each = 1000 / training.iterations
        figures = [taken.median * each, min(taken.seconds) * each, *taken.over(times["PyTorch"])]
        rows.append([name, what, str(training.batch), *(f"{figure:.2f}" for figure in figures)])
    return rows


def main(args: list[str]) -> int:
    """Measure what is asked for; the table goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="net", help=f"{', '.join(TRAININGS)}; all by default")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed (15)")
    flags = parser.parse_args(args)
    unknown = [name for name in flags.nets if name not in TRAININGS]
    if unknown or flags.rounds < 1:
        parser.error(f"there are {', '.join(TRAININGS)}; rounds begin at 1")
    logging.getLogger("ristretto").setLevel(logging.ERROR)
    warning = busy()
    head = ["net", "training", "batch", "ms, median", "ms, least", "ratio, median", "ratio, least"]
    print(f"| {' | '.join(head)} |\n|{'|'.join('---' for _ in head)}|")
    for name in flags.nets or TRAININGS:
        for row in measure(name, TRAININGS[name], flags.rounds):
            print(f"| {' | '.join(row)} |", flush=True)
    if warning:
        print(f"\n{warning}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
