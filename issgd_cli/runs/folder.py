"""A run's folder: where it lies, what is in it, and what state the run is in."""

import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

from issgd_cli.config.config import Config
from issgd_cli.config.passwords import without_password
from issgd_cli.config.toml import as_toml, read_toml
from issgd_cli.config.validation import resolve
from issgd_cli.errors import RunError
from issgd_cli.files import write_text, writing
from issgd_cli.locks import HeldError, held, is_held
from issgd_cli.runs.checkout import checkout

State = Literal["queued", "running", "finished", "failed", "interrupted"]

# What of a manifest is read again, and must be of this kind where it is there.
_MANIFEST = {
    **dict.fromkeys(("dataset", "failure", "machine", "restarts"), dict),
    "checkpointed": bool,
    **dict.fromkeys(("run_name", "start", "end", "setting", "method", "dataset_label"), str),
}

CHOOSING = "choosing"  # the `role` of a run that is there to choose its method's setting by
Measure = Literal["validation", "training"]  # what is to be lowest where that one is chosen (claims/choice.py)
LOOK_SECONDS = 0.3  # `issgd status` looks at a lock by taking it for an instant
ELSEWHERE = "Free space there, or choose another place with `--results-dir`."
PACKAGES = ("issgd", "torch", "numpy", "scipy", "redis", "pandas", "matplotlib")


@dataclass(frozen=True)
class RunFolder:
    """results/<experiment>/<run>/seed-000/: every file has its name here."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def trace(self) -> Path:
        return self.path / "trace.csv"

    @property
    def events(self) -> Path:
        return self.path / "events.csv"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint" / "checkpoint.npz"

    @property
    def audits(self) -> Path:
        """Parameters and weights in use saved at audit points, until the monitor has audited them."""
        return self.path / "audits"

    @property
    def parameters(self) -> Path:
        """The final parameters, one array for each of the model's."""
        return self.path / "parameters.npz"

    @property
    def jobs(self) -> Path:
        """The ids of the jobs that a scheduler was given for it, a line each, oldest first; there where there are."""
        return self.path / "jobs"

    def log_of(self, actor: str) -> Path:
        return self.logs / f"{actor}.log"

    def read_config(self) -> Config:
        """The resolved configuration that the run was started with."""
        return resolve(read_toml(self.config), str(self.config))

    def read_manifest(self) -> dict[str, Any]:
        """The manifest; its `state` is what is true now: a run whose process was killed reads as interrupted.

        Raises:
            RunError: There is none, or it is not a manifest.
        """
        manifest = self._manifest()
        # The lock of a job on another machine may not be seen from here: its scheduler knows.
        if manifest["state"] == "running" and manifest.get("cluster") != "slurm" and not is_locked(self.path):
            manifest |= {"state": "interrupted", "failure": {"actor": "launcher", "reason": "killed"}}
        return manifest

    def _manifest(self) -> dict[str, Any]:
        """As it stands in the file, checked for what is used of it."""
        try:
            manifest = json.loads(self.manifest.read_text())
            failure = manifest.get("failure") or {}
            wrong = [key for key, kind in _MANIFEST.items() if not isinstance(manifest.get(key), (kind, NoneType))]
            label = manifest.get("dataset_label") or ""  # names a folder of the report
            if not re.fullmatch(r"[A-Za-z0-9_-]*", label):
                raise ValueError(f"dataset_label is {label!r}")
            if wrong or manifest["state"] not in get_args(State) or (failure and not {"actor", "reason"} <= {*failure}):
                raise ValueError(f"{', '.join(wrong) or 'state or failure'} is of another kind")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{self.path} holds no readable manifest.json ({error}). Is it a run's folder?") from None
        return dict(manifest)

    def state(self) -> State | None:
        """None where no run was started."""
        return self.read_manifest()["state"] if self.manifest.exists() else None

    def update_manifest(self, **values: object) -> None:
        """Sets these keys of the manifest.

        Raises:
            RunError: It is unreadable, or cannot be written.
        """
        manifest = self._manifest() if self.manifest.exists() else {}
        with writing(self.manifest, ELSEWHERE):
            write_text(self.manifest, json.dumps({**manifest, **values}, indent=2) + "\n")


