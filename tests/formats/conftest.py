"""A bench for number formats: arrays trimmed by numpy and by onnxruntime."""

from functools import cache

import numpy as np
import pytest

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.formats.number_format import Rounding


class Bench:
    """The operations of a NumberFormat."""

    def quantize(self, number_format, values):
        """The values, trimmed to nearest by numpy."""
        x = np.asarray(values, np.float32)
        found = number_format.quantize(numpy_ops(np.random.default_rng(0)), x, Rounding.NEAREST)
        assert (found.dtype, found.shape) == (np.float32, x.shape)
        return found

    def trim_at_random(self, number_format, values, seed=0):
        """The values, trimmed stochastically by numpy."""
        x = np.asarray(values, np.float32)
        return number_format.quantize(numpy_ops(np.random.default_rng(seed)), x, Rounding.STOCHASTIC)

    def quantize_in_onnx(self, number_format, values, rounding=Rounding.NEAREST):
        """The values, trimmed by onnxruntime."""
        x = np.asarray(values, np.float32)
        return _session(number_format, x.shape, rounding).run({"x": x})["y"]


@cache
def _session(number_format, shape, rounding):
    ops = OnnxOps()
    trimmed = number_format.quantize(ops, ops.input("x", shape), rounding)
    return lower(ops.graph, {"y": trimmed}).session(threads=1)


@pytest.fixture(scope="session")
def bench():
    return Bench()


@pytest.fixture(scope="session")
def many_floats():
    """Bit patterns of all kinds: 20,000 random ones, as many around 1, and all edges of float32."""
    rng = np.random.default_rng(7)
    anywhere = rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near_one = (rng.standard_normal(20_000) * 2.0 ** rng.integers(-12, 12, 20_000)).astype(np.float32)
    edges = [0, 1, 0x7FFFFF, 0x800000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
    edges = np.array(edges, np.uint32)
    return np.concatenate([anywhere, near_one, edges.view(np.float32), (edges | 0x80000000).view(np.float32)])
