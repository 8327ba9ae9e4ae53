"""What is left of a run after its soak, and the undisturbed one that it is held against."""

import shutil

import pandas as pd

from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder
from tests.chaos.run import Run
from tests.chaos.soak import Outcome
from tests.end_to_end.conftest import comparable

LONG = 1800.0  # seconds that an undisturbed run may take, beside others


def look_at(run: Run, outcome: Outcome, calm: str | None = None) -> None:
    """Fills in what is left of a run: see Outcome.

    Args:
        run: Of which nothing is running.
        outcome: Its own.
        calm: The undisturbed run's name, where several runs share one.
    """
    folder = RunFolder(run.folder)
    trace, events = traces.read(folder.trace), traces.read_events(folder.events)
    outcome.rows, outcome.doubled_events = len(trace), int(events.duplicated().sum())
    if outcome.mode == "exact":
        ours, theirs = comparable(run.folder), comparable(undisturbed(run, calm).folder)
        outcome.lost, outcome.extra = difference(theirs, ours), difference(ours, theirs)
        if (outcome.lost, outcome.extra) == (0, 0) and not ours.equals(theirs):  # equal as sets: their order is not
            outcome.extra = len(ours)
        return
    config = folder.read_config()
    every, last = config.monitor.audit_every_steps or 0, config.master.steps or 0
    audits = trace[trace.quantity == "audit/trace/in_use"].step
    outcome.lost = len({*range(0, last, every), last} - {*audits})
    outcome.extra = int(trace.duplicated(["step", "seconds", "quantity"]).sum() + audits.duplicated().sum())


def undisturbed(run: Run, name: str | None = None) -> Run:
    """The same run with nothing in its way, under a name of its own; done when it is first asked for."""
    calm = Run(run.place, run.data_dir, name or f"{run.name}-undisturbed", run.arguments, patience=LONG)
    results = run.place / "results" / calm.name
    if not results.exists() or calm.state() != "finished":
        shutil.rmtree(results, ignore_errors=True)  # a sitting that was interrupted has left it
        calm.start()
        try:
            if calm.end() != 0:
                raise AssertionError(f"the undisturbed run failed: {calm.last_line()}")
        finally:
            calm.abandon()
    return calm


def difference(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """How many rows of the one are not in the other, as often as they are in the one."""
    counts = one.value_counts().sub(other.value_counts(), fill_value=0)
    return int(counts.clip(lower=0).sum())
