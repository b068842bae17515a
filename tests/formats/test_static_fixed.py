"""Static fixed point: the one format of a net."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.cli.main import run
from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import MODES, Ranges, Role, layer_formats
from ristretto_cli.formats.static_fixed import integer_bits

ROLES = (Role.LAYER_IN, Role.LAYER_OUT, Role.PARAMS)
SMALL = Ranges(layer_in=1.0, layer_out=3.0, params=0.4)
LARGE = Ranges(layer_in=3.0, layer_out=100.0, params=0.1, biases=(0.5, -9.0))


def written(bits: int, ranges: Ranges, everywhere: list[Ranges]) -> Any:
    quantization = new("QuantizationParameter")
    widths = dict.fromkeys(ROLES, bits)
    MODES.get("static_fixed_point").write(quantization, widths, ranges, everywhere=everywhere, legacy=False)
    return quantization


@pytest.mark.parametrize("ranges", [SMALL, LARGE])
def test_all_layers_have_the_same_format(ranges: Ranges) -> None:
    formats = layer_formats(written(12, ranges, [SMALL, LARGE]))
    one = Fixed(12, 4)  # 100 needs 7 integer bits and the sign
    assert (formats.layer_in, formats.layer_out, formats.weights, formats.bias) == (one, one, one, one)


@pytest.mark.parametrize(
    ("bits", "ranges", "expected"),
    [
        (8, [SMALL], 3),  # 3 is below 4
        (8, [SMALL, LARGE], 8),
        (8, [Ranges(layer_in=1.0, layer_out=1.0, params=0.4, biases=(-9.0,))], 5),  # of the biases
        (8, [Ranges(layer_in=0.0, layer_out=0.0, params=0.0)], 1),  # of zeros
        (16, [Ranges(layer_in=1.0, layer_out=3.0, params=0.4)], 4),  # 1.5 times 3 needs a bit more
        (16, [Ranges(layer_in=0.0, layer_out=0.0, params=3.0)], 3),
    ],
)
def test_nothing_that_was_measured_saturates(bits: int, ranges: list[Ranges], expected: int) -> None:
    assert integer_bits(bits, ranges) == expected


def test_the_original_has_no_such_mode() -> None:
    with pytest.raises(RistrettoError, match="the original has no mode static_fixed_point"):
        MODES.get("static_fixed_point").write(
            new("QuantizationParameter"), dict.fromkeys(ROLES, 8), SMALL, everywhere=[SMALL], legacy=True
        )


def test_a_search_writes_one_format(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    flags = ["--trimming_mode=static_fixed_point", "--iterations=2", "--bit_widths=16,8", "--json=found.json"]
    assert run(["quantize", "--model=net.prototxt", "--weights=net.caffemodel", *flags]) == 0
    assert "Static fixed point net:" in capsys.readouterr().out
    text = Path("quantized.prototxt").read_text()
    assert len(set(re.findall(r"fl_\w+: (-?\d+)", text))) == 1
    assert not re.search("(bw|fl)_bias", text)  # fields of ours, which the original cannot read
    assert "precision" not in text  # the original reads it as dynamic fixed point
    assert set(json.loads(Path("found.json").read_text())["combined"]["bits"]) == {"net"}
    assert run(["test", "--model=quantized.prototxt", "--weights=net.caffemodel", "--iterations=2"]) == 0


def test_with_legacy_the_search_is_refused(two_classes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes()
    words = ["--model=net.prototxt", "--weights=net.caffemodel", "--trimming_mode=static_fixed_point", "--iterations=2"]
    assert run(["quantize", *words, "--legacy"]) == 1
    assert "the original has no mode static_fixed_point. Omit --legacy." in capsys.readouterr().err
    assert not Path("quantized.prototxt").exists()
