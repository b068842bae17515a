"""Integer programs as ONNX graphs of float32 tensors, which hold the numbers of each place exactly.

Formats differ in the nodes that round to a grid, and in how they store weights and biases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial, singledispatchmethod
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ristretto_cli import __version__
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_graph import Graph, Node, conv_attributes, unused
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_pool import Windows
from ristretto_cli.errors import RistrettoError, raise_all
from ristretto_cli.integers import arithmetic
from ristretto_cli.integers.program import (
    Affine,
    Clamp,
    Concat,
    Convolution,
    Deconvolution,
    Function,
    InnerProduct,
    Maximum,
    MaxPool,
    Move,
    Multiply,
    Place,
    Product,
    Program,
    Requantization,
    Requantize,
    Reshape,
    Step,
    Sum,
    SumPool,
    Table,
    read_by,
)
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.ops import AnyArray, Shape

ModelProto: TypeAlias = Any  # onnx is not typed
P = TypeVar("P", bound=Product)

EXACT_BITS = 24  # float32 holds all integers up to 2^24
_MOST_FRAC_BITS = 100  # of a place: all numbers on the way are normal
_IR_VERSIONS = {13: 8, 21: 10}
_NARROWER = "Use narrower widths, such as 8 bits."


class GraphWriter:
    """The nodes and the constants of a model. batch: images at a time, 0 for any number."""

    def __init__(self, batch: int) -> None:
        self.batch: int | str = batch or "N"
        self.nodes: list[Any] = []
        self.producers: dict[str, Any] = {}  # the node that computes each tensor
        self.initializers: list[Any] = []
        self.types: dict[str, tuple[int, tuple[int | str, ...]]] = {}
        self._taken: set[str] = set()
        self._titles: set[str] = set()
        self._numbers: dict[tuple[str, Any], str] = {}

    def free(self, name: str) -> str:
        """The name for a tensor, or a similar one if it is taken; it is taken from now on."""
        return unused(name, self._taken)

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        output: str,
        shape: Shape,
        *,
        node: str,
        per_image: bool = True,
        element: int = TensorProto.FLOAT,
        **attributes: Any,
    ) -> str:
        """Add a node, and return the name of its output, which `free` gave.

        shape: of the output, for one image if it is per_image.
        """
        title = unused(node, self._titles)
        self.nodes.append(helper.make_node(op, inputs, [output], name=title, **attributes))
        self.producers[output] = self.nodes[-1]
        self.types[output] = (element, (self.batch, *shape) if per_image else shape)
        return output

    def constant(self, array: AnyArray, name: str) -> str:
        """A constant with this name, or a similar one."""
        return self.initializer(numpy_helper.from_array(np.asarray(array, order="C"), self.free(name)))

    def initializer(self, tensor: Any) -> str:
        """A constant whose name `free` gave."""
        self.initializers.append(tensor)
        return str(tensor.name)

    def number(self, value: Any) -> str:
        """A constant without axes, shared by all uses of a number; value: a numpy scalar."""
        key = (value.dtype.name, value.item())
        if key not in self._numbers:
            self._numbers[key] = self.constant(value, f"{value.dtype.name} {value.item():g}")
        return self._numbers[key]

    def ints(self, values: Sequence[int], name: str) -> str:
        """A constant list of integers."""
        return self.constant(np.asarray(values, np.int64), name)

    def model(self, name: str, inputs: Sequence[str], outputs: Sequence[str], opsets: dict[str, int]) -> ModelProto:
        """The model that computes these outputs."""
        infos = {
            name: helper.make_tensor_value_info(name, element, extents)
            for name, (element, extents) in self.types.items()
        }
        between = [info for name, info in infos.items() if name not in {*inputs, *outputs}]
        graph = helper.make_graph(
            self.nodes,
            name or "net",
            [infos[each] for each in inputs],
            [infos[each] for each in outputs],
            self.initializers,
            value_info=between,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            ir_version=_IR_VERSIONS[opsets[""]],
            producer_name="ristretto-cli",
            producer_version=__version__,
        )


class ProgramPrinter(ABC):
    """Prints a program; `model` gives the result. batch: images at a time, 0 for any number.

    fed: the blobs that only data layers write; file: the net's. tensors: the name of each place's tensor. rounded: the
    places whose numbers float32 rounds, since they come from a BatchNorm or the like that no layer quantized yet, and
    the layers that computed these. opsets: by domain.
    """

    roundings: ClassVar[Mapping[ShiftRounding, str]]  # those that the format has, and what it calls them
    fuses_means: ClassVar[bool] = False  # whether readers turn means of bytes into products with 1 / n

    def __init__(self, program: Program, *, batch: int, fed: Collection[str], file: str) -> None:
        self.program = program
        self.graph = GraphWriter(batch)
        self.opsets = {"": 13}
        self.inputs = self._input_names(fed)
        self.tensors = self._tensor_names()
        self.rounded: dict[str, tuple[str, ...]] = {}
        self._file = file
        self._errors: list[RistrettoError] = []

    @abstractmethod
    def quantize(
        self, x: str, y: str, shape: Shape, to: Requantization, frac_bits: int, *, half_even: bool = False
    ) -> None:
        """Nodes that round x to a format, and saturate it; y: the name of the result.

        half_even: whatever the program's rounding is. Unrepresentable if the format cannot be held.
        """

    @abstractmethod
    def round_wide(self, x: str, y: str, place: Place) -> None:
        """Nodes that round x, half to even, to the grid of a place of up to EXACT_BITS bits, which holds all of it."""

    @abstractmethod
    def choose(
        self, op: str, inputs: Sequence[str], y: str, shape: Shape, *, node: str, again: bool = True, **attributes: Any
    ) -> None:
        """A node whose results are on the grid of its first input, such as MaxPool; y: the name of the result.

        again: whether to quantize them again, which changes nothing, but tells readers their format.
        """

    @abstractmethod
    def weights(self, step: Product) -> str:
        """The tensor of a step's weights, in their shape. Unrepresentable if they cannot be held."""

    def takes_biases(self, step: Product) -> bool:
        """Whether the node of a product can add its biases; otherwise a node of its own does."""
        return True

    @abstractmethod
    def biases(self, step: Product, shape: Shape) -> str:
        """The tensor of a step's biases, in a shape. Unrepresentable if they cannot be held."""

    @abstractmethod
    def inner_product(self, step: InnerProduct, x: str, y: str) -> None:
        """The nodes of an inner product, with its biases if it takes them; x: of shape (N, K)."""

    def model(self) -> ModelProto:
        """The model. RistrettoError(s) for what the format cannot hold, one for each layer and reason."""
        if self.program.rounding not in self.roundings:
            what = f"--rounding {self.program.rounding.value}: the format cannot round like that"
            known = " or ".join(each.value for each in self.roundings)
            raise RistrettoError(what, where=self._file, hint=f"Use {known}, or another format.")
        for each in self.program.inputs:
            place, name = each.place, self.inputs[each.place.name]
            self.graph.types[name] = (TensorProto.FLOAT, (self.graph.batch, *place.shape))
            to = Requantization(0, place.low, place.high)
            quantize = partial(self.quantize, name, self.tensors[place.name], place.shape, to, place.frac_bits)
            self._try(place.name, partial(quantize, half_even=True))
        for step in self.program.steps:
            self._try(_layer_of(step), partial(self._add, step))
        raise_all({str(error): error for error in self._errors}.values())
        inputs = list(dict.fromkeys(self.inputs.values()))
        outputs = [self.tensors[place.name] for place in self.program.outputs.values()]
        return self.graph.model(self.program.name, inputs, outputs, self.opsets)

    def _try(self, layer: str, add: Callable[[], None]) -> None:
        try:
            add()
        except Unrepresentable as why:
            what = f'layer "{layer}": {why.reason}'
            self._errors.append(RistrettoError(what, where=self._file, hint=why.remedy))

    # names

    def _input_names(self, fed: Collection[str]) -> dict[str, str]:
        """For each input's place the name of the tensor: that of the blob, unless it had another value before."""
        blobs = [each.blob for each in self.program.inputs]
        names: dict[str, str] = {}
        shared: dict[str, str] = {}
        for each in self.program.inputs:
            if each.blob in shared and each.blob in fed:
                names[each.place.name] = shared[each.blob]
                continue
            unique = blobs.count(each.blob) == 1 or each.blob in fed
            names[each.place.name] = self.graph.free(each.blob if unique else f"{each.blob} of {each.place.name}")
            shared[each.blob] = names[each.place.name]
        return names

    def _tensor_names(self) -> dict[str, str]:
        """The tensors of all places: the names of outputs, then of blobs, then of the places themselves."""
        wanted = {place.name: name for name, place in self.program.outputs.items()}
        for key, place in self.program.blobs.items():
            wanted.setdefault(place.name, key)
        first = {place: self.graph.free(name) for place, name in wanted.items()}
        return {place.name: first.get(place.name) or self.graph.free(place.name) for place in self.program.places}

    def _of(self, place: Place) -> str:
        return self.tensors[place.name]

    # steps

    def _add(self, step: Step) -> None:
        inherited = dict.fromkeys(layer for x in read_by(step) for layer in self.rounded.get(x.name, ()))
        if inherited and not isinstance(step, (Requantize, Product)):
            self.rounded[step.y.name] = tuple(inherited)
        self._print(step)
        if step.y.name not in self.rounded:
            _check_exact(step.y)

    @singledispatchmethod
    def _print(self, step: Any) -> None:
        raise TypeError(f"unknown step {type(step).__name__}")

    @_print.register
    def _(self, step: Convolution) -> None:
        self._product(step, "Conv")

    @_print.register
    def _(self, step: Deconvolution) -> None:
        self._product(step, "ConvTranspose")

    def _product(self, step: Convolution | Deconvolution, op: str) -> None:
        step = _with_coarser_biases(step)
        _check_sums(step)
        inputs = [self._of(step.x), self.weights(step)]
        if step.biases is not None and self.takes_biases(step):
            inputs.append(self.biases(step, step.biases.shape))
        attributes = conv_attributes(step.weights.shape[2:], step.geometry)
        sums = self._sums(step)
        products = self._products(step, sums)
        self.graph.add(op, inputs, products, step.y.shape, node=step.layer, **attributes)
        self._add_biases(step, products, sums, (-1, *(1,) * (len(step.y.shape) - 1)), step.y.shape)
        self._finish(step, sums)

    @_print.register
    def _(self, step: InnerProduct) -> None:
        step = _with_coarser_biases(step)
        _check_sums(step)
        y, sums, shape = self._of(step.y), self._sums(step), (len(step.weights),)
        x = self._reshaped(self._of(step.x), step.x.shape, (step.weights.shape[1],), f"{y}/flat")
        rows = sums if step.y.shape == shape else self.graph.free(f"{y}/rows")
        products = self._products(step, rows)
        self.inner_product(step, x, products)
        self._add_biases(step, products, rows, shape, shape)
        if rows != sums:
            self._reshape(rows, sums, step.y.shape, node=f"{step.layer}/Reshape")
        self._finish(step, sums)

    def _products(self, step: Product, sums: str) -> str:
        """The name of the sums without biases: the same one, unless a node of its own adds these."""
        return sums if step.biases is None or self.takes_biases(step) else self.graph.free(f"{sums}/products")

    def _add_biases(self, step: Product, products: str, sums: str, broadcast: Shape, shape: Shape) -> None:
        if products != sums and step.biases is not None:
            biases = self.biases(step, step.biases.reshape(broadcast).shape)
            self.graph.add("Add", [products, biases], sums, shape, node=f"{step.layer}/Add")

    def _sums(self, step: Product) -> str:
        return self._of(step.y) if step.requantization is None else self.graph.free(f"{self._of(step.y)}/sums")

    def _finish(self, step: Product, sums: str) -> None:
        if step.requantization is not None:
            self.quantize(sums, self._of(step.y), step.y.shape, step.requantization, step.y.frac_bits)

    @_print.register
    def _(self, step: Requantize) -> None:
        to = step.requantization
        # A mean is rounded by float32 first: that must not move it to, or across, a tie.
        denominator = to.divisor << max(to.shift, 0)
        if to.divisor > 1 and 4 * denominator * (max(-to.low, to.high) + 1) > 2**EXACT_BITS:
            raise Unrepresentable(f"its mean over {to.divisor} numbers needs more than float32", _NARROWER)
        self.quantize(self._of(step.x), self._of(step.y), step.y.shape, to, step.y.frac_bits)

    @_print.register
    def _(self, step: Clamp) -> None:
        x, y, (low, high) = self._of(step.x), self._of(step.y), (step.y.low, step.y.high)
        readers = [each for each in self.program.steps if step.y in read_by(each)]
        again = step.y in self.program.outputs.values() or any(not isinstance(each, Requantize) for each in readers)
        if low == 0 and high == step.x.high:
            self.choose("Relu", [x], y, step.y.shape, node=y, again=again)
            return
        ends = [self.graph.number(np.float32(_number(step.y, end))) for end in (low, high)]
        self.choose("Clip", [x, *ends], y, step.y.shape, node=y, again=again)

    @_print.register
    def _(self, step: MaxPool) -> None:
        windows = Windows.of(step.x.shape[1:], step.geometry)
        pads = [*step.geometry.pad, *(axis.after for axis in windows)]
        settings: dict[str, Any] = {"kernel_shape": step.geometry.kernel, "strides": step.geometry.stride, "pads": pads}
        y = self._of(step.y)
        self.choose("MaxPool", [self._of(step.x)], y, step.y.shape, node=y, **settings)

    @_print.register
    def _(self, step: SumPool) -> None:
        if step.x.divisor != 1:
            raise Unrepresentable("it adds means that are not quantized", "Quantize them in between.")
        extent, geometry = step.x.shape[1:], step.geometry
        sizes = arithmetic.window_sizes(geometry, extent, padding=True)
        x, y = self._of(step.x), self._of(step.y)
        multiplied = self.fuses_means and any(size & (size - 1) for size in np.unique(sizes).tolist())
        # Caffe counts padding, but not what windows cover beyond it; AveragePool counts both or neither.
        if multiplied or any(geometry.pad):
            self._divided_sums(step, sizes)
        elif geometry.kernel == extent and step.y.shape[1:] == (1,) * len(extent):
            self.graph.add("GlobalAveragePool", [x], y, step.y.shape, node=y)
        else:
            pads = [0] * len(extent) + [max(0, n) for n in _after(step)]
            settings: dict[str, Any] = {"kernel_shape": geometry.kernel, "strides": geometry.stride, "pads": pads}
            self.graph.add("AveragePool", [x], y, step.y.shape, node=y, **settings)

    def _divided_sums(self, step: SumPool, sizes: AnyArray) -> None:
        """The means as sums, by a convolution with ones, and a division, which is rounded correctly."""
        y, channels, geometry = self._of(step.y), step.x.shape[0], step.geometry
        ones = self.graph.constant(np.ones((channels, 1, *geometry.kernel), np.float32), f"{y}/ones")
        settings: dict[str, Any] = {
            "kernel_shape": geometry.kernel,
            "strides": geometry.stride,
            "pads": [*geometry.pad, *(max(0, n) for n in _after(step))],
            "dilations": [1] * len(geometry.kernel),
            "group": channels,
        }
        sums = self.graph.free(f"{y}/sums")
        self.graph.add("Conv", [self._of(step.x), ones], sums, step.y.shape, node=f"{y}/Conv", **settings)
        if (sizes == sizes.flat[0]).all():
            counts = self.graph.number(np.float32(sizes.flat[0]))
        else:
            counts = self.graph.constant(sizes.astype(np.float32)[None, None], f"{y}/counts")
        self.graph.add("Div", [sums, counts], y, step.y.shape, node=y)

    @_print.register
    def _(self, step: Sum) -> None:
        if any(x.divisor != 1 for x in step.xs):
            raise Unrepresentable("it adds means that are not quantized", "Quantize them in between.")
        if step.y.name not in self.rounded:
            _check_magnitude(sum(abs(f) * max(-x.low, x.high) for x, f in zip(step.xs, step.factors, strict=True)))
        self._combined("Add", step.xs, step.factors, step.y)

    @_print.register
    def _(self, step: Maximum) -> None:
        self._combined("Max", step.xs, step.factors, step.y)

    @_print.register
    def _(self, step: Multiply) -> None:
        if any(x.divisor != 1 for x in step.xs):
            raise Unrepresentable("it multiplies means that are not quantized", "Quantize them in between.")
        y = self._of(step.y)
        self.graph.add("Mul", [self._of(x) for x in step.xs], y, step.y.shape, node=y)

    @_print.register
    def _(self, step: Concat) -> None:
        terms = [self._term(x, factor, step.y) for x, factor in zip(step.xs, step.factors, strict=True)]
        self.graph.add("Concat", terms, self._of(step.y), step.y.shape, node=self._of(step.y), axis=step.axis + 1)

    def _combined(self, op: str, xs: Sequence[Place], factors: Sequence[int], y: Place) -> None:
        terms = [self._term(x, factor, y) for x, factor in zip(xs, factors, strict=True)]
        total, name = terms[0], self._of(y)
        for i, term in enumerate(terms[1:], 2):
            result = name if i == len(terms) else self.graph.free(f"{name}/first_{i}")
            total = self.graph.add(op, [total, term], result, y.shape, node=name)
        if len(terms) == 1:
            self.graph.add("Identity", terms, name, y.shape, node=name)

    def _term(self, x: Place, factor: int, y: Place) -> str:
        """The tensor of a place times its factor, which in numbers is mostly 1."""
        scale = Fraction(factor) * Fraction(2) ** (x.frac_bits - y.frac_bits) * Fraction(x.divisor, y.divisor)
        if scale == 1:
            return self._of(x)
        scaled = self.graph.free(f"{self._of(y)}/scaled")
        number = self.graph.number(np.float32(float(scale)))
        return self.graph.add("Mul", [self._of(x), number], scaled, x.shape, node=f"{self._of(y)}/Mul")

    @_print.register
    def _(self, step: Table) -> None:
        y = self._of(step.y)
        if step.requantization is None and step.y.bits > EXACT_BITS:
            self._apply(step, step.function, y)
            self.rounded[step.y.name] = step.layers
            return
        exact = self.graph.free(f"{y}/float")
        self._apply(step, step.function, exact)
        if step.requantization is None:
            self.round_wide(exact, y, step.y)
        else:
            self.quantize(exact, y, step.y.shape, step.requantization, step.y.frac_bits)

    @_print.register
    def _(self, step: Affine) -> None:
        y, x = self._of(step.y), step.x
        largest = int((np.abs(step.multipliers) * max(-x.low, x.high) + np.abs(step.offsets)).max())
        if largest > 2**EXACT_BITS or x.divisor != 1 or x.name in self.rounded:
            self._apply(step, step.function, y)
            self.rounded[step.y.name] = step.layers
            return
        shape = (-1, *(1,) * (len(x.shape) - 1))
        bits = step.y.frac_bits
        scale, shift = (
            np.ldexp(each.astype(np.float64), -frac).astype(np.float32).reshape(shape)
            for each, frac in ((step.multipliers, bits - x.frac_bits), (step.offsets, bits))
        )
        product = self.graph.free(f"{y}/scaled")
        self.graph.add(
            "Mul", [self._of(x), self.graph.constant(scale, f"{y}/scale")], product, x.shape, node=f"{y}/Mul"
        )
        self.graph.add("Add", [product, self.graph.constant(shift, f"{y}/shift")], y, step.y.shape, node=y)

    def _apply(self, step: Table | Affine, function: Function | None, y: str) -> None:
        """The nodes of a float32 function, in the order of the net's layers."""
        if function is None:
            raise ValueError("the program was read from a file")
        graph = Graph()
        ops = OnnxOps(graph=graph)
        title = "/".join(step.layers)
        lowered = lower(graph, {"y": function(ops, ops.input("x", (1, *step.x.shape)))})
        result = lowered.outputs["y"]
        names = {"x": self._of(step.x), result.name: y}
        for node in graph.needed([result]):
            for tensor in filter(None, node.inputs):
                if tensor.name not in names:
                    names[tensor.name] = self.graph.constant(graph.initializers[tensor.name], f"{title}/constant")
            output = names.setdefault(node.output.name, "") or self.graph.free(f"{title}/{node.op}")
            names[node.output.name] = output
            self._copy(node, names, title)

    def _copy(self, node: Node, names: dict[str, str], title: str) -> None:
        """A node of a function, whose tensors have one image."""
        output, shape = names[node.output.name], node.output.shape[1:]
        if node.op == "Reshape":
            self._reshape(names[node.input(0).name], output, shape, node=f"{title}/Reshape")
            return
        inputs = ["" if tensor is None else names[tensor.name] for tensor in node.inputs]
        boolean = node.op in ("Less", "GreaterOrEqual", "Equal")
        element = TensorProto.BOOL if boolean else TensorProto.FLOAT
        self.graph.add(node.op, inputs, output, shape, node=f"{title}/{node.op}", element=element, **node.attributes)

    @_print.register
    def _(self, step: Move) -> None:
        y, size = self._of(step.y), int(np.prod(step.x.shape))
        flat = self._reshaped(self._of(step.x), step.x.shape, (size,), f"{y}/flat")
        indices = step.indices.astype(np.int64).ravel()
        if (indices < 0).any():
            fill = self.graph.number(np.float32(_number(step.x, step.fill)))
            pads = self.graph.ints([0, 0, 0, 1], f"{y}/pads")
            padded = self.graph.free(f"{y}/padded")
            flat = self.graph.add("Pad", [flat, pads, fill], padded, (size + 1,), node=f"{y}/Pad")
            indices = np.where(indices < 0, size, indices)
        places = self.graph.ints(indices.tolist(), f"{y}/indices")
        moved = y if step.y.shape == indices.shape else self.graph.free(f"{y}/moved")
        self.graph.add("Gather", [flat, places], moved, indices.shape, node=f"{y}/Gather", axis=1)
        if moved != y:
            self._reshape(moved, y, step.y.shape, node=y)

    @_print.register
    def _(self, step: Reshape) -> None:
        self._reshape(self._of(step.x), self._of(step.y), step.y.shape, node=self._of(step.y))

    def _reshaped(self, x: str, shape: Shape, to: Shape, name: str) -> str:
        """x with another shape; name: of the result, if it is not x."""
        if shape == to:
            return x
        y = self.graph.free(name)
        self._reshape(x, y, to, node=name)
        return y

    def _reshape(self, x: str, y: str, shape: Shape, *, node: str) -> None:
        if len(shape) == 1:
            self.graph.add("Flatten", [x], y, shape, node=node, axis=1)
        else:
            extents = self.graph.ints([0, *shape], f"{y}/shape")  # 0: as many images as there are
            self.choose("Reshape", [x, extents], y, shape, node=node)


