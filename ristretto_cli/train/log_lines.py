"""The lines of a training log, in Caffe's format, which tools/extra/parse_log.py and similar scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ristretto_cli.scoring.scores import number as number  # re-exported

STARTING = "Starting Optimization"
STOPPED_EARLY = "Optimization stopped early."
DONE = "Optimization Done."
TEST_INTERRUPTED = "Test interrupted."
CPU = "Use CPU."


def solving(name: str) -> str:
    """The first line, from which parse_log counts seconds."""
    return f"Solving {name}"


def policy(name: str) -> str:
    """The learning rate policy."""
    return f"Learning Rate Policy: {name}"


def gpus(numbers: Iterable[int]) -> str:
    """The GPUs that are used."""
    return f"Using GPUs {', '.join(map(str, numbers))}"


def finetuning(file: str) -> str:
    """Initial weights are read."""
    return f"Finetuning from {file}"


def resuming(file: str) -> str:
    """A state to resume from is read."""
    return f"Resuming from {file}"


def iteration(number_: int, loss: float, *, done: int, seconds: float, display: int) -> str:
    """A displayed iteration. loss: smoothed. done: the iterations in the `seconds` since the last one displayed."""
    per_second = done / (seconds if seconds > 0 else 1)
    speed = f"{number(per_second)} iter/s, {number(seconds)}s/{display} iters"
    return f"Iteration {number_} ({speed}), loss = {number(loss)}"


def last_iteration(number_: int, loss: float) -> str:
    """The loss after the last update."""
    return f"Iteration {number_}, loss = {number(loss)}"


def rate(number_: int, value: float) -> str:
    """The learning rate of a displayed iteration."""
    return f"Iteration {number_}, lr = {number(value)}"


def testing(number_: int, net: int) -> str:
    """The start of a test of test net number `net`."""
    return f"Iteration {number_}, Testing net (#{net})"


def train_outputs(outputs: Iterable[tuple[str, float, Iterable[float]]]) -> Iterator[str]:
    """A line for each value of each output blob, given as its name, its loss weight and its values."""
    return _outputs("Train", outputs)


def test_outputs(outputs: Iterable[tuple[str, float, Iterable[float]]]) -> Iterator[str]:
    """The same for a test net."""
    return _outputs("Test", outputs)


def test_loss(loss: float) -> str:
    """With test_compute_loss: the weighted sum of a test net's losses."""
    return f"Test loss: {number(loss)}"


def stepped(number_: int, step: int) -> str:
    """Policy multistep has reached its next step."""
    return f"MultiStep Status: Iteration {number_}, step = {step}"


def clipped(norm: float, limit: float, scale: float) -> str:
    """Gradients are scaled down by clip_gradients."""
    return (
        f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > {number(limit)}) "
        f"by scale factor {number(scale)}"
    )


def writing_model(file: str) -> str:
    """The weights are written."""
    return f"Snapshotting to {_kind(file)} file {file}"


def writing_state(file: str) -> str:
    """The solver's state is written."""
    return f"Snapshotting solver state to {_kind(file)} file {file}"


def _outputs(net: str, outputs: Iterable[tuple[str, float, Iterable[float]]]) -> Iterator[str]:
    index = 0
    for name, weight, values in outputs:
        for value in values:
            part = f" (* {number(weight)} = {number(weight * value)} loss)" if weight != 0 else ""
            yield f"    {net} net output #{index}: {name} = {number(value)}{part}"
            index += 1


def _kind(file: str) -> str:
    return "HDF5" if file.endswith(".h5") else "binary proto"
