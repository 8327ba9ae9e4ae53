"""A run of the real command line, as whoever does it harm sees it: its processes, its server, its files."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from issgd_cli.database.redis import RedisDatabase
from tests.end_to_end.conftest import EXPERIMENTS
from tests.processes import PATIENCE, eventually, processes, servers_of


class OverError(Exception):
    """What was waited for can no longer come: the run has ended."""


@dataclass
class Run:
    """A run of smoke.toml under a name of its own, started and resumed by `issgd train`.

    Attributes:
        place: Where it runs; its results and its output go there.
        data_dir: Prepared house-numbers.
        name: The experiment's.
        arguments: More for `train`.
        starts: How often the launcher was started.
    """

    place: Path
    data_dir: Path
    name: str
    arguments: tuple[str, ...]
    starts: int = 0
    launcher: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Starts the launcher, or starts it again with --resume."""
        command = [sys.executable, "-m", "issgd_cli", "train", str(EXPERIMENTS / "smoke.toml"), "--name", self.name]
        command += ["--data-dir", str(self.data_dir), *self.arguments, *(["--resume"] if self.starts else [])]
        self.starts += 1
        with self.said().open("wb") as output:
            self.launcher = subprocess.Popen(
                command, cwd=self.place, env={**os.environ, "ISSGD_DATABASE": ""}, stdout=output, stderr=output
            )

    def said(self) -> Path:
        """The file with what the last launcher has printed."""
        return self.place / f"{self.name}-{self.starts}.txt"

    def is_over(self) -> bool:
        """Whether the launcher has ended."""
        return self.launcher.poll() is not None

    def end(self) -> int:
        """Waits for the launcher's end; its exit status."""
        return self.launcher.wait(PATIENCE)

    @property
    def folder(self) -> Path:
        """The run's folder, once it is there."""
        (found,) = (self.place / "results" / self.name).glob("*/seed-000")
        return found

    def state(self) -> str:
        """As the manifest says."""
        return str(json.loads((self.folder / "manifest.json").read_text())["state"])

    def step(self) -> int:
        """The step of the trace's last whole row; -1 before there is one."""
        try:
            text = (self.folder / "trace.csv").read_bytes()[-400:].decode()
        except (OSError, ValueError):
            return -1
        steps = [line.split(",")[0] for line in text.split("\n")[1:-1]]
        return int(steps[-1]) if steps and steps[-1].isdecimal() else -1

    def comes_to(self, step: int, seconds: float = PATIENCE) -> bool:
        """Waits until the trace has come to a step; False if the run is over before."""
        eventually(lambda: self.step() >= step or self.is_over(), f"step {step} of {self.name}", seconds)
        return not self.is_over()

    def pids(self, actor: str) -> list[int]:
        """The actor's processes: none or one, but for `worker`."""
        return processes(f"{actor} --run {self.name}/", f"--data-dir {self.data_dir}")

    def pid(self, actor: str) -> int:
        """One process of the actor, waited for.

        Raises:
            OverError: The run has ended.
        """
        eventually(lambda: self.pids(actor) or self.is_over(), f"a {actor} of {self.name}")
        found = self.pids(actor)
        if not found:
            raise OverError
        return found[0]

    def server(self) -> int:
        """The database server's process, waited for."""
        eventually(lambda: servers_of(self.launcher.pid) or self.is_over(), f"a server of {self.name}")
        found = servers_of(self.launcher.pid)
        if not found:
            raise OverError
        return found[0]

    def url(self, actor: str) -> str:
        """The database's, with the actor's password, from where other users cannot look."""
        text = Path(f"/proc/{self.pid(actor)}/environ").read_bytes().decode(errors="replace")
        (url,) = re.findall(r"ISSGD_DATABASE=([^\0]+)", text)
        return str(url)

    def socket(self) -> Path:
        """The server's."""
        return Path(self.url("master").rpartition("@")[2])

    @property
    def run_name(self) -> str:
        """In the database."""
        return str(json.loads((self.folder / "manifest.json").read_text())["run_name"])

    def database(self, actor: str) -> RedisDatabase:
        """The run's, as the actor meets it."""
        return RedisDatabase(self.url(actor), self.run_name)

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a process, which may be gone already."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            raise OverError from None

    def abandon(self) -> None:
        """Ends everything at once."""
        if hasattr(self, "launcher"):
            self.launcher.kill()
            self.launcher.wait()
        for actor in ("master", "monitor", "worker"):
            for pid in self.pids(actor):
                os.kill(pid, signal.SIGKILL)