class Unrepresentable(Exception):
    """What a format cannot hold: the reason, and a remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def check_frac_bits(frac_bits: int) -> None:
    """Unrepresentable if a step of 2^-frac_bits is out of the range in which float32 is exact."""
    if abs(frac_bits) > _MOST_FRAC_BITS:
        raise Unrepresentable(f"{frac_bits} fraction bits are too many for float32", "Quantize the net again.")


def _with_coarser_biases(step: P) -> P:
    """The step, or, if its sums are too large, one with the same results whose biases have one bit more than products.

    Sums are rounded at multiples of a unit of the products, so what a bias has below this unit tells only on which side
    of one a sum is: half a unit tells the same.
    """
    to, biases = step.requantization, step.biases
    too_large = max(-step.low, step.high) > 2**EXACT_BITS
    if not too_large or step.up < 2 or biases is None or to is None or to.shift <= step.up:
        return step
    rest = step.up - 1
    halves = 2 * (biases >> step.up) + (biases & ((1 << step.up) - 1) != 0)
    return replace(
        step,
        biases=halves,
        up=1,
        low=(step.low >> rest) - 1,
        high=(step.high >> rest) + 1,
        frac_bits=step.frac_bits - rest,
        requantization=replace(to, shift=to.shift - rest),
    )


def _check_sums(step: Product) -> None:
    finer = f"Give biases fewer fraction bits: they have {step.up} more than the products." if step.up else _NARROWER
    _check_magnitude(max(-step.low, step.high), hint=finer)
    check_frac_bits(step.frac_bits)


def _check_exact(place: Place) -> None:
    _check_magnitude(max(-place.low, place.high), "its values")
    check_frac_bits(place.frac_bits)


def _check_magnitude(largest: int, what: str = "its sums", hint: str = _NARROWER) -> None:
    if largest > 2**EXACT_BITS:
        bits = (largest - 1).bit_length()
        raise Unrepresentable(f"{what} reach 2^{bits}, and float32 holds integers up to 2^{EXACT_BITS}", hint)


def _number(place: Place, n: int) -> float:
    """The number that an integer of a place stands for."""
    return float(np.ldexp(float(n), -place.frac_bits)) / place.divisor


def _layer_of(step: Step) -> str:
    if isinstance(step, Product):
        return step.layer
    return ", ".join(step.layers) if isinstance(step, (Table, Affine)) else step.y.name


def _after(step: SumPool) -> list[int]:
    """The padding that the windows need after the image, on each axis; negative if they end before it does."""
    each = (step.y.shape[1:], step.geometry.stride, step.geometry.kernel, step.x.shape[1:], step.geometry.pad)
    return [(windows - 1) * stride + kernel - n - pad for windows, stride, kernel, n, pad in zip(*each, strict=True)]
