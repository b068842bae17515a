"""Integer programs as QONNX models: ONNX with Quant nodes of any bit width."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from ristretto_cli.exports.checks import NotChecked
from ristretto_cli.exports.exporter import exporter
from ristretto_cli.exports.onnx_program import ModelProto, ProgramPrinter, Unrepresentable, check_frac_bits
from ristretto_cli.exports.onnx_program_exporter import OnnxProgramExporter
from ristretto_cli.exports.program_exporter import ToPrint
from ristretto_cli.integers.program import InnerProduct, Place, Product, Program, Requantization, width_of
from ristretto_cli.integers.rounding import ShiftRounding
from ristretto_cli.ops import AnyArray, Shape

_DOMAIN = "qonnx.custom_op.general"
_MOST_BITS = 32


@exporter("qonnx")
class QonnxExporter(OnnxProgramExporter):
    """A QONNX model: ONNX in which Quant nodes round to fixed point, for the package qonnx, FINN and hls4ml.

    Scales are powers of two, zero points 0. Weights and biases are float32 constants, each with its Quant node. For one
    image, unless --batch says otherwise.
    """

    name = "qonnx"
    default_batch: ClassVar[int] = 1

    def printer(self, content: ToPrint, batch: int, fed: frozenset[str], file: str) -> ProgramPrinter:
        return _Printer(content.program, batch=batch, fed=fed, file=file)

    def run_model(self, model: ModelProto, feeds: Mapping[str, AnyArray], tensors: list[str]) -> Mapping[str, AnyArray]:
        try:
            wrapper = import_module("qonnx.core.modelwrapper").ModelWrapper(model)
            execute = import_module("qonnx.core.onnx_exec").execute_onnx
        except ImportError:
            raise NotChecked("qonnx is not installed; `pip install ristretto-cli[qonnx]` does that") from None
        found = execute(wrapper, dict(feeds), return_full_exec_context=True)
        return {name: found[name] for name in tensors}


class _Printer(ProgramPrinter):
    """Prints models whose types qonnx infers: it knows those after a MaxPool, but not those after a Relu."""

    # HALF_UP of QONNX rounds ties away from zero.
    roundings: ClassVar[Mapping[ShiftRounding, str]] = {
        ShiftRounding.HALF_EVEN: "ROUND",
        ShiftRounding.AWAY: "HALF_UP",
        ShiftRounding.FLOOR: "FLOOR",
    }

    def __init__(self, program: Program, *, batch: int, fed: Collection[str], file: str) -> None:
        super().__init__(program, batch=batch, fed=fed, file=file)
        self._formats: dict[str, tuple[int, int, int]] = {}  # of tensors: low, high, fraction bits

    def quantize(
        self, x: str, y: str, shape: Shape, to: Requantization, frac_bits: int, *, half_even: bool = False
    ) -> None:
        rounding = ShiftRounding.HALF_EVEN if half_even else self.program.rounding
        self._quant([x], y, shape, to.low, to.high, frac_bits, self.roundings[rounding])
        self._formats[y] = to.low, to.high, frac_bits

    def round_wide(self, x: str, y: str, place: Place) -> None:
        bits = place.bits + (not place.signed)
        self._quant([x], y, place.shape, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, place.frac_bits, "ROUND")

    def choose(
        self, op: str, inputs: Sequence[str], y: str, shape: Shape, *, node: str, again: bool = True, **attributes: Any
    ) -> None:
        known = self._formats.get(inputs[0])
        if known is not None:
            self._formats[y] = known
        again = again and known is not None and op in ("Relu", "Clip")
        result = self.graph.free(f"{y}/float") if again else y
        self.graph.add(op, inputs, result, shape, node=node, **attributes)
        if again and known is not None:
            self._quant([result], y, shape, *known, "ROUND")

    def weights(self, step: Product) -> str:
        return self._weights(step, step.weights)

    def takes_biases(self, step: Product) -> bool:
        return not isinstance(step, InnerProduct)  # FINN and hls4ml take MatMul and Add for Gemm

    def biases(self, step: Product, shape: Shape) -> str:
        if step.biases is None:
            raise ValueError("the step has no biases")
        # The format with as few bits as hold them.
        common = int(np.bitwise_or.reduce(step.biases)) or 1
        zeros = (common & -common).bit_length() - 1
        bits = max(2, width_of(min(-1, int(step.biases.min()) >> zeros), int(step.biases.max()) >> zeros))
        name, grid_bits = f"{step.layer}/biases", step.frac_bits - zeros
        return self._constant(step.biases.reshape(shape), name, step.frac_bits, bits, grid_bits)

    def inner_product(self, step: InnerProduct, x: str, y: str) -> None:
        weights = self._weights(step, step.weights.T)
        self.graph.add("MatMul", [x, weights], y, (len(step.weights),), node=step.layer)

    def _weights(self, step: Product, weights: AnyArray) -> str:
        name, bits = f"{step.layer}/weights", step.weights_bits
        return self._constant(weights, name, step.weights_frac_bits, bits, step.weights_frac_bits)

    def _constant(self, integers: AnyArray, name: str, frac_bits: int, bits: int, grid_bits: int) -> str:
        """integers * 2^-frac_bits, on a grid of 2^-grid_bits with a width in bits."""
        check_frac_bits(frac_bits)
        numbers = np.ldexp(integers.astype(np.float64), -frac_bits).astype(np.float32)
        constant = self.graph.constant(numbers, f"{name}/numbers")
        y, half = self.graph.free(name), 2 ** (bits - 1)
        self._quant([constant], y, integers.shape, -half, half - 1, grid_bits, "ROUND", per_image=False)
        return y

    def _quant(
        self,
        x: list[str],
        y: str,
        shape: Shape,
        low: int,
        high: int,
        frac_bits: int,
        mode: str,
        *,
        per_image: bool = True,
    ) -> None:
        bits = width_of(low, high)
        if bits == 1 and low < 0:
            raise Unrepresentable("one bit is -1 or 0 here, and -1 or 1 in QONNX", "Use at least 2 bits.")
        if bits > _MOST_BITS:
            raise Unrepresentable(f"{bits} bits are more than {_MOST_BITS}", f"Use at most {_MOST_BITS} bits.")
        check_frac_bits(frac_bits)
        self.opsets[_DOMAIN] = 1
        grid = [np.float32(np.ldexp(1.0, -frac_bits)), np.float32(0), np.float32(bits)]
        self.graph.add(
            "Quant",
            [*x, *(self.graph.number(each) for each in grid)],
            y,
            shape,
            node=f"{y}/Quant",
            per_image=per_image,
            domain=_DOMAIN,
            signed=int(low < 0),
            narrow=0,
            rounding_mode=mode,
        )
