"""Caffe's six solver types, which update torch tensors in place.

Each updates all parameters at once, by torch's `_foreach_` functions on lists of tensors.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ristretto_cli.ops import Array
from ristretto_cli.train import log_lines
from ristretto_cli.train.solver_settings import UpdateRule
from ristretto_cli.train.torch_import import import_torch

Tensor: TypeAlias = Any  # torch may be missing where types are checked

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class Learnable:
    """A parameter of the solver: its key, its values, and the multipliers of its learning rate and weight decay.

    Parameters with lr_mult 0 are included, since they have a history in Caffe's files.
    """

    key: str
    tensor: Tensor
    lr_mult: float = 1.0
    decay_mult: float = 1.0


class Optimizer(ABC):
    """A solver type. history: its state in Caffe's order, `blobs` times a tensor for each parameter."""

    blobs: ClassVar[int] = 1

    def __init__(self, rule: UpdateRule, params: Sequence[Learnable]) -> None:
        self._torch = import_torch()
        self._rule = rule
        self._params = params
        tensors = [param.tensor for param in params]
        self.history: list[Tensor] = [self._torch.zeros_like(t) for _ in range(self.blobs) for t in tensors]
        self.differences: list[Tensor] = []  # this iteration's update of each active parameter
        self._find_active()

    def restore(self, history: Sequence[Array]) -> None:
        """Resume from a history, which must have the right count and shapes."""
        for tensor, array in zip(self.history, history, strict=True):
            tensor.copy_(self._torch.from_numpy(np.array(array, np.float32)))
        self._find_active()

    def apply(self, rate: float, iteration: int) -> None:
        """Update the parameters by their `grad`, summed over iter_size batches; the gradients are overwritten."""
        with self._torch.no_grad():
            gradients = [self._gradient(param) for param in self._active]
            self._clip([param.tensor.grad for param in self._params if param.tensor.grad is not None])
            if self._rule.iter_size != 1:
                self._torch._foreach_mul_(gradients, 1 / self._rule.iter_size)
            self._regularize(gradients)
            if gradients:
                rates = [rate * param.lr_mult for param in self._active]
                gradients = self._updates(gradients, rates, iteration)
                self._torch._foreach_sub_(self._tensors, gradients)
            self.differences = gradients

    def forget(self) -> None:
        """Begin an iteration: discard the last update."""
        self.differences = []

    def difference(self, index: int) -> Tensor:
        """This iteration's update of a parameter, which Caffe writes as its gradient; zeros before the update."""
        for param, tensor in zip(self._active, self.differences, strict=False):
            if param is self._params[index]:
                return tensor
        return self._torch.zeros_like(self._params[index].tensor)

    @abstractmethod
    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        """The values to subtract from each parameter. gradients may be overwritten; rates: one per parameter."""

    def _updates_without_gradient(self, param: Learnable) -> bool:
        """Whether a parameter without a gradient or a history is updated."""
        return self._decay(param) != 0

    def _find_active(self) -> None:
        """Find the parameters that are updated; the others have no gradient and never change."""
        count = len(self._params)
        self._active: list[Learnable] = []
        positions: list[int] = []
        for i, param in enumerate(self._params):
            has_history = any(bool(self.history[i + k * count].any()) for k in range(self.blobs))
            if param.tensor.requires_grad or has_history or self._updates_without_gradient(param):
                self._active.append(param)
                positions.append(i)
        self._tensors = [param.tensor for param in self._active]
        self._lists = [[self.history[i + k * count] for i in positions] for k in range(self.blobs)]
        self.differences = []
        self._decays: dict[float, list[int]] = {}
        for i, param in enumerate(self._active):
            if self._decay(param) != 0:
                self._decays.setdefault(self._decay(param), []).append(i)

    def _decay(self, param: Learnable) -> float:
        return float(np.float32(self._rule.weight_decay) * np.float32(param.decay_mult))

    def _gradient(self, param: Learnable) -> Tensor:
        found = param.tensor.grad
        return self._torch.zeros_like(param.tensor) if found is None else found

    def _clip(self, gradients: list[Tensor]) -> None:
        limit = self._rule.clip_gradients
        if limit is None or not gradients:
            return
        norm = float(self._torch.stack(self._torch._foreach_norm(gradients)).norm())
        if norm > limit:
            scale = limit / norm
            log.info("%s", log_lines.clipped(norm, limit, scale))
            self._torch._foreach_mul_(gradients, scale)

    def _regularize(self, gradients: list[Tensor]) -> None:
        for decay, places in self._decays.items():
            values = [self._tensors[i] for i in places]
            if self._rule.regularization == "L1":
                values = self._torch._foreach_sign(values)
            self._torch._foreach_add_([gradients[i] for i in places], values, alpha=decay)

    def _accumulate(self, history: list[Tensor], new: list[Tensor], decay: float, weight: float) -> None:
        """history = decay * history + weight * new."""
        self._torch._foreach_mul_(history, decay)
        self._torch._foreach_add_(history, new, alpha=weight)

    def _accumulate_squares(self, history: list[Tensor], new: list[Tensor], decay: float, weight: float) -> None:
        """history = decay * history + weight * new^2."""
        if decay != 1:
            self._torch._foreach_mul_(history, decay)
        self._torch._foreach_addcmul_(history, new, new, value=weight)

    def _by_roots(self, values: list[Tensor], squares: list[Tensor], rates: list[float]) -> list[Tensor]:
        """rates * values / (sqrt(squares) + delta)."""
        roots = list(self._torch._foreach_sqrt(squares))
        self._torch._foreach_add_(roots, self._rule.delta)
        updates = list(self._torch._foreach_div(values, roots))
        self._torch._foreach_mul_(updates, rates)
        return updates


