"""What it takes to get where reshuffled SGD gets, at equal work: every method on every task, as a ratio to its work.

Of one seed a target is what reshuffled SGD's own run of that seed has in the end, its training loss, or at its best,
its test error, in the median of five audits; the ratio is the work at which the other run is there first, over that at
which reshuffled SGD is. Both curves are smoothed alike (claims/smoothing.py). All runs stop at one work; reshuffled
SGD's end is taken at four fifths of it, so that who takes a little more can be told from who never gets there: up to
1.19 of it with forty audits, 1.12 with twenty, since a curve's last two hold where it was before. A run that does not
get there, or has diverged, counts as infinite.

Where a rate is chosen for each method (experiments/selection.py), each target has the one that is best for it: that of
the lowest training loss, or of the lowest error on what was held out; the training loss is shown at the latter, too.
What chance alone makes of a ratio is shown by reshuffled SGD itself, against the target of another seed. Such ratios
hang together, so that of them no interval is told, but their range.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from issgd_cli.claims.choice import WORDS, chosen, ends, not_best
from issgd_cli.claims.evidence import Run, Runs, audits_told
from issgd_cli.claims.paired import difference
from issgd_cli.claims.targets import RUN, TARGETS, Target
from issgd_cli.claims.verdicts import PerSeed
from issgd_cli.config.config import Config
from issgd_cli.runs.folder import Measure

BASELINE = "reshuffled"
ANOTHER = "reshuffled, another seed"  # no method: what chance makes of ratios
RIVALS = ("infobatch", "dlis")  # the ones to be ahead of where they win
WON, VISIBLE = 0.8, 1.03  # of the work: what is aimed at; and what is worse than chance

Row = Mapping[str, PerSeed]  # method -> ratios


@dataclass(frozen=True)
class Board:
    """Of an experiment.

    Attributes:
        ratios: Target -> task -> method -> ratios, one a seed.
        configs: Target -> task -> method -> its configuration, at the setting that was chosen for it.
        ours: Methods that are this project's own.
        audits: On how many examples, in words.
        elsewhere: Target -> task -> methods that are shown at another setting than the one that is best for it.
        seconds: Task -> method -> seconds to the first target, of the same runs, in reshuffled SGD's.
        margins: Measure -> task -> method -> what it ends at, at the setting that is lowest by it and at the next.
        machines: What the runs were made on -> of which methods, and how many.
    """

    ratios: Mapping[str, Mapping[str, Row]]
    configs: Mapping[str, Mapping[str, Mapping[str, Config]]]
    ours: tuple[str, ...]
    audits: str
    elsewhere: Mapping[str, Mapping[str, Sequence[str]]]
    seconds: Mapping[str, Row]
    margins: Mapping[Measure, Mapping[str, Mapping[str, Sequence[float]]]]
    machines: Mapping[str, Mapping[str, int]]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for tasks in self.configs.values() for task in tasks))

    @property
    def methods(self) -> list[str]:
        """In the order of the experiment, the baseline first, and what chance makes of it."""
        found = dict.fromkeys(method for tasks in self.ratios.values() for row in tasks.values() for method in row)
        return sorted(found, key=lambda method: (method != BASELINE, method != ANOTHER))

    def rates(self, task: str, method: str) -> list[float]:
        """The learning rates at which a method is shown on a task: one, or for each target its own."""
        configs = [tasks.get(task, {}).get(method) for tasks in self.configs.values()]
        return list(dict.fromkeys(config.optimizer.learning_rate for config in configs if config))

    def standings(self, target: str) -> dict[str, Row]:
        """Task -> its row of those methods that are at the setting that is best for them: of others nothing is said."""
        elsewhere = self.elsewhere.get(target, {})
        return {
            task: {method: row[method] for method in row if len(row[method]) and method not in elsewhere.get(task, ())}
            for task, row in self.ratios[target].items()
        }

    def of(self, target: str, methods: Sequence[str]) -> list[PerSeed]:
        """On each task that one of these methods stands on, its ratios; of several those with the lowest median."""
        found = [[row[method] for method in methods if method in row] for row in self.standings(target).values()]
        return [min(rows, key=lambda ratios: ratios.median) for rows in found if rows]

    def over_tasks(self, target: str, methods: Sequence[str]) -> PerSeed:
        """The median over these tasks, of each seed that is there on all of them."""
        rows = self.of(target, methods)
        seeds = [seed for seed in rows[0].seeds if all(seed in row.seeds for row in rows)] if rows else []
        of_seed = [[row.values[row.seeds.index(seed)] for row in rows] for seed in seeds]
        return PerSeed(tuple(seeds), np.array([np.median(ratios) for ratios in of_seed]), ("never", "never"))

    def above(self, target: str, method: str, wholly: bool = True) -> list[str]:
        """The tasks on which a method takes visibly more work: by its whole interval, or by its median."""
        found = []
        for task, row in self.standings(target).items():
            if method in row and (interval := row[method].interval) is not None:
                found += [task] if (interval[0] if wholly else row[method].median) > VISIBLE else []
        return found

    def behind(self, target: str) -> dict[str, list[str]]:
        """Rival -> the tasks that it wins, taking less work than reshuffled SGD, and where it needs less than ours."""
        found: dict[str, list[str]] = {}
        for rival in RIVALS:
            for task, row in self.standings(target).items():
                ours = [row[method].median for method in self.ours if method in row]
                if rival in row and row[rival].median < 1 and ours:
                    found.setdefault(rival, []).extend([task] if row[rival].median < min(ours) else [])
        return found

    def plain(self) -> dict[str, Any]:
        """For board.json."""
        return {
            target: {task: {method: _plain(ratios) for method, ratios in row.items()} for task, row in rows.items()}
            for target, rows in self.ratios.items()
        } | {
            "learning rates": {
                target: {
                    task: {method: config.optimizer.learning_rate for method, config in configs.items()}
                    for task, configs in tasks.items()
                }
                for target, tasks in self.configs.items()
            },
            "over tasks": {
                target: {
                    method: _plain(self.over_tasks(target, [method])) for method in self.methods if method != ANOTHER
                }
                for target in self.ratios
            },
            "at other settings than the best": self.elsewhere,
            "seconds": {
                task: {method: _plain(found) for method, found in row.items()} for task, row in self.seconds.items()
            },
            "chosen by": self.margins,
            "machines": self.machines,
            "ours": list(self.ours),
            "audits": self.audits,
            "sentences": sentences(self),
        }


def board(tasks: Mapping[str, Runs]) -> Board:
    """Of an experiment's datasets; those without a finished run of reshuffled SGD are left out."""
    shown = {task: runs for task, runs in tasks.items() if any(run.finished for run in _base(runs))}
    ratios: dict[str, dict[str, Row]] = {}
    configs: dict[str, dict[str, dict[str, Config]]] = {}
    elsewhere: dict[str, dict[str, list[str]]] = {}
    has_choice = any(runs.choosing for runs in shown.values())
    for target in TARGETS if has_choice else (TARGETS[0], TARGETS[-1]):
        for task, of_task in shown.items():
            runs = chosen(of_task, target.by)
            if BASELINE in not_best(runs, target.by):
                continue  # nobody is held against it where it is not at its best
            row = {method: of_method(runs, method, target) for method in runs.methods}
            if any(len(found) for found in row.values()):
                ratios.setdefault(target.name, {})[task] = {**row, ANOTHER: of_another_seed(runs, target)}
                of_methods = {method: runs.of(method=method)[0].config for method in runs.methods}
                configs.setdefault(target.name, {})[task] = of_methods
                elsewhere.setdefault(target.name, {})[task] = not_best(runs, target.by)
    every = [methods.items() for of_tasks in configs.values() for methods in of_tasks.values()]
    ours = dict.fromkeys(method for methods in every for method, config in methods if is_ours(config))
    audits = audits_told(run for runs in shown.values() for run in runs.runs)
    first = {task: chosen(shown[task], TARGETS[0].by) for task in ratios.get(TARGETS[0].name, ())}
    seconds = {
        task: {method: in_seconds(runs, method, TARGETS[0]) for method in runs.methods} for task, runs in first.items()
    }
    margins = {by: {task: _margins(runs, by) for task, runs in shown.items()} for by in WORDS if has_choice}
    return Board(ratios, configs, tuple(ours), audits, elsewhere, seconds, margins, _machines(shown.values()))


