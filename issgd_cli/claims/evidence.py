"""An experiment's runs as loaded from disk: what figures, tables and verdicts are made from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from issgd_cli.claims.quantiles import Axis, Series, series
from issgd_cli.config.config import Config
from issgd_cli.config.values import parse_smoothing
from issgd_cli.database.records import SPLITS
from issgd_cli.registries import METHODS
from issgd_cli.runs.folder import CHOOSING, State

if TYPE_CHECKING:
    import pandas as pd

FIRST_PAPER = "alain-2015"
PEERS = "alain-2015-peers"  # what it says of ASGD, and did not try
EXACT = "exact audits"  # on all examples
# What the master says of it, whoever reads its parameters, and behind a barrier a worker whose scores are refused.
DIVERGED = re.compile(r"not finite( at step| after step|\. The training may have diverged)|training has diverged")

# Name, how much of it, the share for validation, the split's seed; labels that are wrong, classes of unequal sizes.
Dataset = tuple[str, int | None, float, int, float, float]


@dataclass(frozen=True, eq=False)
class Run:
    """One run; its trace may be short or empty when it did not finish."""

    path: Path
    setting: str  # "" where the run was no part of a set of settings
    method: str
    seed: int
    state: State
    config: Config
    manifest: Mapping[str, Any]
    trace: "pd.DataFrame"  # columns of traces.Row
    dataset: str = ""  # the experiment's name for it; "" where that lists no datasets
    _known: dict[tuple[str, Axis], Series] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """<experiment>/<run>/<seed>: where the run lies, without the machine's own folders."""
        return "/".join(self.path.parts[-3:])

    @property
    def folder(self) -> str:
        """<setting>-<method>-<hash of its configuration>: the same for all its seeds."""
        return self.path.parent.name

    @property
    def finished(self) -> bool:
        return self.state == "finished"

    @property
    def machine(self) -> str:
        """What it was made on: its first GPU, or its processor; empty where the manifest does not say."""
        machine = self.manifest.get("machine") or {}
        return str(next(iter(machine.get("gpus") or ()), None) or machine.get("cpu") or "")

    @property
    def diverged(self) -> bool:
        """Whether it failed because its numbers were none any more."""
        failure = self.manifest.get("failure") or {}
        return self.state == "failed" and DIVERGED.search(str(failure.get("reason"))) is not None

    @property
    def chooses(self) -> bool:
        """Whether it is there to choose its method's setting by, and for nothing else."""
        return self.manifest.get("role") == CHOOSING

    @property
    def examples(self) -> Dataset:
        """Which examples it learns from; errors on two of these are no two numbers of one thing."""
        data = self.config.data
        kept = data.name, data.train_size, data.validation_fraction, data.split_seed
        return *kept, data.label_noise, data.imbalance

    @property
    def by_scores(self) -> bool:
        """Whether its method draws by what workers score."""
        return METHODS.parts[self.config.proposal.method].by_scores

    @property
    def paper(self) -> str:
        """The paper whose claims are about its method; empty of a baseline."""
        return METHODS.parts[self.config.proposal.method].paper

    @property
    def work(self) -> tuple[str, ...]:
        """What its method had to do: train on examples, look at some before, score them where it draws by scores."""
        return ("trained", "scored") if self.by_scores else ("trained", "looked_at")

    @property
    def audit_sample(self) -> int | None:
        """On how many random examples of each split its audits are; None: on all."""
        examples = self.config.monitor.audit_examples
        sizes = [(self.manifest.get("dataset") or {}).get(split) for split in SPLITS]
        whole = examples is not None and all(isinstance(size, int) and size <= examples for size in sizes)
        return None if whole else examples

    def series(self, quantity: str, axis: Axis = "steps") -> Series:
        """A quantity of traces.QUANTITIES along an axis; empty where it was not recorded."""
        if (quantity, axis) not in self._known:  # every claim asks again for each of its thresholds
            self._known[quantity, axis] = series(self.trace, quantity, axis, self.finished, self.work)
        return self._known[quantity, axis]


