"""A net scored by its integer program: the layers before and after it run in float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.errors import RistrettoError
from ristretto_cli.integers.compiler import DEFAULT_AFFINE_BITS, Compiled, compile_program
from ristretto_cli.integers.interpreter import Interpreter, numbers_of
from ristretto_cli.integers.program import Place
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.net.forward import Run
from ristretto_cli.net.ir import Blob, Layer, Net, in_graph
from ristretto_cli.ops import AnyArray, Array, show
from ristretto_cli.scoring.all_blobs import chosen_blobs, values_by_key, without_repetitions
from ristretto_cli.scoring.engine import CutPoint, Select, compile_net
from ristretto_cli.scoring.execution import DEFAULT, Execution
from ristretto_cli.scoring.host_layers import Runner
from ristretto_cli.scoring.net_profile import NetProfiler


class InputNumbers:
    """The numbers that a program's inputs quantize, from the arrays of a batch."""

    def __init__(self, compiled: Compiled, *, execution: Execution = DEFAULT) -> None:
        fed = {blob.name for blob in compiled.net.inputs}
        sources = {top.name for layer in compiled.net.layers if not layer.is_source for top in layer.tops}
        self._inputs = compiled.program.inputs
        self._fed = {each.place.name: each.blob for each in self._inputs if each.blob in fed - sources}
        computed = [each for each in self._inputs if each.place.name not in self._fed]
        self._runner: Runner | None = None
        if computed:
            end = max(each.layer for each in computed) + 1
            net = replace(compiled.net, layers=compiled.net.layers[:end])

            def select(run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
                return {each.place.name: run.inputs[each.layer][each.bottom] for each in computed}

            self._runner = compile_net(net, select, rng=np.random.default_rng(0), execution=execution)

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """float32 (N, *shape) by the names of the inputs' places."""
        found: dict[str, AnyArray] = {} if self._runner is None else dict(self._runner.run(feeds))
        found.update({name: np.asarray(feeds[blob], np.float32) for name, blob in self._fed.items()})
        for each in self._inputs:
            shape = found[each.place.name].shape
            if shape[1:] != each.place.shape:
                raise RistrettoError(
                    f"{each.blob} is {show(shape)} here, but the integer program is for {show(each.place.shape)}",
                    hint="Use images of one size.",
                )
        return found


class IntegerRunner:
    """Runs a net by its program; a Runner for the values that `select` picks, and the blobs `on_host`.

    argmax: counts images whose class is that of the label, by a rule for ties that hardware has.
    """

    def __init__(
        self, compiled: Compiled, select: Select, *, on_host: Collection[str] = (), execution: Execution = DEFAULT
    ) -> None:
        self._inputs = InputNumbers(compiled, execution=execution)
        self._interpreter = Interpreter(compiled.program)
        rest, self._places = _rest(compiled)
        self._runner = compile_net(rest, select, rng=np.random.default_rng(0), execution=execution, on_host=on_host)
        self.argmax = FirstOfEquals(compiled)

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        """The results of one batch."""
        integers = self._interpreter.run(self._inputs.run(feeds))
        self.argmax.add(integers, feeds)
        numbers = {
            blob.name: numbers_of(place, integers[place.name]).reshape(blob.shape) for blob, place in self._places
        }
        return self._runner.run({**feeds, **numbers})


class FirstOfEquals:
    """The accuracy of each Accuracy layer with top_k 1 if of equal scores the first counts, as in most hardware.

    Caffe's Accuracy takes an image whose label has only one of the largest scores for an error.
    """

    def __init__(self, compiled: Compiled) -> None:
        fed = {blob.name for blob in compiled.net.inputs}
        self._layers = []
        self.correct: dict[str, int] = {}
        self.images: dict[str, int] = {}
        for read in compiled.reads:
            layer = compiled.net.layers[read.layer]
            is_vector = sum(n != 1 for n in read.place.shape) <= 1
            if layer.type != "Accuracy" or layer.message.accuracy_param.top_k != 1 or read.bottom != 0 or not is_vector:
                continue
            if layer.bottoms[1].name in fed and not layer.message.accuracy_param.HasField("ignore_label"):
                self._layers.append((layer.tops[0].name, layer.bottoms[1].name, read.place))

    def add(self, integers: Mapping[str, AnyArray], feeds: Mapping[str, AnyArray]) -> None:
        """Count the images of a batch."""
        for name, label, place in self._layers:
            scores = integers[place.name].reshape(len(integers[place.name]), -1)
            labels = np.asarray(feeds[label]).ravel()
            if len(labels) != len(scores):
                continue
            self.correct[name] = self.correct.get(name, 0) + int((scores.argmax(1) == labels).sum())
            self.images[name] = self.images.get(name, 0) + len(scores)

    def accuracies(self) -> dict[str, float]:
        """The accuracies so far, by blob."""
        return {name: correct / self.images[name] for name, correct in self.correct.items()}


def _rest(compiled: Compiled) -> tuple[Net, list[tuple[Blob, Place]]]:
    """The net without the layers of the program, whose results are inputs; and these, each with its place."""
    net = compiled.net
    storage = 1 + max(blob.storage for layer in net.layers for blob in (*layer.bottoms, *layer.tops))
    blobs: dict[str, tuple[Blob, Place]] = {}

    def blob_for(name: str, shape: tuple[int, ...], place: Place) -> Blob:
        if place.name not in blobs:
            taken = {blob.name for blob, _ in blobs.values()} | (set(compiled.finals) - {name})
            unique = name if name not in taken else f"{name} of the program"
            while unique in taken:
                unique += "'"
            blobs[place.name] = Blob(unique, shape, storage + len(blobs)), place
        return replace(blobs[place.name][0], shape=shape)

    last = {top.name: top for layer in net.layers for top in in_graph(layer.tops)}
    for name, place in compiled.finals.items():
        blob_for(name, last[name].shape, place)
    reads = {(each.layer, each.bottom): each.place for each in compiled.reads}
    layers: list[Layer] = []
    for i, layer in enumerate(net.layers):
        if i not in compiled.before and i not in compiled.after and not layer.is_source:
            continue
        position, bottoms = 0, []
        for blob in layer.bottoms:
            if blob.on_host:
                bottoms.append(blob)
                continue
            read = reads.get((i, position))
            bottoms.append(blob if read is None else blob_for(blob.name, blob.shape, read))
            position += 1
        layers.append(replace(layer, bottoms=tuple(bottoms)))
    fed = tuple(blob for blob, _ in blobs.values())
    weights = (0.0,) * len(fed)
    first = Layer(
        "integer program", "Input", net.phase, layers[0].message, (), fed, loss_weights=weights, is_source=True
    )
    inputs = (*net.inputs, *fed)
    return replace(net, layers=(first, *layers), inputs=inputs), list(blobs.values())


class IntegerCompiler:
    """Makes IntegerRunners with these settings, in place of compile_net. argmax: of the last one that it made."""

    def __init__(self, *, rounding: ShiftRounding, affine_bits: int = DEFAULT_AFFINE_BITS) -> None:
        self._rounding, self._affine_bits = rounding, affine_bits
        self.argmax: FirstOfEquals | None = None

    def __call__(
        self,
        net: Net,
        select: Select,
        *,
        rng: np.random.Generator,
        execution: Execution = DEFAULT,
        on_host: Collection[str] = (),
        cut_point: CutPoint | None = None,
        profiler: NetProfiler | None = None,
    ) -> IntegerRunner:
        if cut_point is not None or profiler is not None:
            raise ValueError("an integer program runs whole")
        runner = IntegerRunner(self.compile(net), select, on_host=on_host, execution=execution)
        self.argmax = runner.argmax
        return runner

    def compile(self, net: Net) -> Compiled:
        """A net's program with these settings."""
        return compile_program(net, rounding=self._rounding, affine_bits=self._affine_bits)

    def one_pass(
        self, net: Net, *, rng: np.random.Generator, blobs: tuple[str, ...] = (), execution: Execution = DEFAULT
    ) -> IntegerPass:
        """An IntegerPass, in place of an OnePass."""
        return IntegerPass(self.compile(net), blobs=blobs, execution=execution)


class IntegerPass:
    """One pass of a net by its program, with its blobs: the results of `ristretto forward`, by its keys.

    blobs: the names of those to return, all by default. Blobs of the program that no result depends on are omitted.
    Raises RistrettoErrors for unknown names.
    """

    def __init__(self, compiled: Compiled, *, blobs: tuple[str, ...] = (), execution: Execution = DEFAULT) -> None:
        chosen, on_host = chosen_blobs(compiled.net, blobs)
        self._places = {key: place for key, place in compiled.program.blobs.items() if key.partition("@")[0] in chosen}
        wanted = {place.name for place in self._places.values()}
        self._inputs = InputNumbers(compiled, execution=execution)
        self._interpreter = Interpreter(compiled.program, keep=lambda place: place.name in wanted)
        self._shapes = {top.name: top.shape for layer in compiled.net.layers for top in in_graph(layer.tops)}
        rest, self._fed = _rest(compiled)
        fed = {blob.name for blob, _ in self._fed}

        def select(run: Run[Node], ops: OnnxOps) -> dict[str, Node]:
            found = values_by_key(rest, {name for name in chosen if name in run.final}, run)
            return {key: value for key, value in found.items() if key.partition("@")[0] not in fed}

        self._runner = compile_net(rest, select, rng=np.random.default_rng(0), execution=execution, on_host=on_host)
        self._net, self._chosen = rest, chosen

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """The arrays of one pass, by key."""
        integers = self._interpreter.run(self._inputs.run(feeds))
        numbers = {blob.name: numbers_of(place, integers[place.name]).reshape(blob.shape) for blob, place in self._fed}
        rest = self._runner.run({**feeds, **numbers})
        others = {key for key in rest if not key.endswith("@end")}
        blobs = [name for name in self._chosen if name in others or name in feeds]
        found = without_repetitions(self._net, [b for b in blobs if f"{b}@end" in rest], feeds, rest)
        for key, place in self._places.items():
            name = key.partition("@")[0]
            array = numbers_of(place, integers[place.name]).reshape(self._shapes[name])
            if not (key == f"{name}@end" and name in found and np.array_equal(array, found[name])):
                found[key] = array
        return found
