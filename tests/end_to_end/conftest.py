"""The real command line, with real processes and a real server, on a small built-in dataset."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from issgd_cli.cli import main
from issgd_cli.runs import traces
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

    def here(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end within this process, since another loads torch anew: one that starts no actors."""
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(self.place)
            patch.setenv("ISSGD_DATABASE", "")
            patch.setattr(sys, "argv", ["issgd", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess([], int(ended.value.code or 0), out.getvalue(), err.getvalue())

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


def undisturbed(issgd: CommandLine, name: str, *arguments: object) -> pd.DataFrame:
    """`comparable` of the exact run with nothing in its way: on the simulated cluster, which gives the same bits.

    `test_exact_mode_gives_the_same_bits_on_real_processes_and_on_a_virtual_clock` holds them against each other. Only
    the local cluster leaves all audits to the end.
    """
    calm = f"{name}-undisturbed"
    done = issgd.here(*issgd.train(calm, "--cluster", "simulated", *arguments))
    assert done.returncode == 0, done.stderr
    table = comparable(issgd.run_of(calm))
    is_audit = table.quantity.str.startswith("audit/")
    return pd.concat([table[~is_audit], table[is_audit]], ignore_index=True)


@pytest.fixture
def find(data_dir: Path) -> Callable[[str], list[int]]:
    """`processes`, of these tests alone: others may run on this machine at the same time. Names of runs are unlike."""
    return lambda word: processes(word, f"--data-dir {data_dir}")


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until something holds; fails when it doesn't for long."""
    return wait_until
