"""Adaptive rounding: weights on their grid such that a layer's outputs, not the weights, are close to the float net's.

The outputs' squared error is a quadratic form of the weights' errors, with the second moments of the inputs as its
matrix. Rounding one column after another and moving the rest of its error to the columns not yet rounded is GPTQ
(Frantar et al., 2022); cyclic descent then changes single weights by what their neighbours make of them.
"""

from __future__ import annotations

import numpy as np

from ristretto_cli.corrections.rounding_to import RoundTo
from ristretto_cli.ops import AnyArray

_BLOCK = 128  # columns whose errors are passed on together


def adaptive_rounding(target: AnyArray, moments: AnyArray, round_to: RoundTo, *, sweeps: int) -> AnyArray:
    """Numbers of a format with a small squared error of outputs.

    target: (G, O, D), for each of G groups the weights of O outputs for D inputs. moments: (G, D, D), positive
    definite, the second moments of the inputs. sweeps: the largest number of times that descent visits each column.
    """
    nearest, by_columns = round_to(target), _by_columns(target, moments, round_to)
    # Where weights saturate, passing on their errors can do harm.
    is_worse = _squared_errors(by_columns - target, moments) > _squared_errors(nearest - target, moments)
    rounded = np.where(is_worse[:, :, None], nearest, by_columns)
    return _descend(target, moments, round_to, rounded, sweeps)


def squared_error(error: AnyArray, moments: AnyArray) -> float:
    """The mean squared error of all outputs together for errors (G, O, D) of the weights."""
    return float(_squared_errors(error, moments).sum())


def _squared_errors(error: AnyArray, moments: AnyArray) -> AnyArray:
    """The mean squared error of each output (G, O)."""
    result: AnyArray = ((error @ moments) * error).sum(2)
    return result


def _by_columns(target: AnyArray, moments: AnyArray, round_to: RoundTo) -> AnyArray:
    """GPTQ: each column rounded once, those with the largest moments first."""
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=1, kind="stable")
    remaining = np.take_along_axis(target, order[:, None, :], 2)
    moments = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2)
    # Row j of the upper factor of the inverse says how column j's error is best passed on to the later ones.
    factor = np.linalg.cholesky(np.linalg.inv(moments)).transpose(0, 2, 1)
    rounded = np.empty_like(remaining)
    columns = target.shape[2]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = np.empty((*target.shape[:2], end - start))
        for j in range(start, end):
            rounded[:, :, j] = round_to(remaining[:, :, j])
            error = (remaining[:, :, j] - rounded[:, :, j]) / factor[:, j, j][:, None]
            errors[:, :, j - start] = error
            remaining[:, :, j + 1 : end] -= error[:, :, None] * factor[:, j, None, j + 1 : end]
        remaining[:, :, end:] -= errors @ factor[:, start:end, end:]
    return np.take_along_axis(rounded, np.argsort(order, axis=1)[:, None, :], 2)


def _descend(target: AnyArray, moments: AnyArray, round_to: RoundTo, rounded: AnyArray, sweeps: int) -> AnyArray:
    """Each weight in turn set to the number that is best while all others stay, until none changes."""
    rounded = rounded.copy()
    columns = target.shape[2]
    own = np.diagonal(moments, axis1=1, axis2=2)
    slope = (rounded - target) @ moments  # half the gradient of the squared error
    for _ in range(sweeps):
        changed = False
        for start in range(0, columns, _BLOCK):
            end = min(start + _BLOCK, columns)
            changes = np.zeros((*target.shape[:2], end - start))
            for j in range(start, end):
                best = round_to(rounded[:, :, j] - slope[:, :, j] / own[:, None, j])
                change = best - rounded[:, :, j]
                # Not all formats round to the nearest number: minifloat flushes small ones to 0.
                change[change * (2 * slope[:, :, j] + own[:, None, j] * change) >= 0] = 0
                if change.any():
                    rounded[:, :, j] += change
                    changes[:, :, j - start] = change
                    slope[:, :, start:end] += change[:, :, None] * moments[:, j, None, start:end]
            if changes.any():
                changed = True
                slope[:, :, :start] += changes @ moments[:, start:end, :start]
                slope[:, :, end:] += changes @ moments[:, start:end, end:]
        if not changed:
            break
    return rounded
