"""Random nodes: reproducible from a seed, and different from one another."""

from __future__ import annotations

import numpy as np

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.onnx_ops import OnnxOps
from ristretto_cli.ops import AnyArray


def drawn(seed: int, runs: int = 1) -> list[AnyArray]:
    """What two random nodes give in each run of a graph of its own."""
    ops = OnnxOps(np.random.default_rng(seed))
    session = lower(ops.graph, {"a": ops.uniform((50,)), "b": ops.uniform((50,))}).session()
    return [array for _ in range(runs) for array in session.run({}).values()]


def test_the_same_seed_gives_the_same_numbers_in_another_session() -> None:
    for first, second in zip(drawn(7, runs=2), drawn(7, runs=2), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_another_node_and_another_run_give_other_numbers() -> None:
    a, b, a_again, _ = drawn(7, runs=2)
    assert not any(np.array_equal(a, other) for other in (b, a_again, drawn(8)[0]))
