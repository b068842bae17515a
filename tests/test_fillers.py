from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.errors import LayerError
from ristretto_cli.fillers import check_filler, fill


def filled(text: str, *shape: int, seed: int = 0) -> Any:
    message = parse(text, "FillerParameter", "filler").message
    values = fill(message, shape, rng=np.random.default_rng(seed))
    assert values.dtype == np.float32
    assert values.shape == shape
    return values


def test_a_filler_without_settings_fills_with_zeros() -> None:
    assert filled("", 2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_constant_fills_with_its_value() -> None:
    assert filled('type: "constant" value: -1.5', 2).tolist() == [-1.5, -1.5]
    assert filled("value: 2").tolist() == 2


def test_uniform_lies_between_min_and_max() -> None:
    values = filled('type: "uniform" min: -2 max: 6', 100, 100)
    assert -2 <= values.min() < -1.99
    assert 5.99 < values.max() <= 6
    assert abs(values.mean() - 2) < 0.1


def test_gaussian_has_its_mean_and_deviation() -> None:
    values = filled('type: "gaussian" mean: 3 std: 0.5', 100, 100)
    assert abs(values.mean() - 3) < 0.02
    assert abs(values.std() - 0.5) < 0.02


def test_sparse_gaussian_keeps_sparse_of_as_many_as_there_are_outputs() -> None:
    values = filled('type: "gaussian" sparse: 10', 100, 200)
    assert abs((values != 0).mean() - 0.1) < 0.02
    assert (filled('type: "gaussian" sparse: 0', 10, 5) == 0).all()
    assert (filled('type: "gaussian" sparse: 10', 10, 5) != 0).all()


def test_positive_unitball_rows_are_positive_and_sum_to_one() -> None:
    values = filled('type: "positive_unitball"', 5, 3, 4)
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(axis=(1, 2)), 1, rtol=1e-6)


# shape (8, 2, 5, 5): fan in 2 * 25 = 50, fan out 8 * 25 = 200, their average 125
@pytest.mark.parametrize(("norm", "fan"), [("FAN_IN", 50), ("FAN_OUT", 200), ("AVERAGE", 125)])
def test_xavier_and_msra_spread_by_the_fan(norm: str, fan: int) -> None:
    values = filled(f'type: "xavier" variance_norm: {norm}', 8, 2, 5, 5)
    limit = (3 / fan) ** 0.5
    assert 0.95 * limit < np.abs(values).max() <= limit * (1 + 1e-6)
    values = np.stack([filled(f'type: "msra" variance_norm: {norm}', 8, 2, 5, 5, seed=i) for i in range(20)])
    assert abs(values.std() / (2 / fan) ** 0.5 - 1) < 0.05
    assert abs(values.mean()) < 0.01


def test_a_bias_has_a_fan_in_of_1() -> None:
    assert abs(np.abs(filled('type: "xavier"', 1000)).max() - 3**0.5) < 0.02


def test_bilinear_is_the_kernel_of_upsampling() -> None:
    values = filled('type: "bilinear"', 2, 1, 4, 4)
    assert values[0, 0, 0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]  # (1/4, 3/4, 3/4, 1/4) / 4
    assert values[0, 0, 1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]
    assert (values[1] == values[0]).all()
    odd = filled('type: "bilinear"', 1, 1, 3, 3)[0, 0]
    assert odd.tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "positive_unitball", "xavier", "msra"])
def test_the_generator_decides(kind: str) -> None:
    text = f'type: "{kind}"'
    assert (filled(text, 3, 4, seed=1) == filled(text, 3, 4, seed=1)).all()
    assert (filled(text, 3, 4, seed=1) != filled(text, 3, 4, seed=2)).any()


@pytest.mark.parametrize(
    ("text", "shape", "says"),
    [
        ('type: "xaviar"', (2,), 'unknown filler "xaviar". Did you mean xavier?'),
        (
            'type: "zzz"',
            (2,),
            'unknown filler "zzz". Known: constant, gaussian, positive_unitball, uniform, xavier, msra, bilinear.',
        ),
        ('type: "uniform" min: 2', (2,), "filler uniform has min 2 above max 1"),
        ('type: "uniform" max: nan', (2,), "filler uniform has min 0 above max nan"),
        ('type: "gaussian" std: 0', (2,), "filler gaussian has std 0. It must be positive."),
        ('type: "gaussian" sparse: 3', (2, 9), "filler gaussian has sparse 3, but 2 outputs"),
        ('type: "gaussian" sparse: -2', (2, 9), "filler gaussian has sparse -2, but 2 outputs"),
        ("sparse: 1", (2,), "filler constant cannot be sparse. Only gaussian can."),
        ('type: "bilinear"', (2, 2), "filler bilinear cannot fill the shape (2, 2). It needs (N, C, K, K)."),
        (
            'type: "bilinear"',
            (1, 1, 2, 3),
            "filler bilinear cannot fill the shape (1, 1, 2, 3). It needs (N, C, K, K).",
        ),
        ('type: "xavier"', (0, 2), "filler xavier cannot fill an empty blob, of shape (0, 2)"),
    ],
)
def test_bad_fillers_are_reported_in_a_line(text: str, shape: tuple[int, ...], says: str) -> None:
    message = parse(text, "FillerParameter", "filler").message
    with pytest.raises(LayerError) as caught:
        check_filler(message, shape)
    assert str(caught.value) == says
    with pytest.raises(LayerError):
        fill(message, shape, rng=np.random.default_rng(0))
