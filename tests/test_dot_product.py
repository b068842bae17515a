"""scripts/hardware/dot_product.v against the arithmetic of integer programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.integers.arithmetic import requantize
from ristretto_cli.integers.program import Requantization, width_of
from ristretto_cli.integers.rounding import ShiftRounding

UNIT = Path(__file__).resolve().parent.parent / "scripts" / "hardware" / "dot_product.v"

pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")

BENCH = """
module bench;
    reg clk = 0;
    reg [{x_bits}-1:0] xs [0:{count}-1];
    reg [{w_bits}-1:0] ws [0:{count}-1];
    reg [{sum_bits}-1:0] biases [0:{count}-1];
    reg [{x_bits}-1:0] x;
    reg [{w_bits}-1:0] w;
    reg signed [{sum_bits}-1:0] bias;
    reg valid = 0, first, last;
    wire done;
    wire [{y_bits}-1:0] y;
    integer i;
    dot_product #(
        .LANES(2), .X_FIELD({x_bits}/2), .X_SIGNED({x_signed}), .W_FIELD({w_bits}/2), .SUM_BITS({sum_bits}), .UP({up}),
        .SHIFT({shift}), .Y_BITS({y_bits}), .LOW({low}), .HIGH({high}), .ROUNDING({rounding})
    ) unit (.clk(clk), .valid(valid), .first(first), .last(last), .x(x), .w(w), .bias(bias), .done(done), .y(y));
    always #5 clk = ~clk;
    initial begin
        $readmemh("x.mem", xs);
        $readmemh("w.mem", ws);
        $readmemh("b.mem", biases);
        for (i = 0; i < {count}; i = i + 1) begin
            @(negedge clk);
            valid = 1;
            first = i % 2 == 0;
            last = i % 2 == 1;
            x = xs[i];
            w = ws[i];
            bias = biases[i];
            if (last) begin
                @(negedge clk);
                valid = 0;
                $display("%0d", $signed(y));
            end
        end
        $finish;
    end
endmodule
"""


@pytest.mark.parametrize("rounding", list(ShiftRounding))
@pytest.mark.parametrize(
    ("shift", "up", "x_signed", "low", "high"),
    [
        (1, 0, True, -128, 127),
        (3, 0, False, -8, 7),
        (4, 2, True, -128, 127),
        (0, 1, True, -512, 511),
        (-3, 0, True, -512, 511),
        (-40, 0, True, -128, 127),
        (14, 0, True, -2, 1),
        (60, 0, True, -2, 1),
    ],
)
def test_the_unit_computes_what_the_program_does(
    shift: int, up: int, x_signed: bool, low: int, high: int, rounding: ShiftRounding, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    sums = 60
    x = rng.integers(-8, 8, (sums, 4)) if x_signed else rng.integers(0, 16, (sums, 4))
    w = rng.integers(-4, 4, (sums, 4))
    biases = rng.integers(-64, 64, sums)
    exact = ((x * w).sum(1) << up) + biases
    expected = requantize(exact, Requantization(shift, low, high), rounding)
    sum_bits, y_bits = 2 + width_of(-4 * 4 * 16 << up, 4 * 4 * 16 << up), width_of(low, high)

    def write(name: str, numbers: np.ndarray, bits: int) -> None:
        parts = numbers.astype(np.int64) % 2**bits
        words = [sum(int(n) << (bits * k) for k, n in enumerate(row)) for row in parts.reshape(2 * sums, -1)]
        (tmp_path / name).write_text("".join(f"{word:x}\n" for word in words))

    write("x.mem", x, 4)
    write("w.mem", w, 3)
    write("b.mem", np.repeat(biases, 2), sum_bits)
    bench = BENCH.format(
        x_bits=8,
        w_bits=6,
        count=2 * sums,
        x_signed=int(x_signed),
        sum_bits=sum_bits,
        up=up,
        shift=shift,
        y_bits=y_bits,
        low=low,
        high=high,
        rounding=list(ShiftRounding).index(rounding),
    )
    (tmp_path / "bench.v").write_text(bench)
    subprocess.run(["iverilog", "-g2001", "-o", "bench", "bench.v", str(UNIT)], cwd=tmp_path, check=True, timeout=100)
    done = subprocess.run(["vvp", "-n", "bench"], cwd=tmp_path, check=True, timeout=100, capture_output=True, text=True)
    assert [int(line) for line in done.stdout.split()] == expected.tolist()
