"""The updates of the six solver types, of one number that can be followed by hand."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from ristretto_cli.train.solver_settings import UpdateRule

torch = pytest.importorskip("torch", reason="training needs torch")


def solver(rule: UpdateRule, *values: Any, lr_mult: float = 1.0, decay_mult: float = 1.0, learned: bool = True) -> Any:
    from ristretto_cli.train.optimizers import OPTIMIZERS, Learnable

    params = [
        Learnable(f"l/{i}", torch.tensor([float(v)], requires_grad=learned), lr_mult, decay_mult)
        for i, v in enumerate(values)
    ]
    return OPTIMIZERS[rule.type](rule, params), params


def step(update: Any, params: Any, gradient: float, rate: float = 1.0, iteration: int = 0) -> float:
    """The first parameter after an update; all get the same gradient."""
    for param in params:
        param.tensor.grad = torch.full_like(param.tensor, gradient) if param.tensor.requires_grad else None
    update.apply(rate, iteration)
    return float(params[0].tensor.detach()[0])


def test_sgd_takes_the_rate_times_the_gradient_and_keeps_its_course() -> None:
    update, params = solver(UpdateRule(momentum=0.5), 1.0)
    assert step(update, params, 2.0, rate=0.25) == 0.5  # 1 - 0.5
    assert update.history[0].tolist() == [0.5]
    assert step(update, params, 0.0, rate=0.25) == 0.25  # and half of that again
    assert update.difference(0).tolist() == [0.25]


def test_a_lower_rate_does_not_touch_the_momentum_that_is_there() -> None:
    update, params = solver(UpdateRule(momentum=1.0), 0.0)
    step(update, params, 1.0, rate=1.0)
    assert step(update, params, 1.0, rate=0.5) == -2.5


def test_nesterov_goes_a_step_further_along_the_momentum() -> None:
    update, params = solver(UpdateRule("Nesterov", momentum=0.5), 0.0)
    assert step(update, params, 1.0) == -1.5
    assert update.history[0].tolist() == [1.0]
    assert step(update, params, 1.0) == -3.25  # history 1.5; 1.5 * 1.5 - 0.5 * 1 more
    assert update.difference(0).tolist() == [1.75]


def test_adagrad_divides_by_the_root_of_all_squares() -> None:
    update, params = solver(UpdateRule("AdaGrad", delta=0.0), 0.0)
    assert step(update, params, 3.0) == -1.0
    assert step(update, params, 4.0) == pytest.approx(-1.8)  # 4 / sqrt(9 + 16)
    assert update.history[0].tolist() == [25.0]


def test_delta_is_added_to_the_root() -> None:
    update, params = solver(UpdateRule("AdaGrad", delta=1.0), 0.0)
    assert step(update, params, 3.0) == -0.75


def test_rmsprop_divides_by_the_root_of_a_running_mean() -> None:
    update, params = solver(UpdateRule("RMSProp", rms_decay=0.75, delta=0.0), 0.0)
    assert step(update, params, 2.0) == -2.0  # 2 / sqrt(4 / 4)
    assert update.history[0].tolist() == [1.0]


def test_adadelta_has_two_histories_and_takes_steps_as_long_as_the_last_ones() -> None:
    update, params = solver(UpdateRule("AdaDelta", momentum=0.0, delta=1.0), 0.0, 0.0)
    after = step(update, params, 1.0, rate=2.0)  # squares 1; 1 * sqrt((0 + 1) / (1 + 1))
    assert after == pytest.approx(-2 / math.sqrt(2))
    assert len(update.history) == 4
    assert update.history[0].tolist() == [1.0]
    assert update.history[2].tolist() == [pytest.approx(0.5)]  # the step's square, without the rate


def test_adams_first_step_is_the_rate_whatever_the_gradient() -> None:
    update, params = solver(UpdateRule("Adam", momentum=0.9, momentum2=0.999, delta=0.0), 0.0)
    assert step(update, params, 1234.0, rate=0.5) == pytest.approx(-0.5, rel=1e-5)
    assert update.history[0].tolist() == [pytest.approx(123.4)]
    assert update.history[1].tolist() == [pytest.approx(1522.756)]


def test_adams_correction_goes_by_the_iteration_that_a_training_was_resumed_at() -> None:
    update, params = solver(UpdateRule("Adam", momentum=0.5, momentum2=0.75, delta=0.0), 0.0)
    expected = math.sqrt(1 - 0.75**4) / (1 - 0.5**4) * 0.5 / math.sqrt(0.25)
    assert step(update, params, 1.0, iteration=3) == pytest.approx(-expected)


def test_weight_decay_comes_before_the_momentum_and_has_its_multiplier() -> None:
    update, params = solver(UpdateRule(weight_decay=0.25), 2.0, decay_mult=2.0)
    assert step(update, params, 1.0) == 0.0  # 1 + 0.5 * 2
    update, params = solver(UpdateRule(weight_decay=0.25), 2.0, decay_mult=0.0)
    assert step(update, params, 1.0) == 1.0


def test_l1_decays_by_the_sign() -> None:
    update, params = solver(UpdateRule(weight_decay=0.25, regularization="L1"), -8.0)
    assert step(update, params, 0.0) == -7.75
    update, params = solver(UpdateRule(weight_decay=0.25, regularization="L1"), 0.0)
    assert step(update, params, 0.0) == 0.0


def test_gradients_are_clipped_together_before_they_are_divided_and_decay_is_added(
    caplog: pytest.LogCaptureFixture,
) -> None:
    update, params = solver(UpdateRule(clip_gradients=1.0, iter_size=2, weight_decay=0.5), 1.0, 1.0, 1.0, 1.0)
    with caplog.at_level(logging.INFO, "ristretto"):
        after = step(update, params, 4.0)  # norm 8: 4 / 8 / 2 + 0.5
    assert after == 0.25
    assert caplog.messages == ["Gradient clipping: scaling down gradients (L2 norm 8 > 1) by scale factor 0.125"]


def test_gradients_within_the_limit_are_left_unchanged() -> None:
    update, params = solver(UpdateRule(clip_gradients=8.0), 0.0, 0.0, 0.0, 0.0)
    assert step(update, params, 4.0) == -4.0


def test_a_frozen_parameter_stays_but_its_decay_goes_into_the_history_of_adaptive_types() -> None:
    frozen = {"lr_mult": 0.0, "learned": False}
    update, params = solver(UpdateRule("SGD", momentum=0.9, weight_decay=0.5), 2.0, **frozen)
    assert step(update, params, 0.0) == 2.0
    assert update.history[0].tolist() == [0.0]
    update, params = solver(UpdateRule("AdaGrad", weight_decay=0.5), 2.0, **frozen)
    assert step(update, params, 0.0) == 2.0
    assert update.history[0].tolist() == [1.0]
    update, params = solver(UpdateRule("AdaGrad"), 2.0, **frozen)
    assert step(update, params, 0.0) == 2.0
    assert update.history[0].tolist() == [0.0]


def test_a_restored_history_is_gone_on_with_even_of_a_parameter_that_is_frozen_now() -> None:
    update, params = solver(UpdateRule(momentum=0.5), 0.0, lr_mult=0.0, learned=False)
    update.restore([np.array([4.0], np.float32)])
    assert step(update, params, 0.0) == -2.0
    assert update.history[0].tolist() == [2.0]
