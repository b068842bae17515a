"""Rendering of drawings with graphviz's program `dot`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ristretto_cli.caffe_io.files import check_writable, write_atomically
from ristretto_cli.caffe_io.temporary import undone_at_termination
from ristretto_cli.errors import RistrettoError

_PICTURES = frozenset({"svg", "png", "pdf", "ps", "jpg", "jpeg", "gif"})
_MAX_SECONDS = 300


def write_drawing(path: str, text: str) -> None:
    """Write a drawing: rendered if the file has the suffix of an image, otherwise as dot source.

    RistrettoError if the file cannot be written, or if `dot` is needed and is missing or fails.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    check_writable(path)
    write_atomically(path, _picture(path, kind, text) if kind in _PICTURES else text)


def _picture(path: str, kind: str, text: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise RistrettoError(
            "rendering an image requires graphviz (dot)",
            where=path,
            hint="Install graphviz, or write dot source: --output=net.dot.",
        )
    pipe = subprocess.PIPE
    try:
        with (
            subprocess.Popen([program, f"-T{kind}"], stdin=pipe, stdout=pipe, stderr=pipe) as dot,
            undone_at_termination(dot.kill),
        ):
            try:
                picture, said = dot.communicate(text.encode(), timeout=_MAX_SECONDS)
            except BaseException:
                dot.kill()
                raise
    except subprocess.TimeoutExpired:
        raise RistrettoError(
            f"dot did not finish within {_MAX_SECONDS} s", where=path, hint="Write dot source: --output=net.dot."
        ) from None
    if dot.returncode != 0:
        what = said.decode(errors="replace").strip()[-200:] or "no reason given"
        raise RistrettoError(f"dot ended with code {dot.returncode}: {what}", where=path)
    return picture
