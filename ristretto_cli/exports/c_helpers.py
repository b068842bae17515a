"""Small C functions that the steps of a program call, and the arithmetic of their arguments."""

from __future__ import annotations

from dataclasses import dataclass

from ristretto_cli.exports.c_constants import Packed, literal
from ristretto_cli.exports.c_plan import bits_of
from ristretto_cli.integers.program import Requantization
from ristretto_cli.integers.rounding import ShiftRounding

_MAX_SHIFT = 62  # as the program's definition has it
_MAX_LEFT = 61
_HALVES = {
    ShiftRounding.HALF_EVEN: "(n + ((one << (shift - 1)) - 1) + ((n >> shift) & 1)) >> shift",
    ShiftRounding.HALF_UP: "(n + (one << (shift - 1))) >> shift",
    ShiftRounding.AWAY: "n < 0 ? -((-n + (one << (shift - 1))) >> shift) : (n + (one << (shift - 1))) >> shift",
    ShiftRounding.FLOOR: "n >> shift",
}
_QUOTIENTS = {
    ShiftRounding.HALF_EVEN: (
        "    const {t} below = floored_{b}(n, whole);\n"
        "    const {t} twice = 2 * (n - below * whole);\n"
        "    return twice > whole || (twice == whole && below % 2 != 0) ? below + 1 : below;"
    ),
    ShiftRounding.HALF_UP: "    return floored_{b}(2 * n + whole, 2 * whole);",
    ShiftRounding.AWAY: ("    return n < 0 ? -((whole - 2 * n) / (2 * whole)) : (whole + 2 * n) / (2 * whole);"),
    ShiftRounding.FLOOR: "    return floored_{b}(n, whole);",
}


class TooWide(Exception):
    """A calculation that int64_t cannot hold."""


def wide(low: int, high: int) -> str:
    """The type in which numbers from low to high are computed: int32_t or int64_t."""
    if low >= -(2**31) and high < 2**31:
        return "int32_t"
    if low >= -(2**63) and high < 2**63:
        return "int64_t"
    raise TooWide


def widest(*ranges: tuple[int, int]) -> str:
    """The type that holds all of these ranges."""
    return wide(min(low for low, _ in ranges), max(high for _, high in ranges))


@dataclass(frozen=True)
class Number:
    """An expression, its type, and bounds of its value."""

    text: str
    kind: str
    low: int
    high: int

    def wider(self, *ranges: tuple[int, int]) -> str:
        """The type that holds it and these ranges."""
        return "int64_t" if bits_of(self.kind) > 32 else widest((self.low, self.high), *ranges)


