"""What benchmarks find, and the two files it is kept in: <machine>.json and, drawn from it, <machine>.md.

Needs nothing but the standard library, so that `make bench-gpu` runs where nothing but torch is installed.
"""

import contextlib
import json
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from issgd_cli.runs.checkout import checkout
from tests.benchmarks.timing import Quartiles

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "bench"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
PACKAGES = ("torch", "numpy", "scipy", "redis", "opacus", "backpack-for-pytorch")
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        path: Which hot path.
        candidate: Which way to do it.
        size: Of the problem, for instance "batch 128".
        value: What is measured, in `unit`; None where there is nothing to measure, as `unit` says.
        unit: For instance "ms", or "x plain step", the ratio to that candidate of the same path.
        seconds: Median time, where the value is not a time itself.
        bar: The most that the value may be; it is met when the lower quartile meets it.
        counts: Whether the bar counts on this machine.
        note: What else a reader should know.
        at: Where a figure puts the row on its horizontal axis: N, or a number of processes.
    """

    path: str
    candidate: str
    size: str
    value: Quartiles | None
    unit: str
    seconds: float | None = None
    bar: float | None = None
    counts: bool = True
    note: str = ""
    at: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is; None where there is none."""
        return None if self.bar is None or self.value is None else self.value.lower <= self.bar

    @property
    def verdict(self) -> str:
        """The same in a word."""
        if self.met is None:
            return ""
        word = "met" if self.met else "missed"
        return word if self.counts else f"({word})"

    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        measured = self.unit
        if self.value is not None:
            lower, median, upper = map(number, self.value)
            measured = f"{median}{'' if lower == upper else f' ({lower}-{upper})'} {self.unit}"
        seconds = "" if self.seconds is None else duration(self.seconds)
        bar = "" if self.bar is None else f"<= {number(self.bar)}"
        return self.path, self.candidate, self.size, seconds, measured, bar, self.verdict


COLUMNS = ("path", "candidate", "size", "median time", "measured (quartiles)", "bar", "")


def number(value: float) -> str:
    """Three digits, with thousands grouped."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds / 1e-6)} us"


def cpu() -> dict[str, Any]:
    """Model, cores, and the instructions that decide how fast bfloat16 is."""
    lines: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in reversed(CPU_INFO.read_text().splitlines()):
            name, _, text = line.partition(":")
            lines[name.strip()] = text.strip()
    flags = lines.get("flags", "").split()
    return {
        "cpu": lines.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code; no names of hosts, users or folders."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        gibibytes = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {
        **cpu(),
        "memory_gib": gibibytes,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def slug(description: dict[str, Any]) -> str:
    """The machine's name for its files: the GPU's model, else the CPU's and its number of cores."""
    name = description.get("gpu") or f"{description['cpu']} {description['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def commit() -> str:
    """The commit that is measured, `+` where files of it are changed but for results; empty outside of a checkout."""
    found = checkout()
    return found["commit"] + ("+" if found["dirty"] else "") if found else ""


def write(directory: Path, description: dict[str, Any], found: dict[str, Iterable[Row]]) -> tuple[Path, Path]:
    """Puts these benchmarks' rows into the machine's two files; other benchmarks' rows stay as they are.

    Args:
        directory: Where the files lie.
        description: Of the machine, from `machine()`.
        found: The rows of each benchmark that was run.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{slug(description)}.json"
    content = json.loads(path.read_text()) if path.exists() else {"benchmarks": {}}
    content["machine"] = description
    when = {"date": datetime.now(UTC).date().isoformat(), "commit": commit()}
    for name, rows in found.items():
        content["benchmarks"][name] = {**when, "rows": [{**asdict(row), "met": row.met} for row in rows]}
    content["benchmarks"] = dict(sorted(content["benchmarks"].items()))
    path.write_text(json.dumps({"machine": description, "benchmarks": content["benchmarks"]}, indent=1) + "\n")
    table = path.with_suffix(".md")
    table.write_text(markdown(content))
    return path, table


def markdown(content: dict[str, Any]) -> str:
    """The JSON's content as a page."""
    about = content["machine"]
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    place = f"{about['cpu']}, {about['cores']} cores ({', '.join(about['flags']) or 'no flags known'})"
    lines = [
        f"# {about.get('gpu', about['cpu'])}",
        "",
        f"{place}, {about['memory_gib']} GiB, {about['system']}; Python {about['python']}, {packages}"
        + (f", {about['server']}" if "server" in about else "")
        + ".",
        "",
        "Medians with quartiles. A bar is met when the lower quartile meets it; (in brackets): it does not count on "
        "this machine.",
    ]
    for name, benchmark in content["benchmarks"].items():
        rows = [Row(**{**_without(row, "met"), "value": _quartiles(row["value"])}) for row in benchmark["rows"]]
        commit, changed = benchmark["commit"].removesuffix("+")[:12], benchmark["commit"].endswith("+")
        state = f"commit {commit or 'unknown'}{' with changes' if changed else ''}"
        lines += ["", f"## {name}", "", f"{benchmark['date']}, {state}", ""]
        lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(row.cells())} |" for row in rows]
        notes = dict.fromkeys(f"{row.candidate}: {row.note}" for row in rows if row.note)
        lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _quartiles(values: list[float] | None) -> Quartiles | None:
    return None if values is None else Quartiles(*values)


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
