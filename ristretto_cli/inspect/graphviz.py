"""Pictures by graphviz's program `dot`, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ristretto_cli.errors import RistrettoError
from ristretto_cli.wire.files import check_writable, write_atomically

_PICTURES = frozenset({"svg", "png", "pdf", "ps", "jpg", "jpeg", "gif"})
_MOST_SECONDS = 300


def write_drawing(path: str, text: str) -> None:
    """Write a drawing: as a picture where the file's ending is that of one, else its text.

    RistrettoError where the file cannot be written, or a picture is wanted and `dot` is missing or fails.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    check_writable(path)
    write_atomically(path, _picture(path, kind, text) if kind in _PICTURES else text)


def _picture(path: str, kind: str, text: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise RistrettoError(
            "a picture needs graphviz's program dot, which is not installed",
            where=path,
            remedy="Install graphviz, or write the drawing's text: --output=net.dot.",
        )
    try:
        done = subprocess.run(
            [program, f"-T{kind}"], input=text.encode(), capture_output=True, timeout=_MOST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RistrettoError(
            f"dot did not finish within {_MOST_SECONDS} s", where=path, remedy="Write the text: --output=net.dot."
        ) from None
    if done.returncode != 0:
        what = done.stderr.decode(errors="replace").strip()[-200:] or "it tells no reason"
        raise RistrettoError(f"dot ended with code {done.returncode}: {what}", where=path)
    return done.stdout
