"""The solver: iterations of passes and updates, with logging, tests and snapshots between them, as in Caffe."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ristretto_cli.ops import Array, Shape
from ristretto_cli.scoring.evaluation import BatchSource
from ristretto_cli.scoring.scores import Scores, number
from ristretto_cli.train import log_lines
from ristretto_cli.train.lr_policies import rate, step_of
from ristretto_cli.train.optimizers import OPTIMIZERS, Optimizer
from ristretto_cli.train.signals import Request
from ristretto_cli.train.solver_settings import SolverSettings
from ristretto_cli.train.solver_state import SolverState
from ristretto_cli.train.test_nets import Tester
from ristretto_cli.train.trained_net import TrainNet, TrainPass

log = logging.getLogger("ristretto")

_MAX_PENDING = 64  # losses that are not read yet: reading one waits for the GPU


class SmoothedLoss:
    """The mean of the last losses, in Caffe's arithmetic: float32, updated incrementally."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._losses: list[np.float32] = []
        self._count = 0
        self.value = np.float32(0)

    @property
    def begun(self) -> bool:
        """Whether there is a loss yet."""
        return bool(self._losses)

    def add(self, loss: float) -> None:
        """Add the loss of the next iteration."""
        new, length = np.float32(loss), np.float32(self._length)
        with np.errstate(all="ignore"):
            if len(self._losses) < self._length:
                self._losses.append(new)
                size = np.float32(len(self._losses))
                self.value = (self.value * (size - 1) + new) / size
            else:
                place = self._count % self._length
                self.value += (new - self._losses[place]) / length
                self._losses[place] = new
        self._count += 1


