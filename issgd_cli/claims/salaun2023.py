"""Claims of Salaun et al. 2023, online importance sampling: D1-D6. The paper shows curves alone, no tables."""

from functools import partial
from typing import Any

import numpy as np

from issgd_cli.claims.contests import Contest, contested, elsewhere, playing, settings_of
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import difference, mean_difference, per_seed
from issgd_cli.claims.settings import named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part

D1 = Claim("D1", "IS converges faster than uniform sampling at equal epochs, on every dataset.", "Salaun 2023, figures")
D2 = Claim("D2", "On CIFAR-100 IS beats DLIS and LOW at equal epochs, and clearly at equal time.", "Salaun 2023")
D3 = Claim("D3", "IS improves a ViT on CIFAR-10 over SGD, LOW and DLIS.", "Salaun 2023")
D4 = Claim(
    "D4",
    "Pruning by importance cuts training time with negligible loss of accuracy, and is better than random pruning.",
    "Salaun 2023, on pruning",
)
D5 = Claim("D5", "The output layer's gradient norm ranks examples much as the full gradient norm does.", "Its premise")
D6 = Claim("D6", "Importances are stable enough for a momentum, alpha in 0 to 0.3.", "Salaun 2023, alg. 1")

EQUAL_EPOCHS = (
    "Compared is at the end of as many epochs as the method without pruning makes: a pruned epoch is as many draws as "
    "examples are left."
)


def finding_d1(runs: Runs, thresholds: Thresholds) -> Finding:
    """Against draws with replacement, and against reshuffled epochs, what everybody uses; whichever were run."""
    baselines = [role for role in ("uniform", "reshuffled") if any(playing(runs, each, role) for each in runs.settings)]
    contests = [Contest("IS", baseline) for baseline in baselines or ["uniform"]]
    return contested(runs, D1, contests, thresholds)


