"""The scores of a net: the mean of each output over some batches, as values, text and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ristretto_cli.ops import AnyArray


@dataclass(frozen=True)
class Output:
    """The mean of an output blob over all batches, flat. weight: its loss weight, 0 if it is not a loss.

    For a metric over all batches, means has its one value, and parts its components by name. may_be_infinite: an
    infinite value is no sign of a fault.
    """

    blob: str
    weight: float
    means: AnyArray
    parts: Mapping[str, float] = field(default_factory=dict)
    may_be_infinite: bool = False

    @property
    def score(self) -> float:
        """The blob as one number: the mean of its elements."""
        return float(self.means.mean())


@dataclass(frozen=True)
class Scores:
    """The result of scoring a net. loss: the mean weighted sum of its losses. iterations: the number of batches."""

    outputs: tuple[Output, ...]
    loss: float
    iterations: int

    def of(self, blob: str) -> float:
        """The score of one output."""
        return next(output.score for output in self.outputs if output.blob == blob)


def score_lines(scores: Scores) -> list[str]:
    """The means as Caffe's test prints them, one per line, each after its parts, as in SSD."""
    lines = [f"Loss: {number(scores.loss)}"]
    for output in scores.outputs:
        lines += [f"{name}: {number(part)}" for name, part in output.parts.items()]
        for mean in output.means:
            line = f"{output.blob} = {number(mean)}"
            if output.weight:
                line += f" (* {number(output.weight)} = {number(output.weight * mean)} loss)"
            lines.append(line)
    return lines


def scores_as_json(scores: Scores) -> dict[str, Any]:
    """The loss, the means of each output and, where there are any, their parts, for JSON."""
    parts = {output.blob: dict(output.parts) for output in scores.outputs if output.parts}
    return {
        "loss": scores.loss,
        "outputs": {output.blob: [float(mean) for mean in output.means] for output in scores.outputs},
        **({"parts": parts} if parts else {}),
    }


def number(value: float) -> str:
    """A number with six significant digits, as C++ streams print it."""
    return format(float(value), "g")