class Sgd(Optimizer):
    """Stochastic gradient descent; the history is the last update."""

    def _updates_without_gradient(self, param: Learnable) -> bool:
        return param.lr_mult != 0 and super()._updates_without_gradient(param)

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (history,) = self._lists
        self._torch._foreach_mul_(gradients, rates)
        self._accumulate(history, gradients, self._rule.momentum, 1)
        return history


class Nesterov(Sgd):
    """Nesterov's accelerated gradient: SGD with a further step along its history."""

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (history,) = self._lists
        momentum = self._rule.momentum
        self._torch._foreach_mul_(gradients, rates)
        self._accumulate(history, gradients, momentum, 1)
        # (1 + momentum) * new - momentum * old is momentum * new + gradient.
        self._torch._foreach_add_(gradients, history, alpha=momentum)
        return gradients


class AdaGrad(Optimizer):
    """Each value's rate falls with the sum of its squared gradients."""

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (squares,) = self._lists
        self._accumulate_squares(squares, gradients, 1, 1)
        return self._by_roots(gradients, squares, rates)


class RmsProp(Optimizer):
    """AdaGrad with a running mean instead of the sum."""

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (squares,) = self._lists
        self._accumulate_squares(squares, gradients, self._rule.rms_decay, 1 - self._rule.rms_decay)
        return self._by_roots(gradients, squares, rates)


class AdaDelta(Optimizer):
    """Steps scaled to the previous ones; the history is running means of squared gradients, then of squared updates."""

    blobs = 2

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        squares, steps = self._lists
        keep, delta = self._rule.momentum, self._rule.delta
        self._accumulate_squares(squares, gradients, keep, 1 - keep)
        ratios = list(self._torch._foreach_add(steps, delta))
        self._torch._foreach_div_(ratios, self._torch._foreach_add(squares, delta))
        self._torch._foreach_sqrt_(ratios)
        self._torch._foreach_mul_(gradients, ratios)
        self._accumulate_squares(steps, gradients, keep, 1 - keep)
        self._torch._foreach_mul_(gradients, rates)
        return gradients


class Adam(Optimizer):
    """The history is running means of gradients, then of their squares, both corrected for starting at zero."""

    blobs = 2

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        means, squares = self._lists
        first, second = self._rule.momentum, self._rule.momentum2
        self._accumulate(means, gradients, first, 1 - first)
        self._accumulate_squares(squares, gradients, second, 1 - second)
        correction = math.sqrt(1 - second ** (iteration + 1)) / (1 - first ** (iteration + 1))
        return self._by_roots(means, squares, [rate * correction for rate in rates])


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "SGD": Sgd,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RmsProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
}
