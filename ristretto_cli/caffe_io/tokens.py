"""Tokens of protobuf's text format: names, numbers, strings and symbols, with their offsets.

Accepts the language of the C++ tokenizer as configured by TextFormat: `#` comments, an `f` after a float, hex and octal
integers, no number directly before a letter, no string across lines, only ASCII outside of strings and comments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """The kind of a token."""

    NAME = auto()
    INTEGER = auto()
    FLOAT = auto()
    STRING = auto()
    SYMBOL = auto()
    END = auto()


class Token(NamedTuple):
    """A token as written, and its offset."""

    kind: Kind
    text: str
    start: int


# Called with an offset and an error message.
Report = Callable[[int, str], None]

_SPACE = re.compile(r"[ \t\n\r\v\f]*")
_COMMENT = re.compile(r"[^\n\0]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(
    r"(?P<hex>0[xX][0-9a-fA-F]*)|(?P<octal>0[0-9]+)"
    r"|(?:[0-9]+(?P<point>\.[0-9]*)?|(?P<dot>\.[0-9]+))(?P<exponent>[eE][+-]?[0-9]*)?(?P<suffix>[fF])?"
)
_STRING = {quote: re.compile(rf"{quote}[^{quote}\\\n\0]*(?:\\[^\n\0][^{quote}\\\n\0]*)*") for quote in "\"'"}
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f]+")
_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")


class Tokens:
    """Reads a text token by token; `now` is the current token, `before` the previous one.

    The first call of `next` reads the first token.
    """

    def __init__(self, text: str, report: Report) -> None:
        self._text = text
        self._report = report
        self._at = 0
        self.before = self.now = Token(Kind.SYMBOL, "", 0)

    def next(self) -> Token:
        """Advance by one token and return the one that was current."""
        self.before, self.now = self.now, self._read()
        return self.before

    def take(self, symbol: str) -> bool:
        """Advance if this symbol is current; returns whether it was."""
        if self.now.kind is Kind.SYMBOL and self.now.text == symbol:
            self.next()
            return True
        return False

    def _read(self) -> Token:
        text = self._text
        while True:
            at = self._skip_space(self._at)
            if at == len(text):
                self._at = at
                return Token(Kind.END, "end of file", at)
            control = _CONTROL.match(text, at)
            if control is None:
                break
            self._report(at, f"control character {text[at]!r} in the text")
            self._at = control.end()
        letter = text[at]
        if letter in _LETTERS:
            return self._token(Kind.NAME, at, _end(_NAME, text, at))
        if letter in _DIGITS or (letter == "." and text[at + 1 : at + 2] in _DIGITS):
            return self._number(at)
        if letter in _STRING:
            return self._string(at, letter)
        if letter > "\x7e":
            hint = " (a byte order mark: save the file without it)" if letter == "\ufeff" else ""
            self._report(at, f"{letter!a} is only allowed in strings and comments{hint}")
        return self._token(Kind.SYMBOL, at, at + 1)

    def _skip_space(self, at: int) -> int:
        while True:
            at = _end(_SPACE, self._text, at)
            if self._text[at : at + 1] != "#":
                return at
            at = _end(_COMMENT, self._text, at)

    def _token(self, kind: Kind, start: int, end: int) -> Token:
        self._at = end
        return Token(kind, self._text[start:end], start)

    def _number(self, at: int) -> Token:
        found = _NUMBER.match(self._text, at)
        if found is None:  # unreachable: starts with a digit
            return self._token(Kind.SYMBOL, at, at + 1)
        word, after = found.group(), self._text[found.end() : found.end() + 1]
        is_float = any(found[part] is not None for part in ("point", "dot", "exponent", "suffix"))
        if found["hex"] is not None and len(word) == 2:
            self._report(at, f'"{word}" must be followed by hexadecimal digits')
        elif found["octal"] is not None and ("8" in word or "9" in word):
            self._report(at, f'"{shorten(word)}": a number that starts with 0 is octal')
        elif found["exponent"] is not None and found["exponent"][-1] not in _DIGITS:
            self._report(at, f'"{shorten(word)}": the exponent has no digits')
        elif found["dot"] is not None and self.now.kind is Kind.NAME and self._ends_at(self.now, at):
            self._report(at, "a space is missing between a name and a decimal point")
        elif after in _LETTERS:
            self._report(found.end(), f'a space is missing between the number "{shorten(word)}" and a name')
        elif after == ".":
            self._report(found.end(), f'"{shorten(word)}." is not a number')
        return self._token(Kind.FLOAT if is_float else Kind.INTEGER, at, found.end())

    def _string(self, at: int, quote: str) -> Token:
        end = _end(_STRING[quote], self._text, at)
        if self._text[end : end + 1] == quote:
            return self._token(Kind.STRING, at, end + 1)
        self._report(at, f"this string has no closing {quote} on its line")
        rest_of_line = _end(_COMMENT, self._text, end)
        self._at = max(rest_of_line, end)
        return Token(Kind.STRING, self._text[at:end] + quote, at)

    @staticmethod
    def _ends_at(token: Token, offset: int) -> bool:
        return token.start + len(token.text) == offset


def shorten(word: str, limit: int = 40) -> str:
    """A token's text, shortened for an error message."""
    return word if len(word) <= limit else f"{word[:limit]}..."


def parse_integer(word: str) -> int | None:
    """The value of an INTEGER token: decimal, 0x hexadecimal, 0 octal; None if it is invalid or 2**64 or more."""
    digits, base = word, 10
    if word[:2] in ("0x", "0X"):
        digits, base = word[2:], 16
    elif word[0] == "0":
        base = 8
    digits = digits.lstrip("0") or "0"
    if len(digits) > 22:  # 2**64 has 22 octal digits; int() is slow for long texts
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return value if value < 2**64 else None


def is_decimal(word: str) -> bool:
    """Whether an INTEGER token is valid as a float: neither hexadecimal nor octal."""
    return not (len(word) >= 2 and word[0] == "0")


_ESCAPE = re.compile(
    rb"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})"
    rb"|u(?P<u>[0-9a-fA-F]{4})(?:(?<=[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2}))?"
    rb"|U(?P<U>00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(?P<plain>[abfnrtv\\?'\"])|(?P<bad>(?s:.)))"
)
_PLAIN = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))


def unescape(word: str) -> tuple[bytes, str]:
    """The bytes of a STRING token, and its first invalid escape, if any."""
    wrong = ""

    def replace(found: re.Match[bytes]) -> bytes:
        nonlocal wrong
        if (octal := found["octal"]) is not None:
            return bytes([int(octal, 8) & 0xFF])
        if (hexadecimal := found["hex"]) is not None:
            return bytes([int(hexadecimal, 16)])
        if (low := found["low"]) is not None:
            pair = bytes.fromhex((found["u"] + low).decode())
            return pair.decode("utf-16-be").encode()
        if (code := found["u"] or found["U"]) is not None:
            return chr(int(code, 16)).encode("utf-8", "surrogatepass")
        if (plain := found["plain"]) is not None:
            return bytes([_PLAIN[plain[0]]])
        wrong = wrong or found.group().decode("utf-8", "replace")
        return b""

    content = word[1:-1].encode("utf-8", "surrogateescape")
    return (_ESCAPE.sub(replace, content) if b"\\" in content else content), wrong


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