class Helpers:
    """The functions that have been used so far, in the order of their first use."""

    def __init__(self, rounding: ShiftRounding) -> None:
        self._rounding = rounding
        self._texts: dict[str, str] = {}

    @property
    def text(self) -> str:
        return "\n".join(self._texts.values())

    def _use(self, name: str, text: str) -> str:
        self._texts.setdefault(name, text + "\n")
        return name

    # rounding

    def requantized(self, n: Number, to: Requantization) -> Number:
        """n in another format."""
        if to.shift < 0:
            n = self._shifted_left(n, min(-to.shift, _MAX_LEFT), to.low * to.divisor, to.high * to.divisor)
        return self.clamped(self._divided(n, min(max(to.shift, 0), _MAX_SHIFT), to.divisor), to.low, to.high)

    def clamped(self, n: Number, low: int, high: int) -> Number:
        """min(max(n, low), high)."""
        if low <= n.low and n.high <= high:
            return n
        kind = n.wider((low, high))
        name = f"clamped_{bits_of(kind)}"
        self._use(
            name,
            f"static {kind} {name}({kind} n, {kind} low, {kind} high)\n"
            "{\n    return n < low ? low : n > high ? high : n;\n}",
        )
        text = f"{name}({n.text}, {literal(low, kind)}, {literal(high, kind)})"
        return Number(text, kind, *(min(max(end, low), high) for end in (n.low, n.high)))

    def larger(self, a: Number, b: Number) -> Number:
        """The maximum of two numbers of one type."""
        name = f"larger_{bits_of(a.kind)}"
        self._use(name, f"static {a.kind} {name}({a.kind} a, {a.kind} b)\n{{\n    return a > b ? a : b;\n}}")
        return Number(f"{name}({a.text}, {b.text})", a.kind, max(a.low, b.low), max(a.high, b.high))

    def _shifted_left(self, n: Number, left: int, low: int, high: int) -> Number:
        n = self.clamped(n, (low >> left) - 1, (high >> left) + 1)
        ends = n.low << left, n.high << left
        kind = n.wider(ends, (0, 1 << left))
        return Number(f"({kind})({n.text}) * {literal(1 << left, kind)}", kind, *ends)

    def _divided(self, n: Number, shift: int, divisor: int) -> Number:
        if shift == 0 and divisor == 1:
            return n
        whole = divisor << shift
        ends = [_divided_integer(end, whole, self._rounding) for end in (n.low, n.high)]
        if divisor == 1:
            half = 1 << (shift - 1)
            kind = n.wider((n.low - half, n.high + half))
            return Number(f"{self._shift(kind)}({n.text}, {shift})", kind, *ends)
        kind = n.wider((2 * n.low - 2 * whole, 2 * n.high + 2 * whole))
        return Number(f"{self._quotient(kind)}({n.text}, {literal(whole, kind)})", kind, *ends)

    def _shift(self, kind: str) -> str:
        bits = bits_of(kind)
        name = f"{self._rounding.value}_{bits}"
        formula = _HALVES[self._rounding].replace("one", f"INT{bits}_C(1)")
        return self._use(
            name,
            f"/* n / 2^shift, rounded {self._rounding.description.partition(':')[0]}; shift is positive */\n"
            f"static {kind} {name}({kind} n, int shift)\n{{\n    return {formula};\n}}",
        )

    def _quotient(self, kind: str) -> str:
        bits = bits_of(kind)
        if self._rounding is not ShiftRounding.AWAY:
            floored = f"floored_{bits}"
            self._use(
                floored,
                f"/* the largest integer that is not above n / whole */\n"
                f"static {kind} {floored}({kind} n, {kind} whole)\n"
                "{\n    return n % whole < 0 ? n / whole - 1 : n / whole;\n}",
            )
        name = f"{self._rounding.value}_quotient_{bits}"
        body = _QUOTIENTS[self._rounding].format(t=kind, b=bits)
        return self._use(
            name,
            f"/* n / whole, rounded {self._rounding.description.partition(':')[0]}; whole is positive */\n"
            f"static {kind} {name}({kind} n, {kind} whole)\n{{\n{body}\n}}",
        )

    # sums of products

    def dot(self, weights: str, x: str, sum_type: str, packing: Packed | None) -> str:
        """The name of a function (w, x, n) for the sum of n products."""
        form = f"packed{packing.bits}" if packing else weights.removesuffix("_t")
        name = f"dot_{form}_{x.removesuffix('_t')}_{bits_of(sum_type)}"
        # Factors of 16 bits have products of 32, which compilers know how to add up fast.
        narrow = bits_of(weights) <= 16 and bits_of(x) <= 16 and (weights, x) != ("uint16_t", "uint16_t")
        product = "int32_t" if narrow else sum_type
        head = f"static {sum_type} {name}(const {weights} *w, const {x} *x, int32_t n)\n{{\n"
        if packing is None:
            body = (
                f"    {sum_type} sum = 0;\n    for (int32_t k = 0; k < n; ++k)\n"
                f"        sum += ({product})w[k] * x[k];\n    return sum;\n}}"
            )
            return self._use(name, head + body)
        per_byte, half = 8 // packing.bits, 1 << (packing.bits - 1)
        body = (
            f"    const int32_t bytes = (n + {per_byte - 1}) / {per_byte};\n    {sum_type} sum = 0;\n"
            f"    for (int shift = 0; shift < 8; shift += {packing.bits}) {{\n"
            "        const int32_t count = n < bytes ? n : bytes;\n"
            "        for (int32_t k = 0; k < count; ++k)\n"
            f"            sum += ({product})((((w[k] >> shift) & {2 * half - 1}) ^ {half}) - {half}) * x[k];\n"
            "        x += count;\n        n -= count;\n    }\n    return sum;\n}"
        )
        return self._use(name, head + body)

    def unpack(self, packing: Packed) -> str:
        """The name of a function (row, bytes, k) for weight k of a packed row."""
        name, half = f"packed{packing.bits}_at", 1 << (packing.bits - 1)
        return self._use(
            name,
            f"static int32_t {name}(const uint8_t *row, int32_t bytes, int32_t k)\n{{\n"
            f"    const int32_t digits = (row[k % bytes] >> (k / bytes * {packing.bits})) & {2 * half - 1};\n"
            f"    return (digits ^ {half}) - {half};\n}}",
        )

    # windows

    def inside(self) -> None:
        """The functions inside_begin and inside_end."""
        self._use(
            "inside_begin",
            "/* the first k, up to count, with start + k * step >= 0 */\n"
            "static int32_t inside_begin(int32_t start, int32_t step, int32_t count)\n{\n"
            "    const int32_t k = start < 0 ? (step - 1 - start) / step : 0;\n    return k < count ? k : count;\n}",
        )
        self._use(
            "inside_end",
            "/* the number of k, up to count, with start + k * step < extent */\n"
            "static int32_t inside_end(int32_t start, int32_t step, int32_t count, int32_t extent)\n{\n"
            "    const int32_t k = start < extent ? (extent - 1 - start) / step + 1 : 0;\n"
            "    return k < count ? k : count;\n}",
        )


def _divided_integer(n: int, whole: int, rounding: ShiftRounding) -> int:
    """n / whole, rounded."""
    if rounding is ShiftRounding.FLOOR:
        return n // whole
    if rounding is ShiftRounding.HALF_UP:
        return (2 * n + whole) // (2 * whole)
    if rounding is ShiftRounding.AWAY:
        return (2 * abs(n) + whole) // (2 * whole) * (1 if n > 0 else -1)
    below, rest = divmod(n, whole)
    return below + (2 * rest > whole or (2 * rest == whole and below % 2 == 1))
