"""How gradients become updates of the weights: Caffe's six solver types, in place on torch tensors.

Each works on all parameters at once: torch's `_foreach_` functions walk lists of tensors without a call for each.
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
from ristretto_cli.train.solver_settings import Rule
from ristretto_cli.train.torch_import import import_torch

Tensor: TypeAlias = Any  # torch may be missing where types are checked

log = logging.getLogger("ristretto")


@dataclass(frozen=True)
class Learnable:
    """A parameter that the solver knows: its key, its values, and what its rate and its decay are multiplied by.

    Those with an lr_mult of 0 are here as well, since they have a history in Caffe's files.
    """

    key: str
    tensor: Tensor
    lr_mult: float = 1.0
    decay_mult: float = 1.0


class Update(ABC):
    """A solver type. history: what it remembers, in Caffe's order: `blobs` lists of a tensor for each parameter."""

    blobs: ClassVar[int] = 1

    def __init__(self, rule: Rule, params: Sequence[Learnable]) -> None:
        self._torch = import_torch()
        self._rule = rule
        self._params = params
        tensors = [param.tensor for param in params]
        self.history: list[Tensor] = [self._torch.zeros_like(t) for _ in range(self.blobs) for t in tensors]
        self.differences: list[Tensor] = []  # what this iteration's update took from each that moves
        self._rouse()

    def restore(self, history: Sequence[Array]) -> None:
        """Go on from a history, of the right count and shapes."""
        for tensor, array in zip(self.history, history, strict=True):
            tensor.copy_(self._torch.from_numpy(np.array(array, np.float32)))
        self._rouse()

    def apply(self, rate: float, iteration: int) -> None:
        """Move the parameters by the gradients in their `grad`, sums over iter_size batches. These are overwritten."""
        with self._torch.no_grad():
            gradients = [self._gradient(param) for param in self._awake]
            self._clip([param.tensor.grad for param in self._params if param.tensor.grad is not None])
            if self._rule.iter_size != 1:
                self._torch._foreach_mul_(gradients, 1 / self._rule.iter_size)
            self._regularize(gradients)
            if gradients:
                rates = [rate * param.lr_mult for param in self._awake]
                gradients = self._updates(gradients, rates, iteration)
                self._torch._foreach_sub_(self._tensors, gradients)
            self.differences = gradients

    def forget(self) -> None:
        """Begin an iteration: what the last update took no longer counts."""
        self.differences = []

    def difference(self, index: int) -> Tensor:
        """What this iteration's update took from a parameter, which Caffe writes as its gradient; zeros before it."""
        for param, tensor in zip(self._awake, self.differences, strict=False):
            if param is self._params[index]:
                return tensor
        return self._torch.zeros_like(self._params[index].tensor)

    @abstractmethod
    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        """What is taken from each parameter. gradients may be overwritten; rates: one for each."""

    def _moves_without(self, param: Learnable) -> bool:
        """Whether a parameter that has no gradient, and no history yet, can get a history."""
        return self._decay(param) != 0

    def _rouse(self) -> None:
        """Find the parameters that this has to do with: the others have no gradient and stay as they are."""
        count = len(self._params)
        self._awake: list[Learnable] = []
        kept: list[int] = []
        for i, param in enumerate(self._params):
            remembers = any(bool(self.history[i + k * count].any()) for k in range(self.blobs))
            if param.tensor.requires_grad or remembers or self._moves_without(param):
                self._awake.append(param)
                kept.append(i)
        self._tensors = [param.tensor for param in self._awake]
        self._lists = [[self.history[i + k * count] for i in kept] for k in range(self.blobs)]
        self.differences = []
        self._decays: dict[float, list[int]] = {}
        for i, param in enumerate(self._awake):
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

    def _remember(self, history: list[Tensor], news: list[Tensor], keep: float, take: float) -> None:
        """history = keep * history + take * news."""
        self._torch._foreach_mul_(history, keep)
        self._torch._foreach_add_(history, news, alpha=take)

    def _remember_squares(self, history: list[Tensor], news: list[Tensor], keep: float, take: float) -> None:
        """history = keep * history + take * news^2."""
        if keep != 1:
            self._torch._foreach_mul_(history, keep)
        self._torch._foreach_addcmul_(history, news, news, value=take)

    def _by_roots(self, values: list[Tensor], squares: list[Tensor], rates: list[float]) -> list[Tensor]:
        """rates * values / (sqrt(squares) + delta)."""
        roots = list(self._torch._foreach_sqrt(squares))
        self._torch._foreach_add_(roots, self._rule.delta)
        updates = list(self._torch._foreach_div(values, roots))
        self._torch._foreach_mul_(updates, rates)
        return updates


class Sgd(Update):
    """Stochastic gradient descent; the history is the last update."""

    def _moves_without(self, param: Learnable) -> bool:
        return param.lr_mult != 0 and super()._moves_without(param)

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (history,) = self._lists
        self._torch._foreach_mul_(gradients, rates)
        self._remember(history, gradients, self._rule.momentum, 1)
        return history


class Nesterov(Sgd):
    """Nesterov's accelerated gradient: the history as for SGD, and a step further along it."""

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (history,) = self._lists
        momentum = self._rule.momentum
        self._torch._foreach_mul_(gradients, rates)
        self._remember(history, gradients, momentum, 1)
        # (1 + momentum) * new - momentum * old is momentum * new + gradient.
        self._torch._foreach_add_(gradients, history, alpha=momentum)
        return gradients


class AdaGrad(Update):
    """Each value's rate falls with the sum of its squared gradients."""

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (squares,) = self._lists
        self._remember_squares(squares, gradients, 1, 1)
        return self._by_roots(gradients, squares, rates)


class RmsProp(Update):
    """AdaGrad with a running mean in place of the sum."""

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        (squares,) = self._lists
        self._remember_squares(squares, gradients, self._rule.rms_decay, 1 - self._rule.rms_decay)
        return self._by_roots(gradients, squares, rates)


class AdaDelta(Update):
    """Steps as long as the last ones: running means of squared gradients, then of squared updates."""

    blobs = 2

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        squares, steps = self._lists
        keep, delta = self._rule.momentum, self._rule.delta
        self._remember_squares(squares, gradients, keep, 1 - keep)
        ratios = list(self._torch._foreach_add(steps, delta))
        self._torch._foreach_div_(ratios, self._torch._foreach_add(squares, delta))
        self._torch._foreach_sqrt_(ratios)
        self._torch._foreach_mul_(gradients, ratios)
        self._remember_squares(steps, gradients, keep, 1 - keep)
        self._torch._foreach_mul_(gradients, rates)
        return gradients


class Adam(Update):
    """Running means of gradients, then of their squares, both corrected for beginning at zero."""

    blobs = 2

    def _updates(self, gradients: list[Tensor], rates: list[float], iteration: int) -> list[Tensor]:
        means, squares = self._lists
        first, second = self._rule.momentum, self._rule.momentum2
        self._remember(means, gradients, first, 1 - first)
        self._remember_squares(squares, gradients, second, 1 - second)
        correction = math.sqrt(1 - second ** (iteration + 1)) / (1 - first ** (iteration + 1))
        return self._by_roots(means, squares, [rate * correction for rate in rates])


UPDATES: dict[str, type[Update]] = {
    "SGD": Sgd,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RmsProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
}