def run_folder(results: Path, config: Config, setting: str, method: str, dataset: str = "") -> RunFolder:
    """Where the run of this configuration lies: <results>/<name>/<setting>-<dataset>-<method>-<hash>/seed-000.

    Setting and dataset are left out where they have no names.
    """
    name = "-".join(part for part in (setting, dataset, method, config.hash()) if part)
    return RunFolder(results / config.name / name / f"seed-{config.seed:03d}")


def begin(
    folder: RunFolder, config: Config, command: list[str], resume: bool, begun: Literal["queued", "running"] = "running"
) -> None:
    """Makes the folder, its config.toml and its manifest in state `begun`; the caller holds the lock.

    Raises:
        RunError: The folder holds a run that is finished, or unfinished and `resume` was not asked for, or that had
            another configuration, or it cannot be written.
    """
    state = folder.state()
    if state == "finished":
        look = f"issgd plot {shlex.quote(str(folder.path))}"
        raise RunError(f"{folder.path} holds a finished run. Look at it with `{look}`, or remove it.")
    if state is not None and not resume:
        raise RunError(
            f"{folder.path} holds an unfinished run ({state}). Go on with it with `--resume`, or remove the folder."
        )
    if state is not None and (theirs := folder.read_config().hash()) != config.hash():
        raise RunError(f"{folder.path} was started with another configuration ({theirs}, now {config.hash()}).")
    with writing(folder.path, ELSEWHERE):
        for place in (folder.logs, folder.checkpoint.parent, folder.audits):
            place.mkdir(parents=True, exist_ok=True)
        write_text(folder.config, as_toml(config))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    started = {"start": now} if state is None else {"resumed": now}
    folder.update_manifest(
        **started,
        state=begun,
        failure=None,
        command=command,
        seed=config.seed,
        config_hash=config.hash(),
        end=None,
        **surroundings(config.cluster.devices),
    )


def end(folder: RunFolder, state: State, failure: dict[str, str] | None = None) -> None:
    """Writes how the run ended."""
    folder.update_manifest(state=state, failure=failure, end=datetime.now(UTC).isoformat(timespec="seconds"))


@contextlib.contextmanager
def locked(place: Path, what: str, patience_seconds: float = LOOK_SECONDS) -> Iterator[None]:
    """Holds `<place>/lock`, so that two processes never work on the same folder.

    Args:
        place: The folder.
        what: Who else may be at work there, for people.
        patience_seconds: How long to wait for who is.

    Raises:
        RunError: Another process holds it.
    """
    with contextlib.ExitStack() as stack:
        with writing(place, ELSEWHERE):
            place.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(place / "lock", patience_seconds))
            except HeldError as error:
                raise RunError(f"{what} is already at work on {place} ({error}). Wait for it.") from None
        yield


def is_locked(place: Path) -> bool:
    """Whether a living process holds the folder's lock."""
    return is_held(place / "lock")


def find(place: Path) -> list[RunFolder]:
    """Every run at or under a folder, in order of path; folders that are links are followed, each folder once."""
    found, seen = [], set[tuple[int, int]]()
    for path, folders, files in os.walk(place, followlinks=True):
        with contextlib.suppress(OSError):  # one that is gone meanwhile
            status = os.stat(path)
            identity = status.st_dev, status.st_ino
            if identity in seen:  # a link back, or a second one
                folders.clear()
                continue
            seen.add(identity)
        folders.sort()
        if "manifest.json" in files and "seed-" in Path(path).name:
            found.append(RunFolder(Path(path)))
            folders.clear()  # nothing in a run's folder is a run
    return sorted(found, key=lambda folder: folder.path)


def hash_of(file: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def surroundings(devices: Sequence[str] = ("auto",)) -> dict[str, Any]:
    """What a result on these devices may depend on beside its configuration: code, packages, machine."""
    gpus = [] if all(device == "cpu" for device in devices) else gpu_names()
    return {
        "git": checkout(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            **({"gpus": gpus} if gpus else {}),
        },
    }


def cpu_name() -> str:
    """The processor's model, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """This machine's from NVIDIA, as their driver tells it: torch would take a second, and memory of each GPU."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # there is no driver, or it does not answer
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip()]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def command_line() -> list[str]:
    """How this process was called, by the name a user types; passwords are left out."""
    return ["issgd", *(without_password(argument) for argument in sys.argv[1:])]
