"""The integers of some images in a program: of its inputs, of all blobs, and of what layers with weights read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.integers.compiler import Compiled
from ristretto_cli.integers.interpreter import Interpreter, quantized
from ristretto_cli.integers.program import Product, Program
from ristretto_cli.integers.runner import InputNumbers
from ristretto_cli.ops import AnyArray
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.user_data import UserData, check_has_data


@dataclass(frozen=True)
class Images:
    """Some images of a program.

    numbers: the program's inputs, float32, and `integers` of them, for each batch,
    by place.
    """

    numbers: list[Mapping[str, AnyArray]]
    integers: list[Mapping[str, AnyArray]]

    @property
    def count(self) -> int:
        """The number of images."""
        return sum(len(next(iter(batch.values()))) for batch in self.integers)


def read_images(compiled: Compiled, count: int, data: UserData | None) -> Images:
    """The first `count` images of the net's data layers, or of the user's data; fewer if there are no more."""
    net, program = compiled.net, compiled.program
    check_has_data(net, data)
    inputs = InputNumbers(compiled)
    images = Images([], [])
    left = count
    first = next(blob for blob in net.inputs if blob.shape)
    batches = -(-count // max(1, first.shape[0]))
    if data is not None:
        batches = data.iterations(net, batches, "Reading")
    with CachedBatches(net, data=data).reader() as reader:
        for _ in range(batches):
            feeds = reader.next()
            numbers = {name: array[:left] for name, array in inputs.run(feeds).items()}
            images.numbers.append(numbers)
            named = ((each, each.place.name) for each in program.inputs)
            images.integers.append({name: quantized(numbers[name], each) for each, name in named})
            left -= len(next(iter(numbers.values())))
            if left <= 0:
                break
    if not images.count:
        raise RistrettoError("there are no images", where=net.file)
    return images


def all_places(program: Program, images: Images) -> Iterator[dict[str, AnyArray]]:
    """For each batch, the integers of the inputs, of all blobs and of what the layers with weights read, by place."""
    wanted = {place.name for place in program.blobs.values()} | {each.place.name for each in program.inputs}
    wanted |= {step.x.name for step in program.steps if isinstance(step, Product)}
    interpreter = Interpreter(program, keep=lambda place: place.name in wanted)
    for batch in images.integers:
        yield interpreter.run_integers(batch)


def joined(batches: Iterator[dict[str, AnyArray]], count: int) -> dict[str, AnyArray]:
    """The integers of the first `count` images, by place."""
    parts: dict[str, list[AnyArray]] = {}
    done = 0
    for batch in batches:
        if done >= count:
            break
        for name, array in batch.items():
            parts.setdefault(name, []).append(array[: count - done])
        done += len(next(iter(batch.values())))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
