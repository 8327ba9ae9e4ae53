"""What it takes to get where reshuffled SGD gets, at equal work: every method on every task, as a ratio to its work.

Of one seed a target is what reshuffled SGD's own run of that seed has in the end, its training loss, or at its best,
its test error, in the median of five audits; the ratio is the work at which the other run is there first, over that at
which reshuffled SGD is. Both curves are smoothed alike (claims/smoothing.py). All runs stop at one work; reshuffled
SGD's end is taken at four fifths of it, so that who takes up to a fourth more can be told from who never gets there. A
run that does not, or has diverged, counts as infinite.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import difference
from issgd_cli.claims.smoothing import reached, smoothed
from issgd_cli.claims.verdicts import PerSeed
from issgd_cli.config.config import Config

BASELINE = "reshuffled"
RIVALS = ("infobatch", "dlis")  # the ones to be ahead of where they win
RUN = 0.8  # of reshuffled SGD's work: its run, as far as targets go
WON, VISIBLE = 0.8, 1.03  # of the work: what is aimed at; and what is worse than chance

Row = Mapping[str, PerSeed]  # method -> ratios


@dataclass(frozen=True)
class Target:
    """What is to be reached.

    Attributes:
        name: For people.
        quantity: Of traces.QUANTITIES.
        at_best: Whether reshuffled SGD's best is wanted; else what it has in the end.
    """

    name: str
    quantity: str
    at_best: bool

    def level(self, run: Run) -> float:
        """Of a run of reshuffled SGD; infinite where it has none."""
        series = run.series(self.quantity, "examples")
        if not run.finished or not len(series.values):
            return float("inf")
        values = smoothed(series.values)[series.positions <= RUN * series.positions[-1]]
        return float(values.min() if self.at_best else values[-1])

    def work(self, run: Run, level: float) -> float:
        """At which a run is there first, in examples."""
        series = run.series(self.quantity, "examples")
        return reached(series.positions, smoothed(series.values), level)

    def ratio(self, run: Run, base: Run) -> float | None:
        """Of two runs of one seed; None where either has no curve, or there was nothing to learn."""
        level = self.level(base)
        if not np.isfinite(level) or not len(run.series(self.quantity, "examples").values):
            return None
        own = self.work(base, level)
        return self.work(run, level) / own if own > 0 else None


TARGETS = (Target("training loss", "audit/loss/train", False), Target("test error", "audit/error/test", True))


@dataclass(frozen=True)
class Board:
    """Of an experiment.

    Attributes:
        ratios: Target -> task -> method -> ratios, one a seed.
        configs: Task -> method -> its configuration, at the setting that was chosen for it.
        ours: Methods that are this project's own.
    """

    ratios: Mapping[str, Mapping[str, Row]]
    configs: Mapping[str, Mapping[str, Config]]
    ours: tuple[str, ...]

    @property
    def tasks(self) -> list[str]:
        return list(self.configs)

    @property
    def methods(self) -> list[str]:
        """In the order of the experiment, the baseline first."""
        found = dict.fromkeys(method for methods in self.configs.values() for method in methods)
        return sorted(found, key=lambda method: method != BASELINE)

    def median(self, target: str, methods: Sequence[str]) -> float:
        """Over the tasks, of the ratio of the best of these methods on each; NaN where there is none."""
        best = [min(found) for found in self._medians(target, methods) if found]
        return float(np.median(best)) if best else float("nan")

    def _medians(self, target: str, methods: Sequence[str]) -> Iterator[list[float]]:
        for row in self.ratios[target].values():
            yield [row[method].median for method in methods if method in row and len(row[method])]

    def worse(self, target: str, method: str) -> list[str]:
        """The tasks on which the interval of a method lies wholly above what chance explains."""
        return [
            task
            for task, row in self.ratios[target].items()
            if method in row and (interval := row[method].interval) is not None and interval[0] > VISIBLE
        ]

    def behind(self, target: str) -> dict[str, list[str]]:
        """Rival -> the tasks that it wins, taking less work than reshuffled SGD, and where it needs less than ours."""
        found: dict[str, list[str]] = {}
        for rival in RIVALS:
            for task, row in self.ratios[target].items():
                ours = [row[method].median for method in self.ours if method in row and len(row[method])]
                if rival in row and len(row[rival]) and row[rival].median < 1 and ours:
                    found.setdefault(rival, []).extend([task] if row[rival].median < min(ours) else [])
        return found

    def plain(self) -> dict[str, Any]:
        """For board.json."""
        return {
            target: {task: {method: _plain(ratios) for method, ratios in row.items()} for task, row in rows.items()}
            for target, rows in self.ratios.items()
        } | {
            "learning rates": {
                task: {method: config.optimizer.learning_rate for method, config in configs.items()}
                for task, configs in self.configs.items()
            },
            "ours": list(self.ours),
            "sentences": sentences(self),
        }


def board(tasks: Mapping[str, Runs]) -> Board:
    """Of an experiment's datasets; those without a finished run of reshuffled SGD are left out."""
    shown = {task: runs for task, runs in tasks.items() if any(run.finished for run in _base(runs))}
    ratios: dict[str, dict[str, Row]] = {}
    for target in TARGETS:
        for task, runs in shown.items():
            row = {method: of_method(runs, method, target) for method in runs.methods}
            if any(len(found) for found in row.values()):
                ratios.setdefault(target.name, {})[task] = row
    configs = {
        task: {method: runs.of(method=method)[0].config for method in runs.methods} for task, runs in shown.items()
    }
    ours = dict.fromkeys(
        method for methods in configs.values() for method, config in methods.items() if is_ours(config)
    )
    return Board(ratios, configs, tuple(ours))


