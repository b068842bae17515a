"""InfogainLoss."""

import math

import numpy as np
import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.layers.layer_type import LAYERS

LOG2, LOG4 = math.log(2), math.log(4)
SCORES = np.log([[1, 3], [1, 1]])  # probabilities 1/4, 3/4 and 1/2, 1/2
H = [[1, 2], [0, 4]]
ROW0 = LOG4 + 2 * math.log(4 / 3)  # of the first prediction, label 0
ROW1 = 4 * LOG2  # of the second one, label 1


def tops(bench, settings, scores, labels, matrix, count=1):
    bottoms = [scores, labels] if matrix is None else [scores, labels, matrix]
    return bench.run("InfogainLoss", settings, bottoms, tops=count)


def loss(bench, settings, scores=SCORES, labels=(0, 1), matrix=H):
    (top,) = tops(bench, settings, scores, labels, matrix)
    assert top.shape == ()
    return float(top)


@pytest.fixture
def stored(tmp_path):
    """Writes a matrix to a .binaryproto and gives its name."""

    def write(matrix):
        path = tmp_path / "H.binaryproto"
        blob = new("BlobProto", shape=new("BlobShape", dim=np.shape(matrix)), data=np.ravel(matrix).tolist())
        path.write_bytes(blob.SerializeToString())
        return f'infogain_loss_param {{ source: "{path}" }}'

    return write


def test_each_class_costs_as_much_as_the_labels_row_of_h_says(bench):
    assert loss(bench, "") == pytest.approx((ROW0 + ROW1) / 2)


def test_h_may_have_any_shape_of_classes_times_classes_values(bench):
    assert loss(bench, "", matrix=np.reshape(H, (1, 1, 2, 2))) == pytest.approx((ROW0 + ROW1) / 2)


def test_h_may_stand_in_a_file(bench, stored):
    assert loss(bench, stored(H), matrix=None) == pytest.approx((ROW0 + ROW1) / 2)


def test_the_third_bottom_goes_before_the_file(bench, stored):
    assert loss(bench, stored([[9, 9], [9, 9]])) == pytest.approx((ROW0 + ROW1) / 2)


def test_a_probability_is_taken_for_1e_20_at_least(bench):
    assert loss(bench, "", [[0, 1000]], [0], np.eye(2)) == pytest.approx(20 * math.log(10))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", (ROW0 + ROW1) / 2),
        ("normalization: FULL", (ROW0 + ROW1) / 2),
        ("normalization: BATCH_SIZE", (ROW0 + ROW1) / 2),
        ("normalization: NONE", ROW0 + ROW1),
        ("ignore_label: 0", ROW1),
        ("ignore_label: 0 normalization: FULL", ROW1 / 2),
    ],
)
def test_the_sum_is_divided_as_the_settings_say(bench, settings, expected):
    assert loss(bench, f"loss_param {{ {settings} }}") == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "expected"), [("BATCH_SIZE", 3 * LOG4), ("VALID", LOG4), ("NONE", 6 * LOG4)])
def test_planes_of_predictions(bench, mode, expected):
    scores, labels = np.zeros((2, 4, 1, 3)), np.zeros((2, 1, 3))
    settings = f"loss_param {{ normalization: {mode} }}"
    assert loss(bench, settings, scores, labels, np.eye(4)) == pytest.approx(expected)


def test_the_classes_may_stand_on_another_axis(bench):
    settings = "infogain_loss_param { axis: -1 }"
    assert loss(bench, settings, SCORES[None], [[0, 1]]) == pytest.approx((ROW0 + ROW1) / 2)


def test_a_second_top_has_the_probabilities(bench):
    found, prob = tops(bench, "", SCORES, [0, 1], H, count=2)
    assert float(found) == pytest.approx((ROW0 + ROW1) / 2)
    assert prob == pytest.approx(np.array([[1 / 4, 3 / 4], [1 / 2, 1 / 2]]))


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_without_a_class_adds_nothing(bench, label):
    assert loss(bench, "", labels=[label, 1]) == pytest.approx(ROW1 / 2)


def test_the_old_normalize_is_refused(bench):
    said = bench.refusal("InfogainLoss", "loss_param { normalize: true }", [(2, 3), (2,), (3, 3)])
    assert "Set normalization" in said


def test_without_a_matrix_it_is_refused(bench):
    assert "there is no matrix H" in bench.refusal("InfogainLoss", "", [(2, 3), (2,)])


def test_a_file_that_is_not_there_or_no_blob_is_refused(bench, tmp_path):
    missing = 'infogain_loss_param { source: "nowhere.binaryproto" }'
    assert "nowhere.binaryproto: this file does not exist" in bench.refusal("InfogainLoss", missing, [(2, 3), (2,)])
    (tmp_path / "text").write_text("no blob")
    text = f'infogain_loss_param {{ source: "{tmp_path}/text" }}'
    assert "this is a text file, not an array" in bench.refusal("InfogainLoss", text, [(2, 3), (2,)])


def test_a_matrix_for_other_classes_is_refused(bench, stored):
    assert "H has 4 values (shape 2x2) for 3 classes" in bench.refusal("InfogainLoss", stored(H), [(2, 3), (2,)])
    assert "H has 6 values" in bench.refusal("InfogainLoss", "", [(2, 3), (2,), (2, 3)])


def test_labels_that_do_not_fit_are_refused(bench):
    assert "differ on axis 0" in bench.refusal("InfogainLoss", "", [(2, 3), (3,), (3, 3)])
    assert "4 labels" in bench.refusal("InfogainLoss", "", [(2, 3), (2, 2), (3, 3)])
    axis = "infogain_loss_param { axis: 2 }"
    assert "out of range" in bench.refusal("InfogainLoss", axis, [(2, 3), (2,), (3, 3)])


def test_it_is_a_loss():
    assert LAYERS.get("InfogainLoss").is_loss
