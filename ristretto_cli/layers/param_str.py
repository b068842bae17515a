"""param_str, the settings of Python layers: the subset of YAML in use, named numbers and lists of numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ristretto_cli.errors import LayerError, did_you_mean

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ENTRY = re.compile(
    rf"(?P<quote>['\"]?)(?P<name>\w+)(?P=quote)[ \t]*:\s*(?:!!python/(?:tuple|list)\s*)?(?:"
    rf"(?:(?P<number>{_NUMBER})|\[(?P<row>[-+.,\s\deE]*)\])[ \t]*(?:[,\n]\s*|$)"
    rf"|(?P<lines>(?:-[ \t]+{_NUMBER}[ \t]*(?:\n\s*|$))+))"
)


def read(text: str, known: Collection[str]) -> Mapping[str, float | tuple[float, ...]]:
    """The settings of a param_str by name: `'feat_stride': 16`, `'scales': !!python/tuple [4, 8]`, one per line.

    known: the allowed names. LayerError for others, and for anything that cannot be parsed.
    """
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    found: dict[str, float | tuple[float, ...]] = {}
    place = 0
    while place < len(inner):
        entry = _ENTRY.match(inner, place)
        if not entry:
            raise _not_understood(inner[place:])
        name = entry["name"]
        if name not in known or name in found:
            if name in found:
                raise LayerError(f'"{name}" is given twice in its param_str')
            near = did_you_mean(name, known) or f"Known: {', '.join(sorted(known))}."
            raise LayerError(f'unknown name "{name}" in its param_str', hint=near)
        found[name] = _value(entry)
        place = entry.end()
    return found


def _value(entry: re.Match[str]) -> float | tuple[float, ...]:
    if entry["number"] is not None:
        return float(entry["number"])
    parts = entry["row"].split(",") if entry["row"] is not None else re.findall(_NUMBER, entry["lines"])
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise _not_understood(entry[0]) from None


def _not_understood(text: str) -> LayerError:
    return LayerError(
        f'its param_str cannot be parsed from "{text[:40]}" on', hint="Expected numbers, or lists of them."
    )
