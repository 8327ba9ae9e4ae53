"""A seed's soak, in as many sittings as it takes: what has struck is saved after each fault, and gone on from."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from issgd_cli import datasets
from issgd_cli.datasets import prepared
from issgd_cli.files import write_text
from tests.benchmarks.report import commit, machine
from tests.chaos.faults import FAULTS
from tests.chaos.remains import look_at
from tests.chaos.run import Run
from tests.chaos.soak import SETTINGS, UNDER_WAY, Outcome, Struck, plan, soak
from tests.chaos.strikes import Random

PATIENCE = 150.0  # seconds; the run itself waits for its database for 90
TEST_IMAGES = 400  # of 10,000: behind each barrier all are scored
# A run that is over before its faults are is followed by another: of what it is given to do only the rest is done in
# vain. A relaxed master trains on while its database is frozen, so it is given more, and larger steps.
STEPS = {"exact": 4800, "relaxed": 6000, "peers": 6000}
AUDITS = 10  # a run
LARGER = ("--set", "model.hidden=[256, 256]")
MODES = ("exact", "relaxed")  # of a soak, unless it is one of peers
PEERS: dict[str, object] = {
    **{"cluster.roles": "peers", "master.mode": "relaxed", "peers.count": 2},
    **{"worker.count": 0, "worker.chunk_size": 1},
}


@dataclass
class Seed:
    """All that is known of a seed's soak; what its file holds.

    Attributes:
        seed, faults, modes: What was asked for: of the faults as many upon runs of each mode.
        seconds: Of all sittings.
        commits: Of the code that was struck, `+` where files of it were changed.
        machine: What it ran on.
        date: Of the last sitting.
        runs: In order.
    """

    seed: int
    faults: int
    seconds: float = 0.0
    commits: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    runs: list[Outcome] = field(default_factory=list)
    modes: list[str] = field(default_factory=lambda: [*MODES])

    def struck(self, mode: str | None = None) -> list[Struck]:
        """What has struck, upon all runs or those of a mode."""
        return [one for run in self.runs if mode in (None, run.mode) for one in run.struck]

    @property
    def is_whole(self) -> bool:
        """Every fault injected and survived, nothing lost."""
        return len(self.struck()) == self.faults and all(run.is_whole for run in self.runs)

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> "Seed":
        """What `save` wrote."""
        content = json.loads(path.read_text())
        runs = [Outcome(**{**run, "struck": [Struck(**one) for one in run["struck"]]}) for run in content.pop("runs")]
        return Seed(**content, runs=runs)


def planned(seed: int, faults: int, mode: str, modes: Sequence[str] = MODES) -> list[str]:
    """The faults upon a mode's runs, in order: a function of the seed."""
    number = modes.index(mode)
    count = faults // len(modes) + (number < faults % len(modes))
    return plan({kind: fault.every for kind, fault in FAULTS.items()}, count, np.random.default_rng([seed, number]))


def sit(place: Path, seed: int, faults: int, modes: Sequence[str] = MODES) -> Seed:
    """Does a seed's soak, or goes on where the last sitting was interrupted.

    Args:
        place: The seed's own folder: its data, its runs and what is known of them.
        seed: Which.
        faults: How many, all in all.
        modes: Of its runs, each a key of STEPS.
    """
    path = place / "soak.json"
    known = Seed.read(path) if path.exists() else Seed(seed, faults, modes=[*modes])
    if (known.seed, known.faults, known.modes) != (seed, faults, [*modes]):
        held = f"seed {known.seed} with {known.faults} faults upon {' and '.join(known.modes)} runs"
        raise SystemExit(f"{place} holds {held}: go on with it, or remove it.")
    copy = data(place)
    known.commits = list(dict.fromkeys([*known.commits, commit()]))
    known.machine, known.date = machine(), datetime.now(UTC).date().isoformat()
    before, started = known.seconds, time.monotonic()

    def saved() -> None:
        known.seconds = round(before + time.monotonic() - started, 1)
        known.save(path)

    try:
        for mode in modes:
            _soak_mode(place, copy, known, mode, saved)
    finally:
        saved()
    return known


def _soak_mode(place: Path, copy: Path, known: Seed, mode: str, saved: Callable[[], object]) -> None:
    """One run after the other until all of a mode's faults have struck, or one cannot be brought back."""
    kinds = planned(known.seed, known.faults, mode, known.modes)
    ours = [run for run in known.runs if run.mode == mode]
    while True:
        if ours and ours[-1].state != UNDER_WAY and not ours[-1].rows:
            look_at(_run_of(place, copy, ours[-1]), ours[-1], f"{mode}-undisturbed")
            saved()
        if ours and (ours[-1].is_lost or (ours[-1].state != UNDER_WAY and len(known.struck(mode)) == len(kinds))):
            return
        if not ours or ours[-1].state != UNDER_WAY:
            ours.append(Outcome(mode, f"{mode}-{len(ours)}"))
            known.runs.append(ours[-1])
        left = kinds[len(known.struck(mode)) :]
        soak(_run_of(place, copy, ours[-1]), ours[-1], left, lambda: _draws(known, mode), saved)


def _run_of(place: Path, copy: Path, outcome: Outcome) -> Run:
    run = run_of(place, outcome.mode, outcome.name, STEPS[outcome.mode], copy)
    run.starts = outcome.starts
    return run


def _draws(known: Seed, mode: str) -> Random:
    """What the next fault draws from."""
    return np.random.default_rng([known.seed, known.modes.index(mode), 1 + len(known.struck(mode))])


def run_of(place: Path, mode: str, name: str, steps: int, copy: Path | None) -> Run:
    """A run of a mode, not yet started, of so many steps."""
    settings: dict[str, object] = {"master.steps": steps, "monitor.audit_every_steps": steps // AUDITS}
    settings |= PEERS if mode == "peers" else {"master.mode": mode}
    larger = LARGER if mode != "exact" else ()
    words = (word for name, value in settings.items() for word in ("--set", f"{name}={value}"))
    called = {"master": "server", "worker": "peer"} if mode == "peers" else {}
    return Run(place, place / "data", name, (*SETTINGS, *larger, *words), copy=copy, patience=PATIENCE, called=called)


def data(place: Path) -> Path:
    """Prepares the seed's own data, unless they are there, with fewer test images; where their copy is."""
    copy, folder = place / "copy", place / "data"
    if not copy.exists():
        shutil.rmtree(folder, ignore_errors=True)
        directory = datasets.prepare("house-numbers", folder, size=2400)
        meta = prepared.read_meta(directory)
        for kind in ("images", "labels"):
            path = directory / f"test-{kind}.npy"
            np.save(path, np.load(path)[:TEST_IMAGES])
        meta["counts"]["test"] = TEST_IMAGES
        meta["fingerprint"] = prepared.fingerprint_of(directory, meta.pop("contents"))
        write_text(directory / "meta.json", json.dumps(meta))
        shutil.copytree(folder, place / "copying", dirs_exist_ok=True)
        (place / "copying").rename(copy)
    return copy