@dataclass(frozen=True)
class Runs:
    """All runs of an experiment on one dataset, finished or not."""

    name: str
    runs: tuple[Run, ...]
    expected: int  # how many the experiment asks for; where others choose, one of each method and seed
    choosing: tuple[Run, ...] = ()  # runs that were there to choose settings by: in no number, table or figure
    judged: tuple[Run, ...] = ()  # where there are such: all others, each under its setting; `runs` are some of them

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.setting for run in self.runs))

    @property
    def methods(self) -> tuple[str, ...]:
        """The paper's ISSGD and SGD first, as in its figures, then the others."""
        papers = [self.label("issgd"), self.label("sgd")]
        found = dict.fromkeys(run.method for run in self.runs)
        return tuple(sorted(found, key=lambda name: papers.index(name) if name in papers else len(papers)))

    @property
    def importance(self) -> str:
        """The label of the method whose proposal is shown: the paper's ISSGD, else the first that a paper is about.

        Empty: there is none.
        """
        return self.label("issgd") or next((run.method for run in self.runs if run.paper), "")

    @property
    def papers(self) -> tuple[str, ...]:
        """Whose claims these runs are about: of all whose methods are here, also where they are another's rivals.

        Where some are of peers: the first paper's, all of them.
        """
        found = {run.paper for run in self.runs} - {""}
        if any(run.config.cluster.roles == "peers" for run in self.runs):
            found |= {FIRST_PAPER, PEERS}
        return tuple(sorted(found)) or (FIRST_PAPER,)

    @property
    def virtual(self) -> bool:
        """Whether all seconds are those of a simulated cluster."""
        return bool(self.runs) and all(run.config.cluster.kind == "simulated" for run in self.runs)

    @property
    def finished(self) -> int:
        return sum(run.finished for run in self.runs)

    @property
    def failed(self) -> int:
        return sum(run.state == "failed" for run in self.runs)

    @property
    def unfinished(self) -> int:
        """Interrupted, or still running."""
        return len(self.runs) - self.finished - self.failed

    @property
    def missing(self) -> int:
        return max(self.expected - len(self.runs), 0)

    def of(self, setting: str | None = None, method: str | None = None) -> tuple[Run, ...]:
        """The runs of a setting, of a method, or of both."""
        return tuple(run for run in self.runs if setting in (None, run.setting) and method in (None, run.method))

    def of_first(self, setting: str, method: Literal["issgd", "sgd"]) -> tuple[Run, ...]:
        """A setting's runs of the paper's ISSGD or SGD, whatever their label."""
        return tuple(run for run in self.of(setting, self.label(method)) if is_papers(run))

    def label(self, method: Literal["issgd", "sgd"]) -> str:
        """The label of the paper's ISSGD or SGD: that name, else the only one of runs that are it; empty: none."""
        found = {run.method for run in self.runs if is_papers(run) and run.config.proposal.method == method}
        return method if method in found else found.pop() if len(found) == 1 else ""

    def datasets(self) -> dict[Dataset, tuple[str, ...]]:
        """The settings by what they learn from."""
        found: dict[Dataset, dict[str, None]] = {}
        for run in self.runs:
            found.setdefault(run.examples, {})[run.setting] = None
        return {dataset: tuple(settings) for dataset, settings in found.items()}

    def config(self, setting: str, method: str | None = None) -> Config | None:
        """The configuration that the setting's runs share but for the seed; None where there is no run."""
        runs = self.of(setting, method)
        return runs[0].config if runs else None

    def tally(self) -> str:
        """How many runs there are, in words; failed and missing ones are always said."""
        others = {"failed": self.failed, "unfinished": self.unfinished, "missing": self.missing}
        text = f"{self.finished} of {max(self.expected, len(self.runs))} runs finished"
        return ", ".join(
            [text, *(f"{count} {what}" for what, count in others.items() if count or what != "unfinished")]
        )


def audits_told(runs: Iterable[Run]) -> str:
    """What a text calls the audits of these runs: exact, or estimates on how many examples."""
    samples = sorted({run.audit_sample or 0 for run in runs})
    counts = " or ".join(f"{sample:,}" for sample in samples if sample)
    told = [EXACT] if 0 in samples or not samples else []
    if counts:
        told.append(f"audits that are estimates on a random sample of {counts} examples of each split")
    return " and ".join(told)


def is_papers(run: Run) -> bool:
    """Whether a run is of one of the paper's two methods as they are there: SGD, or ISSGD with a constant added.

    Without a limit on age `fill` is `drop` but for the first sweep, before everything is scored.
    """
    proposal = run.config.proposal
    if run.config.cluster.roles == "peers":
        return False
    if proposal.method == "sgd":
        return True
    limited = proposal.staleness_limit_seconds is not None or proposal.staleness_limit_versions is not None
    constant = parse_smoothing(proposal.smoothing)[0] == "constant"
    ours = run.config.master.reuse_own_norms or (limited and proposal.limit_mode == "fill")
    return proposal.method == "issgd" and constant and proposal.source == "workers" and not ours
