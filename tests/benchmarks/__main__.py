"""`make bench`: runs the benchmarks, prints a table, and keeps the figures of this machine."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from issgd_cli.database.binaries import binary_version, find_binary
from tests.benchmarks.report import COLUMNS, RESULTS, Row, machine, slug, write
from tests.benchmarks.scale import FULL, QUICK, Scale

NAMES = (
    "scoring",
    "networks",
    "choosing",
    "stepping",
    "methods",
    "publishing",
    "refreshing",
    "drawing",
    "monitoring",
    "preparing",
    "memory",
    "growth",
)
# As the local cluster starts its actors.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def run(name: str, scale: Scale) -> list[Row]:
    """The rows of one benchmark."""
    rows: list[Row] = importlib.import_module(f"tests.benchmarks.{name}").rows(scale)
    return rows


def description() -> dict[str, Any]:
    """Of the machine, with its database server."""
    return {**machine(), "server": binary_version(find_binary())}


def table(name: str, rows: Sequence[Row]) -> Table:
    """For the terminal."""
    shown = Table(*COLUMNS, title=name, title_justify="left")
    for row in rows:
        colour = {None: "", True: "green", False: "red"}[row.met if row.counts else None]
        shown.add_row(*row.cells(), style=colour)
    return shown


def main(arguments: Sequence[str]) -> None:
    """Runs the named benchmarks, or all; each one's rows are kept as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="name", help=f"{', '.join(NAMES)}; none: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    options = parser.parse_args(arguments)
    console, about = Console(width=None if sys.stdout.isatty() else 160), description()
    for name in options.names or NAMES:
        start = time.monotonic()
        print(f"{name} ...", flush=True)
        rows = run(name, QUICK if options.quick else FULL)
        console.print(table(name, rows))
        paths = [*write(options.results, about, {name: rows})]
        if name == "growth":
            growth = importlib.import_module("tests.benchmarks.growth")
            paths += growth.draw(rows, options.results / f"{slug(about)}-growth")
        print(f"{name}: {time.monotonic() - start:.0f} s; {', '.join(path.name for path in paths)}", flush=True)


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        # They are read when a process starts.
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks", *sys.argv[1:]], os.environ | ENVIRONMENT)
    main(sys.argv[1:])
