"""What forks add to transform_param."""

import numpy as np
import pytest
from google.protobuf import text_format

from ristretto_cli.errors import LayerError
from ristretto_cli.sources.transform import Transform
from ristretto_cli.wire.messages import TEST, new


@pytest.mark.parametrize("settings", ["resize_param { height: 300 width: 300 }", "distort_param { }", "crop_h: 3"])
def test_settings_of_other_data_layers_are_refused(settings):
    param = text_format.Parse(f"scale: 2 {settings}", new("TransformationParameter"))
    with pytest.raises(LayerError) as refused:
        Transform(param, TEST, np.random.default_rng(0))
    assert f"transform_param has {settings.split()[0].strip(':')}, which only AnnotatedData" in str(refused.value)
