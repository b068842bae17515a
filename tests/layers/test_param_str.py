"""param_str."""

import pytest

from ristretto_cli.errors import LayerError
from ristretto_cli.layers.param_str import read

KNOWN = ("feat_stride", "scales")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("{}", {}),
        ("'feat_stride': 16", {"feat_stride": 16}),
        ('  "feat_stride" :  1.6e1  ', {"feat_stride": 16}),
        ("feat_stride: 16\n", {"feat_stride": 16}),
        ("{'feat_stride': 16}", {"feat_stride": 16}),
        ("'feat_stride': 16 \n'scales': !!python/tuple [4, 8, 16, 32]", {"feat_stride": 16, "scales": (4, 8, 16, 32)}),
        ("{'scales': [8], 'feat_stride': 16}", {"feat_stride": 16, "scales": (8,)}),
        ("'feat_stride': 16\n'scales':\n - 8 \n - 16 \n - 32", {"feat_stride": 16, "scales": (8, 16, 32)}),
        ("scales:\n- 8\n- 16\nfeat_stride: 4", {"feat_stride": 4, "scales": (8, 16)}),
    ],
)
def test_numbers_and_lists_of_numbers_are_read_by_name(text, settings):
    assert read(text, KNOWN) == settings


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("'feat_strid': 16", 'unknown name "feat_strid" in its param_str. Did you mean feat_stride?'),
        ("'num_classes': 21", 'unknown name "num_classes" in its param_str. Known: feat_stride, scales.'),
        ("scales: [8]\nscales: [8]", '"scales" is given twice in its param_str'),
        ("'feat_stride': 16 'scales': [8]", "from \"'feat_stride': 16"),
        ("'feat_stride': sixteen", "cannot be parsed from \"'feat_stride': sixteen\" on"),
        ("scales: [8, ]", "cannot be parsed"),
        ("scales: [8, 1e]", "cannot be parsed"),
        ("scales: {a: 1}", "cannot be parsed"),
        ("16", "cannot be parsed"),
        ("scales: [" + "8," * 100, "cannot be parsed"),
    ],
)
def test_other_settings_are_refused(text, what):
    with pytest.raises(LayerError) as refused:
        read(text, KNOWN)
    assert what in str(refused.value)
