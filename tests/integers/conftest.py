"""What the tests of integer programs share: a net, and its program's values beside those of the float pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ristretto_cli.integers.compiler import Compiled, compile_program
from ristretto_cli.integers.interpreter import Interpreter, numbers_of
from ristretto_cli.integers.program import approximate
from ristretto_cli.integers.runner import InputNumbers
from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.all_blobs import OnePass

DATA = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 7 dim: 6 } } }\n'


FORMATS = {"bw_layer_in": 8, "fl_layer_in": 5, "bw_layer_out": 8, "fl_layer_out": 3, "bw_params": 6, "fl_params": 5}


def conv(name: str, bottom: str, settings: str = "num_output: 4 kernel_size: 3 pad: 1", **formats: Any) -> str:
    """A trimmed convolution, whose fillers give weights over the whole range of its format."""
    quantization = " ".join(f"{key}: {value}" for key, value in {**FORMATS, **formats}.items())
    return f"""
        layer {{ name: "{name}" type: "ConvolutionRistretto" bottom: "{bottom}" top: "{name}"
            convolution_param {{ {settings} weight_filler {{ type: "uniform" min: -0.9 max: 0.9 }}
                bias_filler {{ type: "uniform" min: -2 max: 2 }} }}
            quantization_param {{ {quantization} }} }}
    """


@dataclass(frozen=True)
class Beside:
    """The values of the program and of the float pass, as numbers, by key. exact: the keys that must be equal."""

    compiled: Compiled
    integers: dict[str, Any]
    program: dict[str, Any]
    floats: dict[str, Any]
    exact: set[str]

    def differing(self) -> dict[str, int]:
        """The number of values that differ in blobs that must be equal."""
        counts = {key: int((self.program[key].ravel() != self.floats[key].ravel()).sum()) for key in self.exact}
        return {key: count for key, count in counts.items() if count}


def run_beside(net: Net, feeds: dict[str, Any] | None = None, **settings: Any) -> Beside:
    """Both passes of a net on random numbers."""
    compiled = compile_program(net, **settings)
    rng = np.random.default_rng(1)
    if feeds is None:
        feeds = {blob.name: rng.uniform(-4, 4, blob.shape).astype(np.float32) for blob in net.inputs}
    floats = OnePass(net, rng=rng).run(feeds)
    program = compiled.program
    integers = Interpreter(program, keep=lambda place: True).run(InputNumbers(compiled).run(feeds))
    for place in program.places:
        assert place.low <= integers[place.name].min(), place
        assert integers[place.name].max() <= place.high, place
    keys = [key for key in program.blobs if key in floats]
    numbers = {key: numbers_of(program.blobs[key], integers[program.blobs[key].name]) for key in keys}
    inexact = approximate(program)
    exact = {key for key in keys if program.blobs[key].name not in inexact}
    return Beside(compiled, integers, numbers, {key: floats[key] for key in keys}, exact)


@pytest.fixture
def beside() -> Any:
    return run_beside
