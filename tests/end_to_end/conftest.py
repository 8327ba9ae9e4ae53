"""The real command line, with real processes and a real server, on a small built-in dataset."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from issgd_cli import traces
from tests.processes import PATIENCE, processes
from tests.processes import eventually as wait_until

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@dataclass(frozen=True)
class CommandLine:
    """`issgd` in a folder of its own."""

    place: Path
    data_dir: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Starts a command; its output is read by communicate()."""
        process = subprocess.Popen(
            [sys.executable, "-m", "issgd_cli", *map(str, arguments)],
            cwd=self.place,
            env={**os.environ, "ISSGD_DATABASE": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Ends what a failed test has left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def train(self, name: str, *arguments: object) -> tuple[object, ...]:
        """Arguments of a `train` of smoke.toml under another name."""
        return ("train", EXPERIMENTS / "smoke.toml", "--name", name, "--data-dir", self.data_dir, *arguments)

    def run_of(self, name: str) -> Path:
        """The folder of an experiment's only run."""
        (folder,) = (self.place / "results" / name).glob("*/seed-000")
        return folder


@pytest.fixture(scope="session")
def data_dir(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A small house-numbers, prepared through the command line."""

    def prepare(place: Path) -> None:
        prepared = CommandLine(place, place)("prepare", "house-numbers", "--size", "2400", "--data-dir", place)
        assert prepared.returncode == 0, prepared.stderr

    return shared("data", prepare)


@pytest.fixture
def issgd(tmp_path: Path, data_dir: Path) -> Iterator[CommandLine]:
    """The command line, in an empty folder."""
    command_line = CommandLine(tmp_path, data_dir)
    yield command_line
    command_line.end()


def comparable(folder: Path) -> pd.DataFrame:
    """The rows that exact mode repeats to the bit: all but the clock's."""
    table = traces.read(folder / "trace.csv")
    clocked = table.quantity.str.contains("seconds") | table.quantity.str.startswith("work/")
    return table[~clocked].drop(columns="seconds").reset_index(drop=True)


@pytest.fixture
def find(data_dir: Path) -> Callable[[str], list[int]]:
    """`processes`, of these tests alone: others may run on this machine at the same time. Names of runs are unlike."""
    return lambda word: processes(word, f"--data-dir {data_dir}")


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until something holds; fails when it doesn't for long."""
    return wait_until
