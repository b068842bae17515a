"""What forks add to transform_param."""

import numpy as np
import pytest
from google.protobuf import text_format

from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.errors import LayerError
from ristretto_cli.sources.transform import Transform


def transform(settings, phase=TEST):
    return Transform(text_format.Parse(settings, new("TransformationParameter")), phase, np.random.default_rng(0))


@pytest.mark.parametrize("settings", ["emit_constraint { }", "distort_param { }", "expand_param { prob: 0 }"])
def test_settings_of_other_data_layers_are_refused(settings):
    with pytest.raises(LayerError) as refused:
        transform(f"scale: 2 {settings}")
    assert f"transform_param has {settings.split()[0]}, which only AnnotatedData" in str(refused.value)


IMAGES = np.arange(2 * 1 * 4 * 6).reshape(2, 1, 4, 6)


def test_crop_h_and_crop_w_crop_the_centre():
    t = transform("crop_h: 2 crop_w: 3")
    assert t.shape((1, 4, 6)) == (1, 2, 3)
    # (4 - 2) // 2 = 1 row, (6 - 3) // 2 = 1 column
    assert t(IMAGES)[:, 0].tolist() == [[[7, 8, 9], [13, 14, 15]], [[31, 32, 33], [37, 38, 39]]]


def test_crop_size_wins_over_crop_h_and_crop_w():
    assert transform("crop_h: 2 crop_w: 3 crop_size: 1").shape((1, 4, 6)) == (1, 1, 1)


@pytest.mark.parametrize("phase", [TEST, TRAIN])
def test_with_only_one_of_both_the_upper_left_corner_stays_in_either_phase(phase):
    assert transform("crop_h: 1", phase)(IMAGES)[:, 0].tolist() == [[[0, 1, 2, 3, 4, 5]], [[24, 25, 26, 27, 28, 29]]]
    assert transform("crop_w: 2", phase)(IMAGES)[0, 0].tolist() == [[0, 1], [6, 7], [12, 13], [18, 19]]


def test_a_crop_in_the_train_phase_lies_anywhere():
    t = transform("crop_h: 3 crop_w: 5", TRAIN)
    corners = {int(t(IMAGES)[0, 0, 0, 0]) for _ in range(100)}
    assert corners == {0, 1, 6, 7}


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(LayerError) as refused:
        transform("crop_h: 5 crop_w: 2").shape((1, 4, 6))
    assert str(refused.value) == "crop_h 5, crop_w 2 is larger than the image, 4x6"


def test_windows_are_relative_to_the_image():
    t = transform("crop_h: 2 crop_w: 3")
    assert t.window(t.views(IMAGES), 1).tolist() == np.float32([1 / 6, 0.25, 4 / 6, 0.75]).tolist()


@pytest.mark.parametrize("noise", ["hist_eq: true", "jpeg: 50", "decolorize: true prob: 0"])
def test_noise_is_refused_in_the_test_phase(noise):
    with pytest.raises(LayerError, match=r"^noise_param would change the images at random in the TEST phase\. Remove"):
        transform(f"noise_param {{ {noise} }}")


def test_noise_that_is_none_is_allowed():
    np.testing.assert_array_equal(transform("noise_param { prob: 1 erode: false }")(IMAGES), IMAGES)
