"""Time nets and print tables: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import busy
from benchmarks.measure import COMMANDS, STATIC_QDQ, measure
from benchmarks.modes import MODES_TIMED
from benchmarks.nets import NETS
from benchmarks.once import ONCE
from benchmarks.table import command_table, once_table, pass_table
from ristretto_cli.errors import RistrettoError

ROWS = [*MODES_TIMED, STATIC_QDQ, *COMMANDS, *ONCE]


def parse(args: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Passes of trimmed nets and whole searches, beside the float net on onnxruntime alone.",
        epilog=f"Nets: {', '.join(NETS)}. Rows: {', '.join(ROWS)}.",
    )
    parser.add_argument("nets", nargs="*", metavar="net", help="the nets to time; all by default")
    parser.add_argument("--rows", metavar="row,row...", help="the rows to measure; all by default")
    parser.add_argument("--threads", metavar="n,n...", default="1,0", help="threads of a pass, 0: one per core (1,0)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each pass or process is timed (7)")
    parser.add_argument("--images", type=int, help="images that a search scores a net with, in place of each net's own")
    parser.add_argument("--json", metavar="file", help="also write everything that was measured to this file")
    flags = parser.parse_args(args)
    flags.nets = flags.nets or list(NETS)
    flags.rows = flags.rows.split(",") if flags.rows else ROWS
    for what, asked, known in (("net", flags.nets, NETS), ("row", flags.rows, ROWS)):
        for name in asked:
            if name not in known:
                parser.error(f'no {what} is called "{name}"; there are {", ".join(known)}')
    try:
        flags.threads = [int(number) for number in flags.threads.split(",")]
    except ValueError:
        parser.error(f'"{flags.threads}" is no list of numbers such as 1,0')
    if min(flags.threads) < 0 or flags.rounds < 1 or (flags.images is not None and flags.images < 1):
        parser.error("threads begin at 0, rounds and images at 1")
    return flags


def main(args: list[str]) -> int:
    """Measure what is asked for; the tables go to stdout, progress to stderr."""
    flags = parse(args)
    logging.getLogger("ristretto").setLevel(logging.ERROR)
    warning = busy()
    if warning:
        print(warning, file=sys.stderr)
    passes, commands, once = [], [], []
    for name in flags.nets:
        with tempfile.TemporaryDirectory(prefix="ristretto-benchmark-") as folder:
            for found in measure(
                name,
                NETS[name],
                Path(folder),
                rows=flags.rows,
                threads=flags.threads,
                rounds=flags.rounds,
                images=flags.images,
            ):
                print(found.told, file=sys.stderr)
                passes += found.passes
                commands += found.commands
                once += found.once
    tables = (pass_table(passes), command_table(commands), once_table(once))
    print("\n\n".join(table for table in tables if table))
    if warning:
        print(f"\n{warning}")
    if flags.json is not None:
        measured = {
            "warning": warning,
            "passes": [asdict(each) for each in passes],
            "commands": [asdict(each) for each in commands],
            "once": [asdict(each) for each in once],
        }
        Path(flags.json).write_text(json.dumps(measured, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RistrettoError as error:
        sys.exit(str(error))
