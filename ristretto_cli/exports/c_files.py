"""The files of a C program, around its steps and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ristretto_cli.exports.c_constants import comment, literal
from ristretto_cli.exports.c_helpers import Helpers, Number, widest
from ristretto_cli.exports.c_loop import Loop, Scratch
from ristretto_cli.exports.c_plan import Plan, bits_of, size_of, type_of
from ristretto_cli.exports.input_table import PixelOffsets, PixelTable
from ristretto_cli.exports.names import identifiers
from ristretto_cli.integers.program import Place, Program

_MAKEFILE = """\
# `make` builds and runs the test program; `make test TRACE=1` keeps all blobs in memory.
CFLAGS ?= -O3
STANDARD = -std=c99 -Wall -Wextra -pedantic

run: test
	./test

test: net.c weights.c test.c $(wildcard *.h)
	$(CC) $(STANDARD) $(CFLAGS) $(if $(TRACE),-D@NAME@_TRACE) net.c weights.c test.c -o $@

clean:
	rm -f test

.PHONY: run clean
"""


def dtype_of(place: Place) -> np.dtype[np.integer]:
    """The numpy type of a place's elements in memory."""
    return np.dtype(type_of(place).removesuffix("_t"))


class Files:
    """Writes the files of a program.

    prefix: of all external names. names: identifiers, by place. inputs, outputs: names and places of what the caller
    passes. memory, constants: bytes; vectors: whether there are any; set before `write`.
    """

    def __init__(self, program: Program, plan: Plan, prefix: str, names: Mapping[str, str]) -> None:
        self._program, self._plan, self._prefix, self._names = program, plan, prefix, names
        self.memory = self.constants = 0
        self.vectors = False
        blobs = [each.blob for each in program.inputs]
        keys = [each.blob if blobs.count(each.blob) == 1 else each.place.name for each in program.inputs]
        given = identifiers(keys)
        made = identifiers(program.outputs)
        self.inputs = [(f"in_{given[k]}", each.place) for k, each in zip(keys, program.inputs, strict=True)]
        self.outputs = [(f"out_{made[key]}", place) for key, place in program.outputs.items()]

    def begin_weights(self, source: IO[bytes], header: IO[bytes]) -> None:
        """The beginnings of weights.c and weights.h."""
        guard = f"{self._prefix.upper()}_WEIGHTS_H"
        source.write(b'/* The constants of net.c. */\n#include "weights.h"\n')
        header.write(f"/* The constants of net.c. */\n#ifndef {guard}\n#define {guard}\n\n".encode())
        header.write(b"#include <stdint.h>\n\n")

    def end_weights(self, header: IO[bytes]) -> None:
        """The end of weights.h."""
        header.write(b"\n#endif\n")

    def write(
        self,
        path: Path,
        functions: Sequence[Loop],
        helpers: Helpers,
        scratch: Scratch,
        pixels: Mapping[str, PixelTable | PixelOffsets],
    ) -> None:
        """Write all files but the constants and the vectors."""
        from_pixels = "\n".join(self._from_pixels(name, found, helpers) for name, found in pixels.items())
        steps = [function.text() for function in functions]
        parts = [self._head(), self._memory(scratch), helpers.text, *steps, self._run(functions), from_pixels]
        texts = {
            "net.h": self._header(pixels),
            "net.c": "\n".join(part for part in parts if part),
            "test.c": self._test(pixels),
            "Makefile": _MAKEFILE.replace("@NAME@", self._prefix.upper()),
        }
        for name, text in texts.items():
            (path / name).write_text(text, encoding="ascii", newline="\n")

    # net.h

    def _header(self, pixels: Mapping[str, PixelTable | PixelOffsets]) -> str:
        upper = self._prefix.upper()
        lines = [
            f"/* {comment(self._program.name)}, in integers.",
            "   An integer n of an array stands for the number n * 2^-FRAC_BITS / DIVISOR. Arrays are in the order",
            "   channels, height, width. Of equal class scores the first one counts.",
            f"   Constants: {self.constants} bytes; static memory: {self.memory} bytes, besides inputs and outputs. */",
            f"#ifndef {upper}_NET_H",
            f"#define {upper}_NET_H",
            "",
            "#include <stddef.h>",
            "#include <stdint.h>",
            "",
        ]
        for what, each in (("input", self.inputs), ("output", self.outputs)):
            for name, place in each:
                shape = " x ".join(map(str, place.shape)) or "1"
                macro = f"{upper}_{name.upper()}"
                lines += [
                    f"/* {what} {comment(name)}: {shape}, from {place.low} to {place.high} */",
                    f"#define {macro}_SIZE {size_of(place)}",
                    f"#define {macro}_FRAC_BITS ({place.frac_bits})",
                    f"#define {macro}_DIVISOR {place.divisor}",
                    "",
                ]
        lines += [
            "/* Compute the outputs of one image. Arrays must not overlap. Not reentrant: it uses static memory. */",
            f"{self._signature()};",
            "",
        ]
        for name in pixels:
            given, place = self._input_at(name)
            extents = " x ".join(map(str, place.shape))
            lines += [
                f"/* The input of {extents} pixels, in Caffe's order of channels: blue, green, red. */",
                f"{self._pixels_signature(given, place)};",
                "",
            ]
        lines += [
            f"#ifdef {upper}_TRACE",
            "/* All blobs of the last image, inputs first, in the order of computation. */",
            f"struct {self._prefix}_blob {{",
            "    const char *name;",
            "    const void *values;",
            "    size_t bytes;",
            "};",
            f"#define {upper}_BLOBS {len(self._program.places)}",
            f"extern const struct {self._prefix}_blob {self._prefix}_blobs[{upper}_BLOBS];",
            "#endif",
            "",
            "#endif",
        ]
        return "\n".join(lines) + "\n"

    def _signature(self) -> str:
        parameters = [f"const {type_of(place)} *{name}" for name, place in self.inputs]
        parameters += [f"{type_of(place)} *{name}" for name, place in self.outputs]
        return f"void {self._prefix}_run({', '.join(parameters)})"

    def _input_at(self, name: str) -> tuple[str, Place]:
        """The name and the place of an input, by the place's name."""
        return next((given, place) for given, place in self.inputs if place.name == name)

    def _pixels_function(self, given: str) -> str:
        return f"{self._prefix}{'' if len(self.inputs) == 1 else f'_{given}'}_from_pixels"

    def _pixels_signature(self, given: str, place: Place) -> str:
        return f"void {self._pixels_function(given)}(const uint8_t *pixels, {type_of(place)} *{given})"

    # net.c

    def _head(self) -> str:
        return (
            f"/* {comment(self._program.name)}, in integers; see net.h. */\n"
            '#include "net.h"\n#include "weights.h"\n\n'
            "/* Negative numbers are shifted to the right arithmetically, which C99 leaves to the compiler. */\n"
            f"typedef char {self._prefix}_needs_arithmetic_shifts[(-1 >> 1) == -1 ? 1 : -1];\n"
        )

    def _memory(self, scratch: Scratch) -> str:
        lines = [f"/* {self.memory} bytes; blobs that are not needed at the same time share an arena. */"]
        lines += [f"static int{bits}_t arena_{bits}[{size}];" for bits, size in self._plan.arenas.items() if size]
        for name, size in scratch.sizes.items():
            lines.append(f"static {name.partition('_')[2]}_t {name}[{size}];")
        upper = self._prefix.upper()
        places = self._program.places
        lines += ["", f"#ifdef {upper}_TRACE"]
        lines += [f"static {type_of(p)} trace_{self._names[p.name]}[{size_of(p)}];" for p in places]
        lines.append(f"const struct {self._prefix}_blob {self._prefix}_blobs[{upper}_BLOBS] = {{")
        for p in places:
            name = self._names[p.name]
            lines.append(f'    {{"{comment(p.name).replace(chr(34), "_")}", trace_{name}, sizeof trace_{name}}},')
        lines += [
            "};",
            "#define TRACE(blob, i, value) (trace_##blob[i] = (value))",
            "#else",
            "#define TRACE(blob, i, value) ((void)0)",
            "#endif",
            "",
        ]
        return "\n".join(lines)

    def _address(self, place: Place) -> str:
        root = self._plan.root(place)
        for name, each in [*self.inputs, *self.outputs]:
            if self._plan.root(each).name == root.name:
                return name
        at = self._plan.inside[root.name]
        address = f"arena_{at.bits} + {at.offset}" if at.offset else f"arena_{at.bits}"
        return f"({type_of(root)} *)({address})" if type_of(root)[0] == "u" else address

    def _run(self, functions: Sequence[Loop]) -> str:
        lines = [self._signature(), "{"]
        traced = [
            f"    for (int32_t i = 0; i < {size_of(place)}; ++i)\n"
            f"        TRACE({self._names[each.name]}, i, {name}[i]);"
            for name, place in self.inputs
            for each in (place, *self._plan.reshaped.get(place.name, ()))
        ]
        for function in functions:
            lines.append(f"    {function.name}({', '.join(self._address(each) for each in function.arguments)});")
        copies = [
            f"    for (int32_t i = 0; i < {size_of(place)}; ++i)\n"
            f"        {next(name for name, each in self.outputs if each is place)}[i] = {self._address(source)}[i];"
            for place, source in self._plan.copies
        ]
        guard = f"#ifdef {self._prefix.upper()}_TRACE"
        return "\n".join([*lines[:2], guard, *traced, "#endif", *lines[2:], *copies, "}"]) + "\n"

    def _from_pixels(self, place: str, found: PixelTable | PixelOffsets, helpers: Helpers) -> str:
        given, into = self._input_at(place)
        prefix = f"{self._prefix}_{self._names[place]}_pixel"
        channels, extent = into.shape[0], size_of(into) // into.shape[0]
        if isinstance(found, PixelTable):
            body = (
                f"    for (int32_t c = 0; c < {channels}; ++c)\n        for (int32_t i = 0; i < {extent}; ++i)\n"
                f"            {given}[c * {extent} + i] = {prefix}_table[c * 256 + pixels[c * {extent} + i]];\n"
            )
        else:
            low, high = int(found.offsets.min()), int(found.offsets.max())
            ends = found.factor * 255, 0
            bounds = low + min(ends), high + max(ends)
            kind = widest(bounds, (low, high), (min(ends), max(ends)))
            text = f"({kind})pixels[i] * {literal(found.factor, kind)} + {prefix}_offsets[i]"
            number = helpers.clamped(Number(text, kind, *bounds), into.low, into.high)
            body = (
                f"    for (int32_t i = 0; i < {size_of(into)}; ++i)\n"
                f"        {given}[i] = ({type_of(into)})({number.text});\n"
            )
        return f"{self._pixels_signature(given, into)}\n{{\n{body}}}\n"

    # test.c

    def _test(self, pixels: Mapping[str, PixelTable | PixelOffsets]) -> str:
        upper = self._prefix.upper()
        arrays = [*self.inputs, *self.outputs]
        call = f"{self._prefix}_run({', '.join(name for name, _ in arrays)});"
        lines = [
            "/* Tests net.c: without arguments on the images in vectors.h; with IN OUT on those in a file.",
            "   Files have integers as they are in memory, image by image: all inputs in IN, all outputs in OUT, or",
            f"   all blobs if {upper}_TRACE is defined. With -p IN OUT, the inputs are pixels, one byte each. */",
            "#include <stdio.h>",
            "#include <string.h>",
            '#include "net.h"',
            '#include "vectors.h"' if self.vectors else "#define VECTORS 0",
            "",
            *(f"static {type_of(place)} {name}[{size_of(place)}];" for name, place in arrays),
            "",
            "static int run_file(const char *from, const char *to, int pixels)",
            "{",
            '    FILE *in = fopen(from, "rb");',
            '    FILE *out = in ? fopen(to, "wb") : NULL;',
            "    int done = 0;",
            "    if (!out) {",
            '        fprintf(stderr, "error: %s cannot be opened\\n", in ? to : from);',
            "        if (in)",
            "            fclose(in);",
            "        return 2;",
            "    }",
            "    for (;;) {",
        ]
        for position, (name, place) in enumerate(self.inputs):
            lines += self._read(name, place, place.name in pixels, first=position == 0)
        lines += [
            f"        {call}",
            f"#ifdef {upper}_TRACE",
            f"        for (int i = 0; i < {upper}_BLOBS; ++i)",
            f"            fwrite({self._prefix}_blobs[i].values, 1, {self._prefix}_blobs[i].bytes, out);",
            "#else",
            *(f"        fwrite({name}, sizeof {name}[0], {size_of(place)}, out);" for name, place in self.outputs),
            "#endif",
            "    }",
            "end:",
            "    if (ferror(in) || ferror(out))",
            "        done = 0;",
            "    fclose(in);",
            "    if (fclose(out) != 0 || !done) {",
            '        fprintf(stderr, "error: %s has no whole number of images, or %s cannot be written\\n", from, to);',
            "        return 2;",
            "    }",
            "    return 0;",
            "}",
            "",
            "static int run_vectors(void)",
            "{",
            "    long differing = 0;",
        ]
        if self.vectors:
            lines.append("    for (int image = 0; image < VECTORS; ++image) {")
            lines += [f"        memcpy({name}, vectors_{name}[image], sizeof {name});" for name, _ in self.inputs]
            lines.append(f"        {call}")
            for name, place in self.outputs:
                kind = "long long" if bits_of(type_of(place)) > 32 else "long"
                lines += [
                    f"        for (int32_t i = 0; i < {size_of(place)}; ++i)",
                    f"            if ({name}[i] != vectors_{name}[image][i] && ++differing <= 10)",
                    f'                printf("image %d: {name}[%ld] is %{"ll" if kind == "long long" else "l"}d, not '
                    f'%{"ll" if kind == "long long" else "l"}d\\n", image, (long)i, ({kind}){name}[i],',
                    f"                       ({kind})vectors_{name}[image][i]);",
                ]
            lines.append("    }")
        lines += [
            '    printf("%d images: %ld values differ\\n", VECTORS, differing);',
            "    return differing != 0;",
            "}",
            "",
            "int main(int count, char **arguments)",
            "{",
            "    if (count == 1)",
            "        return run_vectors();",
            "    if (count == 3)",
            "        return run_file(arguments[1], arguments[2], 0);",
            '    if (count == 4 && strcmp(arguments[1], "-p") == 0)',
            "        return run_file(arguments[2], arguments[3], 1);",
            '    fprintf(stderr, "usage: %s [[-p] IN OUT]\\n", arguments[0]);',
            "    return 2;",
            "}",
        ]
        return "\n".join(lines) + "\n"

    def _read(self, name: str, place: Place, has_pixels: bool, *, first: bool) -> list[str]:
        size = size_of(place)
        lines = ["        {", "            size_t found;"]
        if has_pixels:
            lines += [
                f"            static uint8_t bytes[{size}];",
                "            if (pixels) {",
                f"                found = fread(bytes, 1, {size}, in);",
                f"                {self._pixels_function(name)}(bytes, {name});",
                "            } else",
                f"                found = fread({name}, sizeof {name}[0], {size}, in);",
            ]
        else:
            lines += [
                "            if (pixels) {",
                f'                fprintf(stderr, "error: the input {name} is not made of pixels\\n");',
                "                goto end;",
                "            }",
                f"            found = fread({name}, sizeof {name}[0], {size}, in);",
            ]
        lines += [f"            done = found == {size}{' || found == 0' if first else ''};"]
        lines += [f"            if (found != {size})", "                goto end;", "        }"]
        return lines
