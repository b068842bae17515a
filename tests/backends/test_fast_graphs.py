"""Random graphs: the fast ops compute what the plain ones compute, bit for bit except the sign of zero.

Numbers are small multiples of powers of two, so that few float32 sums are rounded. The examples are the same in every
run, unless RISTRETTO_EXAMPLES sets their number: then they are random, and `--hypothesis-seed N` repeats them.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ristretto_cli.backends.facts import Facts
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.errors import LayerError
from ristretto_cli.ops import ConvGeometry, Floats, Grid, PoolGeometry

SHAPES = [(2, 3, 5, 5), (1, 16, 4, 4), (2, 32, 3, 3), (1, 4, 6, 3), (2, 17, 2, 2), (2, 5, 7), (3, 20)]
SPECIAL = [math.nan, math.inf, -math.inf, 1e30, -1e38, 2.0**63, 2.0**64, 1e-40, -0.0]
STEPS = ["trim"] * 3 + ["floats"] * 2 + ["conv"] * 3 + ["relu"] * 2
STEPS += ["linear", "max_pool", "ave_pool", "concat", "slice", "reshape", "transpose"]
STEPS += ["add", "mul", "maximum", "clip", "lrn", "softmax", "pow", "div"]


def fixed(bits: int, frac_bits: int, *, signed: bool = True) -> Grid:
    if not signed:
        return Grid(frac_bits, 0, 2**bits - 1)
    return Grid(frac_bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def a_step(ops: Any, values: list[Any], kind: str, rng: Any) -> Any:
    """One primitive on one of the last values; None where it does not fit that."""
    x = values[max(0, len(values) - 1 - int(rng.integers(3)))]
    alike = [value for value in values if value.shape == x.shape]
    pick = lambda *choices: choices[int(rng.integers(len(choices)))]  # noqa: E731
    match kind:
        case "trim":
            bits, frac_bits = pick(1, 2, 4, 8, 8, 8, 12, 16, 16, 32), pick(*range(-3, 9), -100, 61)
            return ops.quantize_fixed(x, fixed(bits, frac_bits, signed=bool(pick(0, 1, 1))))
        case "floats":
            return ops.quantize_float(x, pick(Floats(3, 4), Floats(3, 4), Floats(5, 5), Floats(11, 4), Floats(0, 3)))
        case "conv" if len(x.shape) > 2:
            return a_convolution(ops, x, rng)
        case "linear":
            flat = ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
            return ops.linear(flat, *parameters(ops, (pick(1, 3, 16), flat.shape[1]), rng))
        case "relu":
            return ops.relu(x)
        case "max_pool" | "ave_pool" if len(x.shape) == 4:
            kernel = tuple(int(rng.integers(1, 1 + min(3, n))) for n in x.shape[2:])
            pad = tuple(int(rng.integers(0, k)) for k in kernel)
            stride = tuple(rng.integers(1, 4, 2).tolist())
            try:
                return getattr(ops, kind)(x, PoolGeometry(kernel, stride, pad, ceil=bool(pick(0, 1))))
            except LayerError:
                return None
        case "concat" if x.shape[1] <= 32:
            return ops.concat([pick(*alike), x], 1)
        case "slice" if x.shape[1] > 1:
            start = int(rng.integers(x.shape[1] - 1))
            return ops.slice(x, 1, start, int(rng.integers(start + 1, x.shape[1] + 1)))
        case "reshape":
            return ops.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])) if len(x.shape) == 4 else (*x.shape, 1))
        case "add" | "mul" | "maximum":
            return getattr(ops, kind)(x, pick(*alike, ops.constant(int(rng.integers(-8, 9)) / 4)))
        case "transpose":
            return ops.transpose(x, (0, 1, *range(len(x.shape) - 1, 1, -1)))
        case "clip":
            return ops.clip(x, -1.5, 2.0)
        case "lrn" if len(x.shape) == 4:
            return ops.lrn(x, size=3, alpha=0.5, beta=0.75, k=1.0)
        case "softmax":
            return ops.softmax(x, 1)
        case "pow":
            return ops.pow(ops.add(ops.abs(x), ops.constant(1.0)), ops.constant(pick(-0.75, 0.0, -1.0)))
        case "div":
            return ops.div(ops.abs(x), ops.constant(pick(0.5, 4.0)))
    return None


def a_convolution(ops: Any, x: Any, rng: Any) -> Any:
    axes, channels = len(x.shape) - 2, x.shape[1]
    group = int(rng.choice([1, 1] + [n for n in (2, 4, 16, channels) if channels % n == 0]))
    kernel = [int(min(k, n)) for k, n in zip(rng.integers(1, 4, axes), x.shape[2:], strict=True)]
    dilation = int(rng.choice([1, 1, 1, 2]))
    tops = group * int(rng.choice([1, 2, 3, 16 // min(16, group)]))
    weight, bias = parameters(ops, (tops, channels // group, *kernel), rng)
    stride = tuple(rng.integers(1, 3, axes).tolist())
    pad = tuple(dilation * (k - 1) if dilation > 1 else int(rng.integers(0, k)) for k in kernel)
    return ops.conv(x, weight, bias, ConvGeometry(stride, pad, (dilation,) * axes, group))


def parameters(ops: Any, shape: tuple[int, ...], rng: Any) -> tuple[Any, Any]:
    """A weight, most often on a grid that is known, and a bias, sometimes far finer than that."""
    frac_bits = int(rng.integers(-2, 8))
    bits, known = [(8, True), (8, True), (4, True), (10, True), (8, False)][int(rng.integers(5))]
    steps = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape) * int(rng.integers(8) > 0)
    grid = fixed(max(bits, 8), frac_bits) if known else None
    weight = ops.constant((steps * 2.0**-frac_bits).astype(np.float32), grid=grid)
    if rng.integers(3) == 0:
        return weight, None
    bias = rng.integers(-2000, 2000, shape[0]) * 2.0 ** -(frac_bits + int(rng.integers(-20, 12)))
    return weight, ops.constant(bias.astype(np.float32))


def a_graph(steps: list[tuple[str, int]], keep: int) -> Any:
    """What builds it on any ops from two values of one shape; its last values are the result."""

    def build(ops: Any, *inputs: Any) -> tuple[Any, ...]:
        values = list(inputs)
        for kind, seed in steps:
            value = a_step(ops, values, kind, np.random.default_rng(seed))
            if value is not None:
                values.append(value)
        return tuple(values[max(2, len(values) - keep) :]) or (ops.relu(inputs[0]),)

    return build


def numbers(shape: tuple[int, ...], rng: Any, special: bool) -> Any:
    found = rng.integers(-512, 512, shape) * 2.0 ** -rng.integers(0, 9)
    if special:
        found.reshape(-1)[rng.integers(found.size)] = rng.choice(SPECIAL)
    return found.astype(np.float32)


def examples(number: int) -> settings:
    """So many examples, unless RISTRETTO_EXAMPLES sets another number."""
    asked = os.environ.get("RISTRETTO_EXAMPLES")
    return settings(max_examples=int(asked or number), deadline=None, derandomize=not asked)


a_seed = st.integers(0, 2**32 - 1)
graphs = st.builds(
    a_graph, st.lists(st.tuples(st.sampled_from(STEPS), a_seed), min_size=2, max_size=12), st.integers(1, 4)
)


@examples(300)
@given(build=graphs, shape=st.sampled_from(SHAPES), seed=a_seed, special=st.booleans())
def test_random_graphs_agree(agree: Any, build: Any, shape: tuple[int, ...], seed: int, special: bool) -> None:
    rng = np.random.default_rng(seed)
    agree(build, numbers(shape, rng, special), numbers(shape, rng, special))


@examples(100)
@given(build=graphs, shape=st.sampled_from(SHAPES), seed=a_seed)
def test_no_value_leaves_its_bounds(build: Any, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    feeds = {name: numbers(shape, rng, False) for name in ("x", "y")}
    ops = OnnxOps()
    values = {str(i): v for i, v in enumerate(build(ops, *[ops.input(name, shape) for name in feeds]))}
    facts = Facts(ops.graph, max(float(np.abs(array).max()) for array in feeds.values()))
    known = {name: facts[value] for name, value in values.items()}
    for name, top in lower(ops.graph, values).session(threads=1).run(feeds).items():
        bound, grid = known[name].bound, known[name].grid
        assert bound is None or np.abs(top).max() <= bound * (1 + 1e-5)
        assert not (top < known[name].low).any()
        if grid is not None and abs(grid.frac_bits) < 100 and max(-grid.low, grid.high) <= 2**24:  # float32 has them
            steps = np.ldexp(top.astype(np.float64), grid.frac_bits)
            assert (steps == np.rint(steps)).all()
            assert grid.low <= steps.min() <= steps.max() <= grid.high
