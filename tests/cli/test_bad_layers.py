"""Settings and data that the rarer layer types refuse: one line with the place, and no memory is taken before."""

from __future__ import annotations

import tracemalloc

import pytest

from ristretto_cli.cli.main import run

from .conftest import FORWARD, Job

MAX_BYTES = 1 << 24

# The layer's type and settings, its bottoms (`data` is 2x1x4x4, `label` 2), and what is said of it.
ROWS = [
    ("Tile", ["data"], "tile_param { tiles: 2000000000 }",
     "a blob of shape 2x2000000000x16 has too many elements"),
    ("Tile", ["data"], "",
     "tiles is missing or below 1. Set the number of copies, 1 or more."),
    ("Embed", ["label"], "embed_param { num_output: 1 input_dim: 4000000000 }",
     "a blob of shape 4000000000x1 has too many elements"),
    ("Embed", ["label"], "embed_param { num_output: 4000000000 input_dim: 1 }",
     "a blob of shape 1x4000000000 has too many elements"),
    ("Im2col", ["data"], "convolution_param { kernel_size: 2000000000 }",
     "a blob of shape 1x1x2000000000x2000000000 has too many elements"),
    ("Im2col", ["data"], "convolution_param { kernel_size: 20000 pad: 20000 }",
     "a blob of shape 2x1x40004x40004 has too many elements"),
    ("Im2col", ["data"], "convolution_param { kernel_size: 10000 pad: 5000 }",
     "a blob of shape 2x100000000x5x5 has too many elements"),
    ("SPP", ["data"], "spp_param { pyramid_height: 4000000000 }",
     "8 windows of 1x1 on level 3 do not fit an image of 4x4: they need padding 2x2, "
     "which is not smaller than the kernel. Reduce pyramid_height."),
    ("Parameter", [], "parameter_param { shape { dim: 100000 dim: 100000 } }",
     "a blob of shape 100000x100000 has too many elements"),
    ("Log", ["data"], "log_param { base: 1 }",
     "base must be positive and not 1"),
    ("Clip", ["data"], "",
     "clip_param is missing. Set its min and max."),
    ("Filter", ["label", "data"], "",
     "its last bottom, the selector, has shape 2x1x4x4. It must have one number per item."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "bottoms", "settings", "said"), ROWS)
def test_a_layer_is_refused_with_its_line(
    kind: str, bottoms: list[str], settings: str, said: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.insert(_layer(kind, bottoms, settings), after=2)
    before = job.files()
    tracemalloc.start()
    try:
        assert run(FORWARD) == 1
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    assert capsys.readouterr() == ("", f'ristretto: net.prototxt:3: layer "x" ({kind}): {said}\n')
    assert job.files() == before


@pytest.mark.parametrize(
    ("kind", "bottoms", "settings", "count"),
    [
        ("Embed", ["label"], "embed_param { num_output: 2 input_dim: 1 }", 1),  # the labels are 0 and 1
        ("BatchReindex", ["data", "scaled"], "", 2),  # 0 and 10
    ],
)
def test_an_index_that_is_out_of_range_is_reported_when_it_turns_up(
    kind: str, bottoms: list[str], settings: str, count: int, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.insert(_layer(kind, bottoms, settings), after=2)
    job.insert('layer { name: "s" type: "Power" bottom: "label" top: "scaled" power_param { scale: 10 } }', after=2)
    before = job.files()
    assert run([*FORWARD, "--allow_missing_weights"]) == 1
    said = f'ristretto: layer "x": an index into {count} entries is negative, too large or not a number. '
    assert said in capsys.readouterr().err
    assert job.files() == before


def _layer(kind: str, bottoms: list[str], settings: str) -> str:
    read = " ".join(f'bottom: "{name}"' for name in bottoms)
    return f'layer {{ name: "x" type: "{kind}" {read} top: "x" {settings} }}'
