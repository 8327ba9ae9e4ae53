"""A soak: a run is struck by one fault after the other, and then looked at: what of it is lost?

A fault strikes a little after the run has got over the one before: so many steps of its trace, drawn from the seed. One
that the run does not survive is noted, the run is mended and resumed, and the soak goes on: what follows counts, too.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.chaos.faults import FAULTS, Fault, is_clear
from tests.chaos.run import Run
from tests.chaos.strikes import Mend, Random, nothing, starts_again

SETTINGS = (
    *("--set", "master.checkpoint_every_seconds=0.3", "--set", "monitor.every_seconds=0.2"),
    *("--set", "cluster.restarts=1000"),  # faults come faster than the default expects of bad luck
)
UNDER_WAY = "under way"
GAP = 64  # steps between a run that is well again and the next fault, at most
PAUSE = 0.3  # seconds between two of its samples, about: a fault strikes anywhere between them
HASTE = 1 / 8  # of the faults strike at a launcher that has just been killed and resumed


class FailedError(Exception):
    """The run has not survived."""


class LostError(Exception):
    """It cannot be brought back either."""


class FinishedError(Exception):
    """The run has finished before a fault that should have ended it could do so."""


@dataclass(frozen=True)
class Struck:
    """One fault, and what became of the run.

    Attributes:
        kind: Which, a key of FAULTS.
        moment: `starting` where the launcher had not started its master yet when it struck, else `running`.
        step: Of the trace, when it struck.
        seconds: From then until the run had passed that step again.
        survived: "alone"; "resumed", where the fault is one that ends a run; or why it was not.
    """

    kind: str
    moment: str
    step: int
    seconds: float
    survived: str

    @property
    def is_survived(self) -> bool:
        """Whether the run did what it should, without our help but for `--resume` where that is the way."""
        return self.survived in ("alone", "resumed")


@dataclass
class Outcome:
    """A run and its soak.

    Attributes:
        mode: exact or relaxed.
        name: The run's.
        struck: What it has suffered, in order.
        starts: How often its launcher was started.
        rows: Of its trace.
        lost, extra: Rows of the undisturbed run's trace that it lacks, and rows that are not that one's (exact mode);
            audits that it lacks, and rows written twice (relaxed mode).
        doubled_events: Rows of events.csv that are there twice.
        state: At the end, of the manifest; `under way` before, and why where it could not be brought back.
    """

    mode: str
    name: str
    struck: list[Struck] = field(default_factory=list)
    starts: int = 0
    rows: int = 0
    lost: int = 0
    extra: int = 0
    doubled_events: int = 0
    state: str = UNDER_WAY

    @property
    def is_whole(self) -> bool:
        """Nothing lost, nothing twice, everything survived."""
        flaws = (self.lost, self.extra, self.doubled_events)
        return all(one.is_survived for one in self.struck) and flaws == (0, 0, 0) and self.state == "finished"

    @property
    def is_lost(self) -> bool:
        """Whether it could not be brought back."""
        return self.state.startswith("lost: ")


def plan(kinds: Mapping[str, int], count: int, random: Random) -> list[str]:
    """`count` faults in random order, every kind as often as the others or once more, but for rare ones.

    Args:
        kinds: Of each in how many rounds it comes once: 1 in every one, 4 in the first of four.
        count: How many.
        random: Draws the order.
    """
    planned: list[str] = []
    while len(planned) < count:
        number = planned.count(next(kind for kind, every in kinds.items() if every == 1))
        planned += random.permutation([kind for kind, every in kinds.items() if number % every == 0]).tolist()
    return planned[:count]


def soak(
    run: Run,
    outcome: Outcome,
    kinds: Sequence[str],
    draws: Callable[[], Random],
    saved: Callable[[], object] = nothing,
) -> None:
    """Does a run, or goes on with it, and strikes it until all faults have struck or it has finished.

    Args:
        run: Of which nothing is running.
        outcome: What is known of it; whatever strikes it is added, and `state` where it cannot be brought back.
        kinds: The faults that are left for it, in order.
        draws: What the next fault draws from: when it strikes, and what of its kind.
        saved: Called when there is more to know: after each start of ours, each fault, and the end.
    """
    try:
        run.abandon()  # a sitting that was killed has left it so
        run.repair()
        run.start()
        outcome.starts = run.starts
        saved()
        for kind in kinds:
            random = draws()
            due = run.step() + 1 + int(random.integers(GAP))
            if not _comes_on(run, outcome, lambda due=due: run.step() >= due, f"step {due}"):  # type: ignore[misc]
                break
            time.sleep(float(random.uniform(0, PAUSE)))
            try:
                outcome.struck.append(strike(run, kind, FAULTS[kind], random))
            except FinishedError:
                break
            outcome.starts = run.starts
            print(f"{outcome.name}: {outcome.struck[-1]}", flush=True)
            saved()
        _comes_on(run, outcome, run.is_over, "the end")
        outcome.state = run.state()
    except LostError as error:
        outcome.state = f"lost: {error}"
    finally:
        run.abandon()
        outcome.starts = run.starts
        saved()


def _comes_on(run: Run, outcome: Outcome, holds: Callable[[], object], what: str) -> bool:
    """Waits until something holds of a run that nobody strikes; False where it has finished.

    Raises:
        LostError: The run has failed, and cannot be brought back.
    """
    while True:
        size = run.size()
        try:
            run.awaits(holds, what)
            if not run.is_over():
                return True
            if run.is_finished():
                return False
            why = ending(run)
        except AssertionError as error:
            if run.size() != size:  # slow
                continue
            why = str(error)
        if not outcome.struck:
            raise LostError(why)
        last = outcome.struck[-1]  # it had seemed to be over
        outcome.struck[-1] = replace(last, survived=f"{last.survived}, but later: {bring_back(run, nothing, why)}")


def strike(run: Run, kind: str, fault: Fault, random: Random) -> Struck:
    """One fault, and the run's way back to where it was, with our help where it does not find it.

    Raises:
        FinishedError: The run was over before.
        LostError: It cannot be brought back.
    """
    mend: Mend = nothing
    started, before, moment, survived = time.monotonic(), run.step(), "", "alone"
    try:
        if random.random() < HASTE and fault.before is not starts_again:
            starts_again(run, random)
        fault.before(run, random)
        before, moment = run.step(), run.moment()
        mend = fault.strike(run, random)
        if fault.ends is not None:
            run.awaits(run.is_over, "the end")
            if run.is_finished():
                raise FinishedError
            if not is_clear(run.said().read_text(errors="replace"), run.launcher.returncode, fault):
                raise FailedError(f"not clear: {ending(run)}")
            mend()
            survived, mend, before = "resumed", nothing, max(before, run.step())
            run.start()
        # A sample later than the fault, once who was struck is there again: the run goes on.
        run.awaits(lambda: run.step() > before, f"a step after {before}")
        if run.is_over() and not run.is_finished():
            raise FailedError(ending(run))
    except Exception as error:  # a wait in vain, an end in the middle, or whatever else a strike may meet there
        if run.is_finished():
            mend()
            raise FinishedError from None
        survived = bring_back(run, mend, reason(run, error))
    return Struck(kind, moment, before, round(time.monotonic() - started, 1), survived)


def reason(run: Run, error: Exception) -> str:
    """Why a fault was not survived."""
    if isinstance(error, FailedError | AssertionError):
        return str(error)
    return f"{type(error).__name__}: {error}" + (f"; {ending(run)}" if run.is_over() else "")


def ending(run: Run) -> str:
    """How the launcher has ended, and the last that it said."""
    return f"status {run.launcher.returncode}: {run.last_line()}"


def bring_back(run: Run, mend: Mend, why: str) -> str:
    """Resumes a run that has failed, or hangs, until it is further than before; `why`, and what was noted beside it.

    Raises:
        LostError: It fails again, though all is repaired that can be.
    """
    for mending in (mend, run.repair):
        run.abandon()
        if run.is_finished():
            return why
        with contextlib.suppress(OSError):  # what it would mend may have been made anew
            mending()
        before = run.step()
        run.start()
        try:
            run.awaits(lambda before=before: run.step() > before, f"a step after {before}")  # type: ignore[misc]
        except AssertionError as error:
            why += f"; with --resume: {error}"
            continue
        if not run.is_over() or run.is_finished():
            return why
        why += f"; with --resume: {ending(run)}"
    raise LostError(why)
