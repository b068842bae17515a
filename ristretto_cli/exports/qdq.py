"""Integer programs as ONNX models with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from onnx import TensorProto, helper

from ristretto_cli.exports.exporter import exporter
from ristretto_cli.exports.onnx_program import ModelProto, ProgramPrinter, Unrepresentable, check_frac_bits
from ristretto_cli.exports.onnx_program_exporter import OnnxProgramExporter
from ristretto_cli.exports.program_exporter import ToPrint
from ristretto_cli.integers.program import InnerProduct, Place, Product, Program, Requantization, width_of
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.ops import AnyArray, Shape

_MOST_BITS = 16  # of QuantizeLinear
_LOWEST = np.finfo(np.float32).min
_WIDER_TYPES = 21  # the opset with types of 4 and of 16 bits


@exporter("qdq")
class QdqExporter(OnnxProgramExporter):
    """An ONNX model in which QuantizeLinear and DequantizeLinear round to fixed point: scales are powers of two.

    Weights are int4, int8 or int16, biases int32. Outputs are the program's, as numbers. Set onnxruntime's session
    option session.x64quantprecision to 1: else it saturates sums on processors without VNNI.
    """

    name = "qdq"

    def printer(self, content: ToPrint, batch: int, fed: frozenset[str], file: str) -> ProgramPrinter:
        return _Printer(content.program, batch=batch, fed=fed, file=file)

    def run_model(self, model: ModelProto, feeds: Mapping[str, AnyArray], tensors: list[str]) -> Mapping[str, AnyArray]:
        outputs = [value.name for value in model.graph.output]
        # As it is used, with kernels for integers, which exist only between quantized tensors.
        used = dict(zip(outputs, _session(model, optimize=True).run(outputs, dict(feeds)), strict=True))
        infos = {value.name: value for value in model.graph.value_info}
        model.graph.output.extend(infos[name] for name in tensors if name in infos)
        found = dict(zip(tensors, _session(model, optimize=False).run(tensors, dict(feeds)), strict=True))
        for name in outputs:
            if name in found:
                found[name] = np.where(found[name] == used[name], found[name], np.nan)
        return found


def _session(model: ModelProto, *, optimize: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Printer(ProgramPrinter):
    """Prints models that onnxruntime does not change the results of when it optimizes them."""

    roundings: ClassVar[Mapping[ShiftRounding, str]] = {ShiftRounding.HALF_EVEN: "QuantizeLinear"}
    fuses_means = True

    def __init__(self, program: Program, *, batch: int, fed: Collection[str], file: str) -> None:
        super().__init__(program, batch=batch, fed=fed, file=file)
        self._grids: dict[str, tuple[np.dtype[Any], int]] = {}  # for tensors that were dequantized: type, fraction bits

    def quantize(
        self, x: str, y: str, shape: Shape, to: Requantization, frac_bits: int, *, half_even: bool = False
    ) -> None:
        bits = width_of(to.low, to.high)
        if bits > _MOST_BITS:
            what = f"{bits} bits are more than the {_MOST_BITS} of QuantizeLinear"
            raise Unrepresentable(what, f"Use at most {_MOST_BITS} bits.")
        check_frac_bits(frac_bits)
        signed, wide = to.low < 0, bits > 8
        kinds = {(True, False): np.int8, (False, False): np.uint8, (True, True): np.int16, (False, True): np.uint16}
        kind = np.dtype(kinds[signed, wide])
        if self._is_beside_another(x, signed=signed):
            lowest = self.graph.number(np.float32(_LOWEST))
            x = self.graph.add("Max", [x, lowest], self.graph.free(f"{y}/same"), shape, node=f"{y}/Max")
        if bits not in (8, 16):
            ends = [self.graph.number(np.float32(np.ldexp(float(end), -frac_bits))) for end in (to.low, to.high)]
            x = self.graph.add("Clip", [x, *ends], self.graph.free(f"{y}/clipped"), shape, node=f"{y}/Clip")
        if wide:
            self.opsets[""] = _WIDER_TYPES
        self._round(x, y, shape, kind, frac_bits)

    def round_wide(self, x: str, y: str, place: Place) -> None:
        # QuantizeLinear has no type for it.
        up, down = (self.graph.number(np.float32(np.ldexp(1.0, n))) for n in (place.frac_bits, -place.frac_bits))
        scaled, rounded = (self.graph.free(f"{y}/{name}") for name in ("scaled", "rounded"))
        self.graph.add("Mul", [x, up], scaled, place.shape, node=f"{y}/Mul")
        self.graph.add("Round", [scaled], rounded, place.shape, node=f"{y}/Round")
        self.graph.add("Mul", [rounded, down], y, place.shape, node=f"{y}/Mul")

    def choose(
        self, op: str, inputs: Sequence[str], y: str, shape: Shape, *, node: str, again: bool = True, **attributes: Any
    ) -> None:
        # Between quantized tensors onnxruntime has kernels for integers. After MaxPool and Reshape it would quantize by
        # itself, but from opset 21 on it fails then.
        grid = self._grids.get(inputs[0]) if again else None
        result = y if grid is None else self.graph.free(f"{y}/float")
        self.graph.add(op, inputs, result, shape, node=node, **attributes)
        if grid is not None:
            self._round(result, y, shape, *grid)

    def _is_beside_another(self, x: str, *, signed: bool) -> bool:
        """Whether onnxruntime may take a DequantizeLinear and the QuantizeLinear of x for neighbours.

        If they are, it merges them with those around them, which rounds once instead of twice. It omits a Clip, and a
        Relu before an unsigned type.
        """
        producer = self.graph.producers.get(x)
        while producer is not None and producer.op_type in ("Clip", *(() if signed else ("Relu",))):
            producer = self.graph.producers.get(producer.input[0])
        return producer is not None and producer.op_type == "DequantizeLinear"

    def _round(self, x: str, y: str, shape: Shape, kind: np.dtype[Any], frac_bits: int) -> None:
        """x on a grid: as integers, and as numbers again."""
        grid = self._constants(y, frac_bits, kind.type(0))
        element = helper.np_dtype_to_tensor_dtype(kind)
        integers = self.graph.free(f"{y}/integers")
        self.graph.add("QuantizeLinear", [x, *grid], integers, shape, node=f"{y}/QuantizeLinear", element=element)
        self.graph.add("DequantizeLinear", [integers, *grid], y, shape, node=f"{y}/DequantizeLinear")
        self._grids[y] = kind, frac_bits

    def weights(self, step: Product) -> str:
        bits, name = step.weights_bits, self.graph.free(f"{step.layer}/weights/integers")
        if bits > _MOST_BITS:
            what = f"weights of {bits} bits are more than the {_MOST_BITS} of DequantizeLinear"
            raise Unrepresentable(what, f"Use at most {_MOST_BITS} bits.")
        check_frac_bits(step.weights_frac_bits)
        if bits <= 4:
            element, array, zero = TensorProto.INT4, _pairs(step.weights), None
        else:
            kind: Any = np.int8 if bits <= 8 else np.int16
            element, zero = helper.np_dtype_to_tensor_dtype(np.dtype(kind)), kind(0)
            array = step.weights.astype(np.dtype(kind).newbyteorder("<"))
        if bits <= 4 or bits > 8:
            self.opsets[""] = _WIDER_TYPES
        shape = step.weights.shape
        self.graph.initializer(helper.make_tensor(name, element, shape, array.tobytes(), raw=True))
        return self._dequantized(name, f"{step.layer}/weights", shape, step.weights_frac_bits, zero)

    def takes_biases(self, step: Product) -> bool:
        return step.up == 0  # int32 biases are taken to have as many fraction bits as the sums

    def biases(self, step: Product, shape: Shape) -> str:
        if step.biases is None:
            raise ValueError("the step has no biases")
        name = f"{step.layer}/biases"
        integers = self.graph.constant(step.biases.astype(np.int32).reshape(shape), f"{name}/integers")
        return self._dequantized(integers, name, shape, step.frac_bits, np.int32(0))

    def inner_product(self, step: InnerProduct, x: str, y: str) -> None:
        inputs = [x, self.weights(step)]
        if step.biases is not None and self.takes_biases(step):
            inputs.append(self.biases(step, step.biases.shape))
        self.graph.add("Gemm", inputs, y, (len(step.weights),), node=step.layer, transB=1)

    def _constants(self, name: str, frac_bits: int, zero: Any) -> list[str]:
        """The scale and the zero point of a tensor; None for the zero of int4, which is the default.

        Of its own, since onnxruntime cannot optimize models in which tensors share zero points.
        """
        scale = self.graph.constant(np.float32(np.ldexp(1.0, -frac_bits)), f"{name}/scale")
        return [scale] if zero is None else [scale, self.graph.constant(zero, f"{name}/zero_point")]

    def _dequantized(self, integers: str, name: str, shape: Shape, frac_bits: int, zero: Any) -> str:
        y = self.graph.free(name)
        inputs = [integers, *self._constants(y, frac_bits, zero)]
        node = f"{name}/DequantizeLinear"
        return self.graph.add("DequantizeLinear", inputs, y, shape, node=node, per_image=False)


def _pairs(integers: AnyArray) -> AnyArray:
    """Integers of 4 bits as bytes, the first of two in the lower half."""
    nibbles = integers.astype(np.int8).ravel().view(np.uint8) & 15
    even = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    return np.asarray(even[0::2] | (even[1::2] << 4), np.uint8)
