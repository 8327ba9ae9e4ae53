"""Contests of two methods of the papers that followed, seed by seed: what their claims are made of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from issgd_cli.claims.evidence import Run, Runs, is_papers
from issgd_cli.claims.paired import UNITS, difference, mean_difference, unpaired
from issgd_cli.claims.quantiles import Axis
from issgd_cli.claims.settings import named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part

QUANTITIES = {"training loss": "audit/loss/train", "test error": "audit/error/test"}


def _of(method: str) -> Callable[[Run], bool]:
    return lambda run: run.config.proposal.method == method and run.config.cluster.roles == "workers"


def _peers(method: str, mode: str, gradients: str = "float32") -> Callable[[Run], bool]:
    """Of peers, all of whose gradients count whole."""
    settings = {"mode": mode, "gradients": gradients, "staleness_limit_versions": None}

    def plays(run: Run) -> bool:
        peers = run.config.peers.model_dump()
        of_peers = run.config.cluster.roles == "peers" and run.config.proposal.method == method
        return of_peers and settings.items() <= peers.items()

    return plays


def settings_of(run: Run) -> Any:
    """The settings of a run's own method, of which it has some."""
    return getattr(run.config, run.config.proposal.method)


def _by(reason: str) -> Callable[[Run], bool]:
    return lambda run: _of("pruning")(run) and settings_of(run).by == reason


def _looks_at_all(run: Run) -> bool:
    """Whether each step is by all examples, once each: plain gradient descent."""
    examples = (run.manifest.get("dataset") or {}).get("train")
    whole = isinstance(examples, int) and run.config.master.minibatch_size >= examples
    return _of("reshuffled")(run) and whole


# What the papers call a method -> whether a run is of it, whatever its label.
ROLES: dict[str, Callable[[Run], bool]] = {
    "uniform": _of("sgd"),
    "reshuffled": lambda run: _of("reshuffled")(run) and not _looks_at_all(run),
    "the exact gradient": _looks_at_all,
    "IS": _of("online"),
    "AS": _of("adaptive"),
    "DLIS": _of("dlis"),
    "LOW": _of("low"),
    "InfoBatch": _of("infobatch"),
    "MIS": _of("mis"),
    "OMIS": _of("omis"),
    "pruning by importance": _by("importance"),
    "random pruning": _by("random"),
    # The first paper's own, and what its sections 2 and 6 put beside it.
    "ISSGD with workers": lambda run: run.config.proposal.method == "issgd" and is_papers(run),
    "ISSGD with peers": _peers("issgd", "asynchronous"),
    "ISSGD with peers, bfloat16": _peers("issgd", "asynchronous", "bfloat16"),
    "ASGD": _peers("sgd", "asynchronous"),
    "synchronous SGD": _peers("sgd", "synchronous"),
}


def playing(runs: Runs, setting: str, role: str) -> tuple[Run, ...]:
    """A setting's runs of a method, of one label: the method's own name, else the only one; none of several."""
    found: dict[str, list[Run]] = {}
    for run in runs.of(setting):
        if ROLES[role](run):
            found.setdefault(run.method, []).append(run)
    own = [label for label, group in found.items() if label == group[0].config.proposal.method] or list(found)
    return tuple(found[own[0]]) if len(own) == 1 else ()


@dataclass(frozen=True)
class Contest:
    """That one method is ahead of another: visibly, in the mean over the part of the axis that both cover.

    Attributes:
        ahead, behind: Of ROLES.
        what: Of QUANTITIES.
        axis: Along which both are compared; steps are epochs, where minibatches are of one size.
        as_good: Whether it is claimed only not to be visibly behind.
    """

    ahead: str
    behind: str
    what: str = "training loss"
    axis: Axis = "steps"
    as_good: bool = False

    def part(self, runs: Runs, setting: str, thresholds: Thresholds) -> tuple[Part, dict[str, Any]]:
        """What a setting's runs show of it; of no seeds where there are none to compare."""
        left, right = playing(runs, setting, self.ahead), playing(runs, setting, self.behind)
        names = self.ahead, self.behind
        number = mean_difference(QUANTITIES[self.what], self.axis, relative=True)
        gap = difference(left, right, number, names)
        of = thresholds.visible if self.as_good else -thresholds.visible
        versus = f"{named(setting)}: {' against '.join(names)} at {UNITS[self.axis]}, mean {self.what}"
        if not len(gap):
            return Part(f"{versus}: no runs of the same seed with exact audits."), {}
        text = f"{versus}, relative difference: {gap.text(of=of)}{unpaired(left, right)}."
        brief = f"{versus}: {gap.told('+.1%')}."
        return gap.part(text, brief, of=of, claimed=-1, test=thresholds.test), gap.plain()

    @property
    def name(self) -> str:
        """Its key among a claim's numbers."""
        return f"{self.ahead} - {self.behind} at {UNITS[self.axis]}"


def contested(runs: Runs, claim: Claim, contests: Iterable[Contest], thresholds: Thresholds) -> Finding:
    """Every contest in every setting, as the parts of one claim."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        for contest in contests:
            part, found = contest.part(runs, setting, thresholds)
            parts.append(part)
            if found:
                values.setdefault(setting, {})[contest.name] = found
    return Finding(claim, parts, values)


def elsewhere(runs: Runs, finding: Finding, where: str, there: Callable[[Run], bool]) -> Finding:
    """The finding, told but not judged unless these runs are of what the claim is about.

    Args:
        runs: The finding's.
        finding: On the claim.
        where: What it is about, for the text.
        there: Whether a run is of that.
    """
    if all(map(there, runs.runs)):
        return finding
    told: Sequence[Part] = [replace(part, seeds=0, holds=1.0, fails=1.0) for part in finding.parts]
    return replace(finding, parts=told, note=f"The claim is about {where}: told, not judged. {finding.note}".strip())
