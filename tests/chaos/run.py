"""A run of the real command line, as whoever does it harm sees it: its processes, its server, its files."""

import contextlib
import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from issgd_cli.database.redis import RedisDatabase
from tests.end_to_end.conftest import EXPERIMENTS
from tests.processes import PATIENCE, eventually, processes, servers_of

AWAY = ".away"  # ends the name of what a fault has moved away
BEGUN_SECONDS = 0.2  # of a processor: Python itself takes 0.03, and what a signal does before it is no matter of ours


class OverError(Exception):
    """What was waited for can no longer come: the run has ended."""


@dataclass
class Run:
    """A run of smoke.toml under a name of its own, started and resumed by `issgd train`.

    Attributes:
        place: Where it runs; its results and its output go there.
        data_dir: Prepared house-numbers.
        name: The experiment's; among all that share these data its own, since who ends it looks for processes by both.
        arguments: More for `train`.
        starts: How often the launcher was started.
        copy: Of `data_dir`, as it was before any fault; None: faults on it are not repaired.
        patience: Seconds that anything of the run is waited for.
        called: What the actors are called here that faults call by another name: of peers, a worker is a `peer`, and
            the master the parameter `server`.
    """

    place: Path
    data_dir: Path
    name: str
    arguments: tuple[str, ...]
    starts: int = 0
    copy: Path | None = None
    patience: float = PATIENCE
    called: Mapping[str, str] = field(default_factory=dict)
    launcher: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Starts the launcher, or starts it again with --resume."""
        command = [sys.executable, "-m", "issgd_cli", "train", str(EXPERIMENTS / "smoke.toml"), "--name", self.name]
        command += ["--data-dir", str(self.data_dir), *self.arguments, *(["--resume"] if self.starts else [])]
        self.starts += 1
        with self.said().open("wb") as output:
            self.launcher = subprocess.Popen(
                command,
                cwd=self.place,
                env={**os.environ, "ISSGD_DATABASE": ""},
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at the terminal is for whoever does the harm
            )

    def said(self) -> Path:
        """The file with what the last launcher has printed."""
        return self.place / f"{self.name}-{self.starts}.txt"

    def last_line(self) -> str:
        """That the launcher has printed."""
        lines = self.said().read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def is_over(self) -> bool:
        """Whether the launcher has ended."""
        return self.launcher.poll() is not None

    def is_finished(self) -> bool:
        """Whether it has ended well; its launcher may have been struck when all but its summary was done."""
        if not self.is_over() or self.launcher.returncode == 0:
            return self.is_over()
        try:
            return self.state() == "finished"
        except (OSError, ValueError):  # no folder yet
            return False

    def end(self) -> int:
        """Waits for the launcher's end; its exit status."""
        return self.launcher.wait(self.patience)

    def awaits(self, holds: Callable[[], object], what: str) -> None:
        """Waits until something of the run holds, or it is over.

        Raises:
            AssertionError: Neither comes in time.
        """
        eventually(lambda: holds() or self.is_over(), f"{what} of {self.name}", self.patience)

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

    def size(self) -> int:
        """Of the trace, in bytes."""
        with contextlib.suppress(OSError, ValueError):
            return (self.folder / "trace.csv").stat().st_size
        return 0

    def comes_to(self, step: int) -> bool:
        """Waits until the trace has come to a step; False if the run is over before."""
        self.awaits(lambda: self.step() >= step, f"step {step}")
        return not self.is_over()

    def pids(self, actor: str) -> list[int]:
        """The actor's processes, of whatever launcher: none or one, but for `worker`."""
        return processes(*self._words(actor))

    def living(self, actor: str) -> list[int]:
        """Those that this launcher has started."""
        return processes(*self._words(actor), parent=self.launcher.pid)

    def command(self, actor: str) -> str:
        """Of `issgd`, that starts one."""
        return self.called.get(actor, actor)

    def _words(self, actor: str) -> tuple[str, str]:
        """Of its processes' command lines."""
        return f"{self.command(actor)} --run {self.name}/", f"--data-dir {self.data_dir}"

    def moment(self) -> str:
        """`starting` until this launcher has started its master, then `running`."""
        return "running" if self.living("master") else "starting"

    def pid(self, actor: str) -> int:
        """One process of the actor that this launcher has started, waited for.

        Raises:
            OverError: The run has ended.
        """
        return self._waited_for(lambda: self.living(actor), f"a {actor}")

    def server(self) -> int:
        """The database server's process, waited for.

        Raises:
            OverError: The run has ended.
        """
        return self._waited_for(lambda: servers_of(self.launcher.pid), "a server")

    def _waited_for(self, look: Callable[[], list[int]], what: str) -> int:
        found: list[int] = []

        def is_there() -> bool:
            found.extend(look())
            return found != []

        self.awaits(is_there, what)
        if not found:
            raise OverError(f"no {what.removeprefix('a ')}: the run is over")
        return found[0]

    def has_begun(self) -> bool:
        """Whether the launcher's Python has come to run our code."""
        fields = Path(f"/proc/{self.launcher.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12]) >= BEGUN_SECONDS * os.sysconf("SC_CLK_TCK")

    def url(self, actor: str) -> str:
        """The database's, with the actor's password, from where other users cannot look."""
        text = Path(f"/proc/{self.pid(actor)}/environ").read_bytes().decode(errors="replace")
        (url,) = re.findall(r"ISSGD_DATABASE=([^\0]+)", text)
        return str(url)

    def socket(self) -> Path:
        """The server's."""
        return Path(unquote(self.url("master").rpartition("@")[2]))

    @property
    def run_name(self) -> str:
        """In the database."""
        return str(json.loads((self.folder / "manifest.json").read_text())["run_name"])

    def database(self, actor: str) -> RedisDatabase:
        """The run's, as the actor meets it."""
        return RedisDatabase(self.url(actor), self.run_name)

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a process, which may be gone already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def abandon(self) -> None:
        """Ends everything at once, what a soak that was killed has left of the run, too."""
        if hasattr(self, "launcher"):
            self.launcher.kill()
            self.launcher.wait()
        for pid in processes(f"--name {self.name} --data-dir {self.data_dir} "):
            self.kill(pid)
        for actor in ("master", "server", "monitor", "worker", "peer"):
            for pid in self.pids(actor):
                self.kill(pid)

    def repair(self) -> None:
        """Puts back what faults have moved away or changed, whether they still know of it or not."""
        for away in (self.place / "results" / self.name).glob(f"*/seed-000/*{AWAY}"):
            put_back(away)
        if self.copy is None:
            return
        for whole in self.copy.rglob("*.*"):
            ours = self.data_dir / whole.relative_to(self.copy)
            if whole.is_file() and not (ours.exists() and filecmp.cmp(whole, ours, shallow=False)):
                shutil.copy2(whole, ours)


def put_back(away: Path) -> None:
    """Moves to its place what was moved away from it; what was made there meanwhile, a lock for instance, goes."""
    path = away.with_name(away.name.removesuffix(AWAY))
    if path.is_dir():
        shutil.rmtree(path)
    away.replace(path)