class Solver:
    """A training.

    iteration: the number of updates so far. tested: the scores of the last test of each test net. snapshot: called to
    save the solver. request: called after each update and before each batch of a test; returns a pending request.
    on_iteration: called with the iterations done and those in total.
    """

    def __init__(
        self,
        settings: SolverSettings,
        net: TrainNet,
        batches: BatchSource,
        testers: Sequence[Tester] = (),
        *,
        snapshot: Callable[[Solver], object] = lambda solver: None,
        request: Callable[[], Request] = lambda: Request.NONE,
        on_iteration: Callable[[int, int], None] = lambda done, total: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.net = net
        self.iteration = 0
        self.current_step = 0
        self.tested: dict[int, Scores] = {}
        self._optimizer: Optimizer = OPTIMIZERS[settings.rule.type](settings.rule, net.learnables)
        self._batches = batches
        self._testers = testers
        self._snapshot = snapshot
        self._request = request
        self._on_iteration = on_iteration
        self._clock = clock
        self._stopping = False
        self._smoothed = SmoothedLoss(settings.average_loss)
        self._pending: list[tuple[int, Any]] = []
        self._warned = False
        self._shown_at = (0, 0.0)

    # saving and restoring

    @property
    def history(self) -> list[Array]:
        """The state of the solver type, in Caffe's order."""
        return [tensor.cpu().numpy() for tensor in self._optimizer.history]

    @property
    def history_layout(self) -> list[tuple[str, Shape]]:
        """For each array of the history, the Param.key of its parameter, and its shape."""
        each = [(param.key, tuple(int(n) for n in param.tensor.shape)) for param in self.net.learnables]
        return each * self._optimizer.blobs

    def weights(self) -> dict[str, Array]:
        """The parameters by Param.key, in full precision for quantized layers too."""
        return self.net.weights()

    def differences(self) -> dict[str, Array]:
        """The last update of each parameter, which Caffe saves as its gradient."""
        return {param.key: self._optimizer.difference(i).cpu().numpy() for i, param in enumerate(self.net.learnables)}

    def state(self, learned_net: str = "") -> SolverState:
        """The state that is needed to resume from here, in addition to the weights."""
        return SolverState(self.iteration, self.current_step, tuple(self.history), learned_net)

    def restore(self, state: SolverState, weights: Mapping[str, Array] | None = None) -> None:
        """Resume from a state, and its weights by Param.key. The data start over, as in Caffe."""
        if weights is not None:
            self.net.set_weights(weights)
        self.iteration = state.iteration
        self.current_step = state.current_step
        self._optimizer.restore(state.history)

    # training

    @property
    def loss(self) -> float | None:
        """The smoothed loss, as displayed; None before the first iteration."""
        self._read_losses()
        return float(self._smoothed.value) if self._smoothed.begun else None

    def run(self, until: int | None = None) -> bool:
        """Train up to max_iter, or another iteration; returns False if stopped before."""
        last = self.settings.max_iter if until is None else until
        snapshots = self.settings.snapshots
        log.info("%s", log_lines.solving(self.net.net.name))
        log.info("%s", log_lines.policy(self.settings.policy.name))
        self._stopping = False
        self._smoothed = SmoothedLoss(self.settings.average_loss)
        self._shown_at = (self.iteration, self._clock())
        self.net.round_weights()
        self._step(last)
        if snapshots.after_train and not (snapshots.interval and self.iteration % snapshots.interval == 0):
            self._snapshot(self)
        if self._stopping:
            log.info("%s", log_lines.STOPPED_EARLY)
            return False
        if self._is_due(self.settings.display):
            self._record_loss(self.net.forward(self._batches.next()).loss)
            self._read_losses()
            log.info("%s", log_lines.last_iteration(self.iteration, float(self._smoothed.value)))
        if self._is_due(self.settings.tests.interval):
            self._test()
        log.info("%s", log_lines.DONE)
        return True

    def _is_due(self, interval: int) -> bool:
        return interval != 0 and self.iteration % interval == 0

    def _step(self, last: int) -> None:
        settings = self.settings
        while self.iteration < last:
            self.net.clear_gradients()
            self._optimizer.forget()
            if self._is_due(settings.tests.interval) and (self.iteration > 0 or settings.tests.at_start):
                self._test()
                if self._stopping:
                    return
            display = self._is_due(settings.display)
            done = self._pass(debug=display and settings.debug_info)
            if display:
                self._show(done)
            self._apply(display)
            self._on_iteration(self.iteration, last)
            request = self._request()
            if self._is_due(settings.snapshots.interval) or request is Request.SNAPSHOT:
                self._snapshot(self)
            if request is Request.STOP:
                self._stopping = True
                return

    def _pass(self, *, debug: bool) -> TrainPass:
        """Compute the gradients of iter_size batches, and their mean loss."""
        size = self.settings.rule.iter_size
        done = self.net.forward_backward(self._batches.next(), debug=debug)
        loss = done.loss
        for _ in range(size - 1):
            done = self.net.forward_backward(self._batches.next(), debug=debug)
            loss = loss + done.loss
        self._record_loss(loss / size if size != 1 else loss)
        return done

    def _apply(self, display: bool) -> None:
        policy = self.settings.policy
        step = step_of(policy, self.iteration, self.current_step)
        if policy.name == "multistep" and step != self.current_step:
            log.info("%s", log_lines.stepped(self.iteration, step))
        self.current_step = step
        value = rate(policy, self.iteration, step)
        if display:
            log.info("%s", log_lines.rate(self.iteration, value))
        self._optimizer.apply(value, self.iteration)
        self.net.round_weights()
        self.iteration += 1

    def _record_loss(self, loss: Any) -> None:
        self._pending.append((self.iteration, loss))
        if loss.device.type == "cpu" or len(self._pending) >= _MAX_PENDING:
            self._read_losses()

    def _read_losses(self) -> None:
        for iteration, loss in self._pending:
            value = float(loss)
            self._smoothed.add(value)
            if not math.isfinite(value) and not self._warned:
                self._warned = True
                log.warning(
                    "The loss of iteration %d is %s: the training has diverged. Training continues, as in Caffe. "
                    "A lower base_lr or clip_gradients may help.",
                    iteration,
                    number(value),
                )
        self._pending.clear()

    def _show(self, done: TrainPass) -> None:
        self._read_losses()
        before, then = self._shown_at
        self._shown_at = self.iteration, self._clock()
        line = log_lines.iteration(
            self.iteration,
            float(self._smoothed.value),
            done=self.iteration - before,
            seconds=self._shown_at[1] - then,
            display=self.settings.display,
        )
        log.info("%s", line)
        _log(log_lines.train_outputs((output.blob, output.weight, output.numbers()) for output in done.outputs))

    def _test(self) -> None:
        for i, tester in enumerate(self._testers):
            log.info("%s", log_lines.testing(self.iteration, i))
            scores = tester.run(self.weights(), self._may_continue)
            if scores is None:
                log.info("%s", log_lines.TEST_INTERRUPTED)
                return
            self.tested[i] = scores
            if self.settings.tests.loss:
                log.info("%s", log_lines.test_loss(scores.loss))
            _log(log_lines.test_outputs((each.blob, each.weight, each.means.tolist()) for each in scores.outputs))

    def _may_continue(self) -> bool:
        """Handle requests during a test; returns whether to continue."""
        request = self._request()
        while request is not Request.NONE:
            if request is Request.SNAPSHOT:
                self._snapshot(self)
            else:
                self._stopping = True
            request = self._request()
        return not self._stopping


def _log(lines: Iterator[str]) -> None:
    for line in lines:
        log.info("%s", line)
