"""The claim about how far the variance is reduced, C6, and what crossed settings show of the paper's reason for it."""

import math
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import difference, per_seed, unpaired
from issgd_cli.claims.settings import paper_settings, smoothing_label
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.variance import traces_of, uniform_and_in_use
from issgd_cli.claims.verdicts import Claim, Finding
from issgd_cli.config.config import Config

C6 = Claim("C6", "The variance reduction is clear in (b) and less convincing in (a).", "Fig. 4")

UNCROSSED = (
    "The paper's reason, that +10 washes the reduction out in (a), is not judged: it needs both learning rates with "
    "both constants, crossed."
)


def finding_c6(runs: Runs, thresholds: Thresholds) -> Finding:
    """How far below uniform draws' the root of the trace in use lies, in (b) and against (a).

    Told beside it: the share of the possible reduction, which figure 4 shows, too, but as a second thought.
    """
    a, b = settings = paper_settings(runs) or ("", "")
    in_a, in_b = groups = runs.of_first(a, "issgd"), runs.of_first(b, "issgd")
    shares = [per_seed(group, reduction_share, worst=-math.inf) for group in groups]
    roots = [per_seed(group, root_ratio, worst=math.inf) for group in groups]
    if a == b or not all(len(share) for share in shares):
        return Finding(C6, note="It needs ISSGD runs in two settings of one dataset with audits of the traces.")
    # Where (a) diverged its reduction is the worse: the larger for the claims, as differences want it.
    names = f"({a})", f"({b})"
    gap = difference(in_a, in_b, _root_gap, names)
    of_shares = difference(in_a, in_b, lambda left, right: _share_gap(right, left), names)
    clear = (
        f"({b}), {smoothing_label(in_b[0].config)}: sqrt Tr(in use) / sqrt Tr(uniform) "
        f"{roots[1].text(of=thresholds.clear)}; in ({a}), {smoothing_label(in_a[0].config)}, {roots[0].told()}."
    )
    less = (
        f"({a}) minus ({b}) of these: {gap.text()}{unpaired(in_a, in_b)}. Share of the possible reduction reached: "
        f"({b}) {shares[1].told()}, ({a}) {shares[0].told()}; ({b}) minus ({a}): {of_shares.text()}."
    )
    briefs = (
        f"({b}): sqrt Tr in use relative to the uniform one: {roots[1].told('.2f')}.",
        f"sqrt Tr in use relative to the uniform one, ({a}) minus ({b}): {gap.told('.2g')}.",
    )
    parts = [
        roots[1].part(clear, briefs[0], of=thresholds.clear, claimed=-1, test=thresholds.test),
        gap.part(less, briefs[1], of=0.0, claimed=1, test=thresholds.test),
    ]
    values = {
        setting: {"share": share.plain(), "root_ratio": root.plain()}
        for setting, share, root in zip(settings, shares, roots, strict=True)
    }
    told, crossed = _crossed(runs, a, b)
    return Finding(
        C6, parts, {**values, "difference": gap.plain(), "difference_of_shares": of_shares.plain(), **crossed}, told
    )


def _crossed(runs: Runs, a: str, b: str) -> tuple[str, dict[str, Any]]:
    """What to say of the paper's reason, and the numbers, where each learning rate was run with each constant."""
    configs = {setting: group[0].config for setting in runs.settings if (group := runs.of_first(setting, "issgd"))}
    alike = {
        _rate_and_constant(config): setting
        for setting, config in configs.items()
        if _but_for_these(config) == _but_for_these(configs[a])
    }
    (rate_a, large), (rate_b, small) = _rate_and_constant(configs[a]), _rate_and_constant(configs[b])
    corners = [alike.get((rate, constant), "") for rate in (rate_a, rate_b) for constant in (small, large)]
    if len({*corners} - {""}) < len(corners):
        return UNCROSSED, {}
    names = smoothing_label(configs[b]), smoothing_label(configs[a])  # +1, +10
    lines, values = [], {setting: _plain(runs, setting) for setting in corners if setting not in (a, b)}
    for rate, settings in ((rate_a, corners[:2]), (rate_b, corners[2:])):
        left, right = (runs.of_first(setting, "issgd") for setting in settings)
        # Where the run with +1 diverged, that with +10 has the larger reduction.
        gap = difference(left, right, lambda one, other: _share_gap(other, one), names)
        lines.append(f"at {rate:g} {gap.text()}{unpaired(left, right)}")
        values[f"at {rate:g}"] = gap.plain()
    told = (
        f"The paper's reason, that {names[1]} washes the reduction out in ({a}), is told, not judged. Share reached "
        f"with {names[1]} minus that with {names[0]}, by learning rate: {'; '.join(lines)}."
    )
    return told, {"crossed": values}


def _plain(runs: Runs, setting: str) -> dict[str, Any]:
    """A setting's share and ratio, for claims.json."""
    group = runs.of_first(setting, "issgd")
    share, root = per_seed(group, reduction_share, worst=-math.inf), per_seed(group, root_ratio, worst=math.inf)
    return {"share": share.plain(), "root_ratio": root.plain()}


def _rate_and_constant(config: Config) -> tuple[float, float | str]:
    return config.optimizer.learning_rate, config.proposal.smoothing


def _but_for_these(config: Config) -> str:
    """The same where settings differ by nothing else."""
    changes: dict[str, Any] = {
        "optimizer": config.optimizer.model_copy(update={"learning_rate": 1.0}),
        "proposal": config.proposal.model_copy(update={"smoothing": 1.0}),
    }
    return config.model_copy(update=changes).hash()


def reduction_share(run: Run) -> float | None:
    """(uniform - in use) / (uniform - ideal), median over the run's audits: 1 is ideal, 0 uniform, below 0 worse."""
    _, uniform, in_use, ideal, dropped = traces_of(run, "uniform", "in_use", "ideal", "uniform_in_use")
    in_use = np.where(np.isfinite(dropped), np.nan, in_use)  # of other examples than ideal and uniform are
    possible = uniform - ideal
    known = np.isfinite(in_use) & (possible > 0)
    return float(np.median((uniform - in_use)[known] / possible[known])) if known.any() else None


def root_ratio(run: Run) -> float | None:
    """sqrt Tr(in use) / sqrt Tr(uniform), the median over the run's audits."""
    uniform, in_use = uniform_and_in_use(run)
    known = (in_use > 0) & (uniform > 0)
    return float(np.median(np.sqrt(in_use[known] / uniform[known]))) if known.any() else None


def _root_gap(left: Run, right: Run) -> float | None:
    one, other = root_ratio(left), root_ratio(right)
    return None if one is None or other is None else one - other


def _share_gap(left: Run, right: Run) -> float | None:
    one, other = reduction_share(left), reduction_share(right)
    return None if one is None or other is None else one - other