def of_method(runs: Runs, method: str, target: Target) -> PerSeed:
    """Its ratios, one a seed; where reshuffled SGD alone diverged, it is ahead in any case: 0."""
    found = difference(runs.of(method=method), _base(runs), target.ratio, (method, BASELINE))
    values = np.where(np.isneginf(found.values), 0.0, found.values)
    return PerSeed(found.seeds, values, ("never", "never"))


def is_ours(config: Config) -> bool:
    """Whether a method is none of the papers', nor what everybody does."""
    proposal = config.proposal
    return proposal.method in ("looking", "second-moment") or proposal.smoothing == "second-moment"


def sentences(found: Board) -> list[str]:
    """What the board says, in words, of each target: computed, whatever it is."""
    lines = []
    for target, rows in found.ratios.items():
        if not found.ours:
            break
        medians = {method: found.median(target, [method]) for method in found.ours}
        told = ", ".join(f"{method} {_told(ratio)}" for method, ratio in medians.items())
        best = found.median(target, found.ours)
        aim = f"; the best of them on each task {_told(best)}" if len(medians) > 1 else ""
        lines.append(
            f"To reach reshuffled SGD's {target} {_where(target)}, work relative to its own, the median of {len(rows)} "
            f"tasks: {told}{aim} (aimed at: {WON} at most)."
        )
        for method in found.ours:
            worse = found.worse(target, method)
            judged = sum(row[method].interval is not None for row in rows.values() if method in row)
            where = ", ".join(worse) or "none"
            lines.append(
                f"{method}, {target}: the interval lies wholly above {VISIBLE} on {len(worse)} of {judged} tasks with "
                f"seeds enough for one ({where})."
            )
        for rival, lost in found.behind(target).items():
            lines.append(f"{rival} takes less work than ours to reach the {target} on: {', '.join(lost) or 'no task'}.")
    return lines


def _where(target: str) -> str:
    """At what of its run a target is taken, in words."""
    at_best = next(one.at_best for one in TARGETS if one.name == target)
    return f"at its best within {RUN:.0%} of the work" if at_best else f"at {RUN:.0%} of the work"


def _base(runs: Runs) -> tuple[Run, ...]:
    return runs.of(method=BASELINE)


def _told(ratio: float) -> str:
    if np.isnan(ratio):
        return "unknown"
    return f"{ratio:.2f}" if np.isfinite(ratio) else "never"


def _plain(ratios: PerSeed) -> dict[str, Any]:
    low, high = ratios.interval or (None, None)
    median = ratios.median if len(ratios) else None
    return {"ratio": median, "low": low, "high": high, "seeds": len(ratios), "values": ratios.values.tolist()}
