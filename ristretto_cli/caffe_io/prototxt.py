"""Parser of prototxt files: messages in protobuf's text format, with the lines of their fields.

A separate parser, because users need all errors of a file at once, each with its line and the nearest
known name, and because it has to accept exactly what Caffe's C++ parser accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ristretto_cli.caffe_io.diagnostics import Diagnostics
from ristretto_cli.caffe_io.files import open_to_read
from ristretto_cli.caffe_io.fork_remedies import remedy
from ristretto_cli.caffe_io.messages import Message, is_repeated, is_required, message_class
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.caffe_io.scalars import BadValue, read_scalar
from ristretto_cli.caffe_io.tokens import Kind, Token, Tokens, shorten
from ristretto_cli.errors import Location, RistrettoError, did_you_mean
from ristretto_cli.registry import load_registry

__all__ = ["Parsed", "parse", "read", "to_text"]

_LAYER_TYPES = ("ristretto_cli.layers.layer_type:LAYERS", "ristretto_cli.sources.source:SOURCES")
_SAVE_AS_UTF8 = "Save it as UTF-8, without a mark."
_CLOSES = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True)
class Parsed:
    """A message read from text.

    lines: for each field of the message, and of nets inside it, the lines (from 1) on which its values start:
    lines["layer"][2] is that of the third layer. Fields of nets inside are named by their path: "net_param.layer",
    "test_net_param[0].layer".
    """

    message: Message
    lines: Mapping[str, tuple[int, ...]]
    file: str = ""

    def where(self, path: str, index: int = 0) -> Location:
        """The location of a value of a field; only the file if the line is unknown."""
        lines = self.lines.get(path, ())
        return Location(self.file, lines[index] if index < len(lines) else 0)


def read(path: str | Path, message_name: str) -> Parsed:
    """The message in a file. RistrettoError(s) if it cannot be read, is not text, or has errors."""
    file = str(path)
    with open_to_read(path) as stream:
        data = stream.read(1 << 16)
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise RistrettoError("the file begins with the byte order mark of UTF-16", where=file, hint=_SAVE_AS_UTF8)
        if b"\0" in data:
            raise RistrettoError("this is not a text file", where=file, hint="Expected a prototxt, not a binary file.")
        data += stream.read()
    # Bytes that are not UTF-8 are allowed in comments; elsewhere the parser reports them.
    return parse(data.decode("utf-8", "surrogateescape"), message_name, file)


def parse(text: str, message_name: str, file: str) -> Parsed:
    """The message in a text; file: the name for errors. RistrettoError(s) for all its errors."""
    parser = _Parser(text, file)
    message = message_class(message_name)()
    parser.parse_fields(message, "", path="", opened=None)
    parser.diagnostics.raise_all()
    return Parsed(message, {path: tuple(lines) for path, lines in parser.lines.items()}, file)


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.lines: dict[str, list[int]] = {}
        self.diagnostics = Diagnostics(text, file)
        self._report = self.diagnostics.report
        self._line = self.diagnostics.line
        self._text = text
        self._tokens = Tokens(text, self._report)
        self._unclosed_at = -1
        self._tokens.next()

    def parse_fields(self, message: Message, close: str, path: str | None, opened: int | None) -> None:
        """Read fields into message, up to the symbol that closes it ("" for the end of the file).

        path: the prefix of the message's fields in `lines`; None if they are not recorded. opened: the offset of its
        start.
        """
        tokens = self._tokens
        faults = self.diagnostics.count
        seen: dict[str, int] = {}
        unknown: list[Token] = []
        while True:
            now = tokens.now
            if now.kind is Kind.END:
                if opened is not None:
                    self._report(opened, f'{message.DESCRIPTOR.name}: missing "{close}"')
                break
            if now.kind is Kind.SYMBOL and now.text in "}>":
                tokens.next()
                if close:
                    if now.text != close:
                        self._report(now.start, f'expected "{close}", found "{now.text}"')
                    break
                self._report(now.start, f'unmatched "{now.text}"')
            elif now.kind is Kind.NAME and close and self._begins_a_layer(message, now):
                if self._unclosed_at != now.start:  # once, not for each enclosing message
                    self._unclosed_at = now.start
                    what = f'expected "{close}" before this: {message.DESCRIPTOR.name} of line'
                    self._report(now.start, f"{what} {self._line(opened or 0)} is still open", "Add it.")
                break
            elif now.kind is Kind.NAME:
                self._parse_field(message, path, seen, unknown)
            else:
                self._report(now.start, f'expected a field of {message.DESCRIPTOR.name}, found "{shorten(now.text)}"')
                self._skip_line(now.start)
        if unknown:  # only now: the type of a layer may follow the fields that belong to it
            self._report_unknown(unknown, message, is_root=path == "")
        if self.diagnostics.count == faults:
            self._check_required(message, tokens.now.start if opened is None else opened)

    def _begins_a_layer(self, message: Message, token: Token) -> bool:
        """Whether a line begins with `layer`, which is not a field of the message: a brace is missing."""
        line = self._text[self._text.rfind("\n", 0, token.start) + 1 : token.start]
        known = message.DESCRIPTOR.fields_by_name
        return token.text in ("layer", "layers") and token.text not in known and not line.strip()

    def _parse_field(self, message: Message, path: str | None, seen: dict[str, int], unknown: list[Token]) -> None:
        tokens = self._tokens
        name = tokens.next()
        field = message.DESCRIPTOR.fields_by_name.get(name.text)
        if field is None:
            # Forks let any layer choose an engine; which one computes it changes nothing here.
            if name.text != "engine" or not _is_setting_of_layer(message.DESCRIPTOR):
                unknown.append(name)
            self._skip_value(name.start)
        else:
            repeated = is_repeated(field)
            if not repeated and name.text in seen:
                first = self._line(seen[name.text])
                self._report(
                    name.start,
                    f'"{name.text}" of {message.DESCRIPTOR.name} is given twice, first on line {first}',
                    "Remove one of them.",
                )
                self._skip_value(name.start)
            else:
                seen.setdefault(name.text, name.start)
                self._parse_values(message, field, name.start, path)
        _ = tokens.take(";") or tokens.take(",")

    def _parse_values(self, message: Message, field: FieldDescriptor, start: int, path: str | None) -> None:
        tokens = self._tokens
        colon = tokens.take(":")
        is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        if not is_message and not colon:
            self._report(tokens.now.start, f'expected ":" after {field.name}, {self._found()}')
            self._skip_value(start)
        elif is_repeated(field) and tokens.take("["):
            self._parse_list(message, field, path)
        else:
            self._parse_value(message, field, start, path)

    def _parse_list(self, message: Message, field: FieldDescriptor, path: str | None) -> None:
        tokens = self._tokens
        start = tokens.before.start
        if tokens.take("]"):
            return
        while self._parse_value(message, field, tokens.now.start, path):
            if tokens.take("]"):
                return
            if not tokens.take(","):
                self._report(tokens.now.start, f'expected "," or "]" in the list, {self._found()}')
                if tokens.now.kind is Kind.SYMBOL and tokens.now.text in "}>":
                    return  # closes the enclosing message
                break
        self._skip_to_close("]", start)

    def _parse_value(self, message: Message, field: FieldDescriptor, start: int, path: str | None) -> bool:
        """Read one value of a field that starts at `start`; returns false if it was invalid and skipped."""
        tokens = self._tokens
        if path is not None:
            self.lines.setdefault(path + field.name, []).append(self._line(start))
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            close = _CLOSES.get(tokens.now.text, "") if tokens.now.kind is Kind.SYMBOL else ""
            if close not in ("}", ">"):
                self._report(tokens.now.start, f'expected "{{" after {field.name}, {self._found()}')
                self._skip_value(start)
                return False
            tokens.next()
            if is_repeated(field):
                child = getattr(message, field.name).add()
            else:
                child = getattr(message, field.name)
                child.SetInParent()
            self.parse_fields(child, close, self._path_inside(field, path), start)
            return True
        try:
            value = read_scalar(tokens, field)
        except BadValue as fault:
            self._report(fault.offset, fault.what, fault.hint)
            if not fault.consumed:
                self._skip_value(start)
            return fault.consumed
        if is_repeated(field):
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
        return True

    def _path_inside(self, field: FieldDescriptor, path: str | None) -> str | None:
        if path is None or field.message_type is None or field.message_type.name != "NetParameter":
            return None
        index = f"[{len(self.lines[path + field.name]) - 1}]" if is_repeated(field) else ""
        return f"{path}{field.name}{index}."

    def _check_required(self, message: Message, start: int) -> None:
        missing = [
            field.name for field in message.DESCRIPTOR.fields if is_required(field) and not message.HasField(field.name)
        ]
        if missing:
            self._report(start, f"{message.DESCRIPTOR.name}: missing {', '.join(missing)}", "Add it.")

    def _report_unknown(self, names: list[Token], message: Message, *, is_root: bool) -> None:
        parent = message.DESCRIPTOR
        if parent.name == "LayerParameter" and message.type and (types := _types_without(message.type)):
            what = f'layer "{message.name}" has the unknown type "{message.type}"'
            near = did_you_mean(message.type, types) or "It may be a layer of a fork of Caffe that is not supported."
            self._report(names[0].start, f"{what}, and {shorten(names[0].text)} is unknown, too", near)
            return
        for name in names:
            hint = ""
            if not self.diagnostics.is_full and len(name.text) < 80:
                hint = remedy(parent.name, name.text) or _near_field(name.text, parent)
                if is_root:
                    hint = _other_kind_of_file(name.text, parent) or hint
            self._report(name.start, f'unknown field "{shorten(name.text)}" in {parent.name}', hint)

    def _found(self) -> str:
        now = self._tokens.now
        return f"found {now.text}" if now.kind is Kind.END else f'found "{shorten(now.text)}"'

    # recovery after an error

    def _skip_value(self, start: int) -> None:
        """Skip the value of a field that starts at `start`."""
        tokens = self._tokens
        tokens.take(":")
        now = tokens.now
        if now.kind is Kind.SYMBOL and now.text in _CLOSES:
            tokens.next()
            self._skip_to_close(_CLOSES[now.text], now.start)
        elif now.kind is Kind.SYMBOL and now.text not in "-}>],;":
            self._skip_line(start)
        elif now.kind is not Kind.NAME or self._line(now.start) == self._line(start):
            # A name on the next line is probably the next field.
            tokens.take("-")
            while tokens.now.kind is Kind.STRING:
                tokens.next()
            if tokens.before.kind is not Kind.STRING and tokens.now.kind in (
                Kind.NAME,
                Kind.INTEGER,
                Kind.FLOAT,
            ):
                tokens.next()

    def _skip_to_close(self, close: str, opened: int) -> None:
        tokens = self._tokens
        closes = [close]
        while closes:
            token = tokens.next()
            if token.kind is Kind.END:
                self._report(opened, f'missing "{close}"')
                return
            if token.kind is Kind.SYMBOL:
                if token.text in _CLOSES:
                    closes.append(_CLOSES[token.text])
                elif token.text == closes[-1]:
                    closes.pop()

    def _skip_line(self, start: int) -> None:
        """Skip to the first token after the line of an offset, or to the end of the current message."""
        tokens = self._tokens
        line = self._line(start)
        while tokens.now.kind is not Kind.END and self._line(tokens.now.start) <= line:
            now = tokens.now
            if now.kind is Kind.SYMBOL and now.text in "}>":
                return
            tokens.next()
            if now.kind is Kind.SYMBOL and now.text in _CLOSES:
                self._skip_to_close(_CLOSES[now.text], now.start)


def _types_without(name: str) -> list[str]:
    """All layer types if a type is not among them, else none."""
    registries = [load_registry(location) for location in _LAYER_TYPES]
    return [] if any(name in each for each in registries) else [name for each in registries for name in each.names()]


def _is_setting_of_layer(parent: Descriptor) -> bool:
    """Whether a message is the value of a layer's *_param field."""
    layer = message_class("LayerParameter").DESCRIPTOR
    return any(field.name.endswith("_param") and field.message_type is parent for field in layer.fields)


def _near_field(name: str, parent: Descriptor) -> str:
    """A hint for an unknown field: a field with nearly the same name, or where forks of Caffe add fields, just that."""
    known = parent.fields_by_name
    suffix = "_param"
    if parent.name == "LayerParameter" and name.endswith(suffix):  # which says nothing about likeness
        stems = [field.removesuffix(suffix) for field in known if field.endswith(suffix)]
        near = did_you_mean(name.removesuffix(suffix), stems, likeness=0.85)
        return f"{near.rstrip('?')}{suffix}?" if near else "It is of a layer type that is not supported."
    if parent.name == "QuantizationParameter":  # fields of forks are like each other
        return did_you_mean(name, known, likeness=0.85) or "It is of a fork that is not supported."
    return did_you_mean(name, known)


def _other_kind_of_file(name: str, parent: Descriptor) -> str:
    kinds: dict[str, Any] = {"NetParameter": "net", "SolverParameter": "solver"}
    for kind, word in kinds.items():
        if kind != parent.name and parent.name in kinds and name in message_class(kind).DESCRIPTOR.fields_by_name:
            return f"It is a field of {kind}: is this file a {word}?"
    return ""