def finding_d2(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean test errors, along both axes."""
    contests = [Contest("IS", other, "test error", axis) for axis in ("steps", "seconds") for other in ("DLIS", "LOW")]
    found = contested(runs, D2, contests, thresholds)
    return elsewhere(runs, found, "CIFAR-100", lambda run: run.config.data.name == "cifar100")


def finding_d3(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean test errors at equal epochs."""
    baseline = "reshuffled" if any(playing(runs, each, "reshuffled") for each in runs.settings) else "uniform"
    contests = [Contest("IS", other, "test error") for other in (baseline, "LOW", "DLIS")]
    found = contested(runs, D3, contests, thresholds)
    return elsewhere(
        runs,
        found,
        "a ViT on CIFAR-10",
        lambda run: (run.config.data.name, run.config.model.network) == ("cifar10", "vit"),
    )


def finding_d4(runs: Runs, thresholds: Thresholds) -> Finding:
    """Test errors at equal epochs, relative to those without pruning; the steps that these take; and random pruning."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        pruned, plain = playing(runs, setting, "pruning by importance"), playing(runs, setting, "IS")
        if not pruned:
            continue
        names = ("pruning", "no pruning")
        gap = difference(pruned, plain, _error_at_equal_epochs, names)
        steps = difference(pruned, plain, _share_of_steps, names)
        beyond = difference(pruned, playing(runs, setting, "random pruning"), _final_error_gap, (names[0], "random"))
        seconds = difference(pruned, plain, _share_of_seconds, names)
        kept = per_seed(pruned, _finally_kept)
        values[setting] = {
            "error": gap.plain(),
            "steps": steps.plain(),
            "seconds": seconds.plain(),
            "random": beyond.plain(),
            "kept": kept.plain(),
        }
        where = f"{named(setting)}: test error with pruning less that "
        text = f"{where}without, relative: {gap.text(of=thresholds.nearly)}; examples left {kept.text(of=None)}."
        brief = f"{where}without, relative: {gap.told('+.1%')}."
        parts.append(gap.part(text, brief, of=thresholds.nearly, claimed=-1, test=thresholds.test))
        text = f"{named(setting)}: steps for the same epochs, of those without pruning, which is also the mean part of "
        text += f"the examples that an epoch has: {steps.text(of=1.0)}; seconds {seconds.told('.0%')}."
        brief = f"{named(setting)}: pruning takes {steps.told('.0%')} of the steps for the same epochs."
        parts.append(steps.part(text, brief, of=1 - thresholds.visible, claimed=-1, test=thresholds.test))
        text, brief = f"{where}with random pruning: {beyond.text()}.", f"{where}with random pruning: {beyond.told()}."
        parts.append(beyond.part(text, brief, of=0.0, claimed=-1, test=thresholds.test))
    return Finding(D4, parts, values, EQUAL_EPOCHS if parts else "No run that prunes by importance.")


def finding_d5(runs: Runs, thresholds: Thresholds) -> Finding:
    """Spearman's correlation, the median over a run's audits; and what draws by the output layer's norms bring."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        for method in runs.methods:
            group = runs.of(setting, method)
            found = per_seed(group, _median_correlation)
            first, last = (per_seed(group, partial(_correlation_at, place=place)) for place in (0, -1))
            if not len(found):
                continue
            roots = {of: per_seed(group, partial(_root_ratio, of=of)) for of in ("uniform", "ideal")}
            values[f"{setting} {method}".strip()] = {
                "correlation": found.plain(),
                "first": first.plain(),
                "last": last.plain(),
                **{f"root_of_{name}": root.plain() for name, root in roots.items()},
            }
            where = f"{named(setting)}, {method}: rank correlation"
            told = ", ".join(f"{root.told('.2f')} of {name}'s" for name, root in roots.items())
            over = f"{first.told('.2f')} at the first audit, {last.told('.2f')} at the last"
            text = f"{where} {found.text(of=thresholds.alike)}, {over}; "
            text += f"sqrt Tr of draws by the output layer's norms: {told}."
            brief = f"{where} {found.told('.2f')}."
            parts.append(found.part_at_least(text, brief, of=thresholds.alike, test=thresholds.test))
    return Finding(D5, parts, values, "" if parts else "No audits of the rank correlation.")


def finding_d6(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean training losses with each alpha, against alpha 0."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        by_alpha: dict[float, list[Run]] = {}
        for run in runs.of(setting):
            if run.config.proposal.method == "online":
                by_alpha.setdefault(settings_of(run).alpha, []).append(run)
        for alpha, group in sorted(by_alpha.items()):
            if alpha == 0 or 0.0 not in by_alpha:
                continue
            names = (f"alpha {alpha:g}", "alpha 0")
            loss = mean_difference("audit/loss/train", "steps", relative=True)
            gap = difference(group, by_alpha[0.0], loss, names)
            values[f"{setting} {alpha:g}".strip()] = gap.plain()
            where = f"{named(setting)}: mean training loss of {names[0]} less that of {names[1]}, relative"
            text, brief = f"{where}: {gap.text(of=thresholds.visible)}.", f"{where}: {gap.told('+.1%')}."
            parts.append(gap.part(text, brief, of=thresholds.visible, claimed=-1, test=thresholds.test))
    return Finding(D6, parts, values, "" if parts else "No runs of IS with several alphas, 0 among them.")


def _steps_of(pruned: Run, plain: Run) -> float | None:
    """At which step a run has made as many epochs as another, without pruning, makes in all; its last if it never has.

    Between audits as if all minibatches were the same share of an epoch.
    """
    made, examples = pruned.series("audit/epochs"), (plain.manifest.get("dataset") or {}).get("train")
    if not len(made.values) or not examples or _last_step(plain) <= 0:
        return None
    wanted = _last_step(plain) * plain.config.master.minibatch_size / examples
    return float(np.interp(wanted, made.values, made.positions))


def _finally_kept(run: Run) -> float | None:
    values = run.series("proposal/kept_fraction").values
    return float(values[-1]) if len(values) else None


def _last_step(run: Run) -> float:
    return float(run.trace["step"].max()) if len(run.trace) else 0.0


def _share_of_seconds(pruned: Run, plain: Run) -> float | None:
    """Likewise; of two runs that may have had other company."""
    steps, reached = _steps_of(pruned, plain), pruned.series("audit/loss/train").positions
    own, others = (run.series("audit/loss/train", "seconds").positions for run in (pruned, plain))
    if steps is None or len(reached) != len(own) or not len(others) or others[-1] <= 0:
        return None
    return float(np.interp(steps, reached, own) / others[-1])


def _share_of_steps(pruned: Run, plain: Run) -> float | None:
    steps = _steps_of(pruned, plain)
    return None if steps is None else steps / _last_step(plain)


def _error_at_equal_epochs(pruned: Run, plain: Run) -> float | None:
    one, other = (run.series("audit/error/test") for run in (pruned, plain))
    steps = _steps_of(pruned, plain)
    if steps is None or not len(one.values) or not len(other.values) or other.values[-1] == 0:
        return None
    return float(one.at(steps) / other.values[-1]) - 1


def _final_error_gap(left: Run, right: Run) -> float | None:
    one, other = (run.series("audit/error/test").values for run in (left, right))
    return float(one[-1] - other[-1]) if len(one) and len(other) else None


def _median_correlation(run: Run) -> float | None:
    found = run.series("audit/rank_correlation").values
    return float(np.median(found)) if len(found) else None


def _correlation_at(run: Run, place: int) -> float | None:
    found = run.series("audit/rank_correlation").values
    return float(found[place]) if len(found) else None


def _root_ratio(run: Run, of: str) -> float | None:
    """The median over audits of sqrt(Tr by the output layer's norms / another Tr)."""
    one, other = run.series("audit/trace/by_outputs"), run.series(f"audit/trace/{of}")
    base = other.at(one.positions)
    usable = (one.values > 0) & (base > 0)
    return float(np.median(np.sqrt(one.values[usable] / base[usable]))) if usable.any() else None
