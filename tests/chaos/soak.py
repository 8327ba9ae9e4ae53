"""A soak: a run is struck by one fault after the other, and then looked at: what of it is lost?

Faults are tied to the run's progress, not to the clock: each is due at a step, drawn from the seed, so that all of them
strike before the run's end and none before the run has got over the one before.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from issgd_cli import traces
from issgd_cli.runs import RunFolder
from tests.chaos.faults import FAULTS, Fault, is_clear
from tests.chaos.run import OverError, Run
from tests.end_to_end.conftest import comparable
from tests.processes import eventually

SETTINGS = (
    *("--set", "master.checkpoint_every_seconds=0.3", "--set", "monitor.every_seconds=0.2"),
    *("--set", "cluster.restarts=1000"),  # faults come faster than the default expects of bad luck
)


@dataclass(frozen=True)
class Struck:
    """One fault, and what became of the run.

    Attributes:
        kind: Which, a key of FAULTS.
        step: Of the trace, when it struck.
        seconds: From then until the run had passed that step again.
        survived: "alone"; "resumed", where the fault is one that ends a run; or why it was not.
    """

    kind: str
    step: int
    seconds: float
    survived: str


@dataclass(frozen=True)
class Outcome:
    """A run after its soak.

    Attributes:
        mode: exact or relaxed.
        planned: How many faults it was to suffer.
        struck: Those that it did, in order.
        rows: Of its trace.
        lost, extra: Rows of the undisturbed run's trace that it lacks, and rows that are not that one's (exact mode);
            audits that it lacks, and rows written twice (relaxed mode).
        doubled_events: Rows of events.csv that are there twice.
        state: At the end, of the manifest.
    """

    mode: str
    planned: int
    struck: list[Struck]
    rows: int
    lost: int
    extra: int
    doubled_events: int
    state: str

    @property
    def is_whole(self) -> bool:
        """Nothing lost, nothing twice, everything struck and survived."""
        survived = sum(one.survived in ("alone", "resumed") for one in self.struck)
        return survived == self.planned and (self.lost, self.extra, self.doubled_events, self.state) == (
            0,
            0,
            0,
            "finished",
        )


def plan(kinds: list[str], count: int, random: np.random.Generator) -> list[str]:
    """`count` faults, every kind as often as the others or once more, in random order."""
    rounds = [random.permutation(kinds) for _ in range(-(-count // len(kinds)))]
    return [str(kind) for kind in np.concatenate(rounds)[:count]]


def soak(run: Run, mode: str, kinds: list[str], steps: int, random: np.random.Generator) -> Outcome:
    """Does a run and strikes it.

    Args:
        run: Not yet started; of `steps` steps.
        mode: The run's.
        kinds: The faults, in order.
        steps: Of the run, many more than there are faults.
        random: Draws when a fault strikes, and what of its kind.
    """
    struck: list[Struck] = []
    # One in each of equal parts, and none in the last steps: a run's last checkpoint ends the soak.
    due = [int(0.9 * steps * (number + random.uniform(0.1, 0.9)) / len(kinds)) for number in range(len(kinds))]
    try:
        run.start()
        for kind, step in zip(kinds, due, strict=True):
            if not run.comes_to(step):
                break
            time.sleep(float(random.uniform(0, 0.3)))
            try:
                struck.append(strike(run, kind, FAULTS[kind], random))
            except OverError:
                break
            print(f"{mode}: {struck[-1]}", flush=True)
            if struck[-1].survived not in ("alone", "resumed"):
                break
        run.end()
    finally:
        run.abandon()
    return Outcome(mode, len(kinds), struck, *looked_at(run, mode), state=run.state())


def strike(run: Run, kind: str, fault: Fault, random: np.random.Generator) -> Struck:
    """One fault, and the run's way back to where it was.

    Raises:
        OverError: The run was over before it could be struck.
    """
    before, started = run.step(), time.monotonic()
    mend = fault.strike(run, random)
    survived = "alone"
    if fault.ends is not None:
        eventually(run.is_over, f"{run.name} ends of: {kind}")
        said = run.said().read_text()
        mend()
        if run.launcher.returncode == 0:
            raise OverError
        if not is_clear(said, fault.ends):
            return Struck(kind, before, 0.0, f"status {run.launcher.returncode}, not clear: {last_line(run)}")
        survived = "resumed"
        run.start()
    # A sample later than the fault, once who was struck is there again: the run goes on.
    eventually(lambda: run.step() > before or run.is_over(), f"{run.name} goes on after: {kind}")
    if run.is_over() and run.launcher.returncode != 0:
        survived = f"status {run.launcher.returncode}: {last_line(run)}"
    return Struck(kind, before, round(time.monotonic() - started, 1), survived)


def last_line(run: Run) -> str:
    """That the launcher has printed."""
    lines = run.said().read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def looked_at(run: Run, mode: str) -> tuple[int, int, int, int]:
    """Rows, rows lost, rows too many, doubled events: see Outcome."""
    folder = RunFolder(run.folder)
    trace, events = traces.read(folder.trace), traces.read_events(folder.events)
    doubled = int(events.duplicated().sum())
    if mode == "exact":
        ours, theirs = comparable(run.folder), comparable(undisturbed(run).folder)
        lost, extra = difference(theirs, ours), difference(ours, theirs)
        if (lost, extra) == (0, 0) and not ours.equals(theirs):  # as sets they are equal: their order is not
            extra = len(ours)
        return len(trace), lost, extra, doubled
    config = folder.read_config()
    every, last = config.monitor.audit_every_steps or 0, config.master.steps or 0
    expected = {*range(0, last, every), last}
    audits = trace[trace.quantity == "audit/trace/in_use"].step
    twice = trace.duplicated(["step", "seconds", "quantity"]).sum() + audits.duplicated().sum()
    return len(trace), len(expected - {*audits}), int(twice), doubled


def undisturbed(run: Run) -> Run:
    """The same run with nothing in its way; done when it is first asked for."""
    calm = Run(run.place, run.data_dir, f"{run.name}-undisturbed", run.arguments)
    if not (run.place / "results" / calm.name).exists():
        calm.start()
        if calm.end() != 0:
            raise AssertionError(f"the undisturbed run failed: {last_line(calm)}")
    return calm


def difference(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """How many rows of the one are not in the other, as often as they are in the one."""
    counts = one.value_counts().sub(other.value_counts(), fill_value=0)
    return int(counts.clip(lower=0).sum())