def _margins(runs: Runs, by: Measure) -> dict[str, list[float]]:
    methods = dict.fromkeys(run.method for run in runs.choosing)
    found = {method: ends([run for run in runs.choosing if run.method == method], by) for method in methods}
    return {method: sorted(of_settings.values())[:2] for method, of_settings in found.items()}


def _machines(tasks: Iterable[Runs]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for run in (run for runs in tasks for run in runs.judged or runs.runs):
        of_machine = found.setdefault(run.machine, {})
        of_machine[run.method] = of_machine.get(run.method, 0) + 1
    return found


def of_method(runs: Runs, method: str, target: Target) -> PerSeed:
    """Its ratios, one a seed; where reshuffled SGD alone diverged, it is ahead in any case: 0."""
    return _ratios(runs.of(method=method), _base(runs), method, target.ratio)


def in_seconds(runs: Runs, method: str, target: Target) -> PerSeed:
    """As `of_method`, of the seconds that training took; of two runs that are one process each, on one machine.

    Others' seconds are virtual, or those of several devices. What else a machine did in the meantime is in them.
    """

    def alone(run: Run) -> bool:
        return run.config.cluster.kind == "alone"

    def ratio(run: Run, base: Run) -> float | None:
        return target.ratio(run, base, "seconds") if run.machine == base.machine else None

    left, base = (list(filter(alone, each)) for each in (runs.of(method=method), _base(runs)))
    return _ratios(left, base, method, ratio)


def of_another_seed(runs: Runs, target: Target) -> PerSeed:
    """Reshuffled SGD's ratios, each seed's run against the target of the one before, the first's against the last's."""
    base = sorted(_base(runs), key=lambda run: run.seed)
    others = [replace(run, seed=before.seed) for run, before in zip(base, base[-1:] + base[:-1], strict=True)]
    return _ratios(others if len(base) > 1 else [], base, ANOTHER, target.ratio)


def _ratios(
    left: Sequence[Run], base: Sequence[Run], method: str, ratio: Callable[[Run, Run], float | None]
) -> PerSeed:
    found = difference(left, base, ratio, (method, BASELINE))
    values = np.where(np.isneginf(found.values), 0.0, found.values)
    return PerSeed(found.seeds, values, ("never", "never"))


def is_ours(config: Config) -> bool:
    """Whether a method is none of the papers', nor what everybody does."""
    proposal = config.proposal
    if proposal.method == "second-moment":
        return not vars(config)["second-moment"].rate_alone  # a control, which draws as everybody does
    return proposal.method == "looking" or proposal.smoothing == "second-moment"


def sentences(found: Board) -> list[str]:
    """What the board says, in words, of each target: computed, whatever it is."""
    lines = []
    for target in found.ratios if found.ours else ():
        rows = found.standings(target)
        ours = {method: [method] for method in found.ours}
        if len(ours) > 1:
            ours["the better of these on each, in hindsight"] = list(found.ours)
        told = [
            f"{told_of(found.over_tasks(target, methods))} with {name}, on {_counted(len(found.of(target, methods)))}"
            for name, methods in ours.items()
            if found.of(target, methods)
        ]
        if told:
            lines.append(
                f"To reach reshuffled SGD's {target} {_where(target)}, work relative to its own, the median over "
                f"tasks: {'; '.join(told)} (aimed at: {WON} at most)."
            )
        for method in found.ours:
            worse, visible = found.above(target, method), found.above(target, method, wholly=False)
            judged = sum(method in row and row[method].interval is not None for row in rows.values())
            lines.append(
                f"{method}, {target}: of {judged} tasks with seeds enough for an interval, it lies wholly above "
                f"{VISIBLE} on {len(worse)} ({', '.join(worse) or 'none'}), the median on {len(visible)} "
                f"({', '.join(visible) or 'none'})."
            )
        for rival, lost in found.behind(target).items():
            lines.append(f"{rival} takes less work than ours to reach the {target} on: {', '.join(lost) or 'no task'}.")
        others = {task: methods for task, methods in found.elsewhere.get(target, {}).items() if methods}
        if others:
            listed = "; ".join(f"{', '.join(methods)} on {task}" for task, methods in others.items())
            lines.append(f"Not yet at the rate that is best for it, {target}: {listed}.")
    return lines


def _where(target: str) -> str:
    """At what of its run a target is taken, in words."""
    at_best = next(one.at_best for one in TARGETS if one.name == target)
    return f"at its best within {RUN:.0%} of the work" if at_best else f"at {RUN:.0%} of the work"


def _base(runs: Runs) -> tuple[Run, ...]:
    return runs.of(method=BASELINE)


def _counted(tasks: int) -> str:
    return f"{tasks} task{'' if tasks == 1 else 's'}"


def told_of(ratios: PerSeed, spec: str = ".2f") -> str:
    """The median and its interval, and how many of the seeds get there where not all do."""
    if not len(ratios):
        return "unknown"
    if ratios.interval is None:
        return ", ".join(ratios.word(value, spec) for value in ratios.values)  # too few for a median to say much
    low, high = (ratios.word(limit, spec) for limit in ratios.interval)
    there = int(np.isfinite(ratios.values).sum())
    count = f"{there} of {len(ratios)}" if there < len(ratios) else f"{len(ratios)}"
    return f"{ratios.told(spec)} ({low} to {high}; {count})"


def _plain(ratios: PerSeed) -> dict[str, Any]:
    low, high = ratios.interval or (None, None)
    median = ratios.median if len(ratios) else None
    return {"ratio": median, "low": low, "high": high, "seeds": len(ratios), "values": ratios.values.tolist()}
