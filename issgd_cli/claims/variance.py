"""Claims about the variance of the gradient: C5, C8, C11."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.claims.evidence import Run, Runs, audits_told, is_papers
from issgd_cli.claims.loading import stale_is_in_use
from issgd_cli.claims.paired import early, late, per_seed
from issgd_cli.claims.settings import missing_issgd, named, smoothing_label
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part, PerSeed
from issgd_cli.config.sections import ORIGINAL_CHUNK
from issgd_cli.equations.alain2015 import Float64s

C5 = Claim(
    "C5",
    "Generally Tr(ideal) <= Tr(stale) <= Tr(uniform), whether trained by importance sampling or not.",
    "Sec. 4.2, Fig. 4",
)
C8 = Claim("C8", "Random probability weights break the inequality of C5.", "Sec. 4.2")
C11 = Claim("C11", "Late in training the gradient is near zero, so that the reported traces are close to exact.", "B.2")

ROUNDING = 1e-6  # relative; ties of float32 norms are no violation
PROVED = (
    "Norms dealt out at random to other examples give, on average over the deals, a trace above the uniform one: "
    "mean(w) mean(1/w) >= 1 for any weights, the means' inequality. So no runs could show anything else; what shuffled "
    "ones show is that the software does it."
)
OLD = "Runs of issgd before 0.2 say nothing here: their audits' stale traces were of the table in use, not eq. 9."
LOOSE = (
    "B.2's bound exceeds ||g_TRUE||^2 by about Tr(uniform) / chunk: with chunks smaller than the original's "
    f"{ORIGINAL_CHUNK:,} the error is larger by as much, and not for the paper's reason."
)
CLOSE = "where traces are close, chance may change their order."
NOISY = "||g_TRUE||^2 is estimated without bias, and what its spread adds counts as an error of the bound."


def finding_c5(runs: Runs, thresholds: Thresholds) -> Finding:
    """The share of a seed's audits at which the inequality holds, over the paper's methods and settings."""
    papers = [run for run in runs.runs if is_papers(run)]
    counts = {name: _counted(group) for name, group in (("papers", papers), ("ours", _others(runs, papers)))}
    old = OLD if any(stale_is_in_use(run.manifest) for run in papers) else ""
    if not counts["papers"]["audits"]:
        none = "No exact audits of the ideal, stale and uniform traces (monitor.audit_every_steps)."
        return Finding(C5, note=old or none)
    shares = _shares(papers)
    found = counts["papers"]
    text = f"Share of a seed's audits at which it holds: {shares.text(of=thresholds.generally, at_least=True)}; "
    text += f"violated at {found['violations']} of {found['audits']} audits of the paper's methods"
    if found["violations"]:
        by_group = ", ".join(
            f"{name} {c['violations']}/{c['audits']}" for name, c in found["groups"].items() if c["violations"]
        )
        text += f" ({by_group}); worst Tr(stale) = {found['worst_ratio']:.3g} Tr(uniform) ({found['worst_at']})"
    if counts["ours"]["audits"]:
        text += f"; beside these at {counts['ours']['violations']} of {counts['ours']['audits']} of ours"
    in_use = _in_use_above_uniform(runs)
    brief = f"It holds at {shares.told('.1%')} of a seed's audits."
    part = shares.part_at_least(f"{text}.", brief, of=thresholds.generally, test=thresholds.test)
    note = "\n".join(line for line in (_in_use_text(in_use), _sampled(papers, CLOSE), old) if line)
    return Finding(C5, [part], {**counts, "shares": shares.plain(), "in_use": in_use}, note)


def finding_c8(runs: Runs, thresholds: Thresholds) -> Finding:
    """How often draws by permuted weights have more variance than uniform ones: mathematics, looked at in runs."""
    lines, values = [], {}
    shuffled = tuple(run for run in runs.runs if run.config.proposal.source == "shuffled")
    for setting in dict.fromkeys(run.setting for run in shuffled):
        group = tuple(run for run in shuffled if run.setting == setting)
        share = per_seed(group, _share_above_uniform)
        if len(share):
            values[setting] = share.plain()
            label = smoothing_label(group[0].config)
            lines.append(
                f"{named(setting)}: share of audits with Tr(in use) > Tr(uniform) {share.text(of=None)}, {label}."
            )
    return Finding(C8, values=values, note="\n".join([*lines, PROVED]), settled="Follows from the means' inequality.")


def finding_c11(runs: Runs, thresholds: Thresholds) -> Finding:
    """Whether late gradients are small beside the traces, and how far the traces by B.2's bound are from the exact.

    The latter is judged with the original's chunks alone: with smaller ones the bound is looser for that reason.
    """
    parts: list[Part] = []
    notes: list[str] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        group = runs.of_first(setting, "issgd")
        errors = {when: per_seed(group, partial(_error_of_bound, when=when)) for when in ("start", "end")}
        norms = {when: per_seed(group, partial(_relative_gradient, when=when)) for when in ("start", "end")}
        if not len(errors["end"]):
            continue
        values[setting] = {
            **{f"error_of_bound_{when}": error.plain() for when, error in errors.items()},
            **{f"gradient_norm2_over_ideal_{when}": norm.plain() for when, norm in norms.items()},
        }
        chunk = group[0].config.worker.chunk_size
        near = (
            f"{named(setting)}: late ||g_TRUE||^2 / Tr(ideal) {norms['end'].text(of=thresholds.close)}, early "
            f"{norms['start'].told()}."
        )
        exact = (
            f"{named(setting)}: error of the late traces by the bound (chunks of {chunk}), relative to Tr(ideal), "
            f"{errors['end'].text(of=thresholds.close)}, early {errors['start'].told()}."
        )
        briefs = (
            f"{named(setting)}: late in training ||g_TRUE||^2 is {norms['end'].told('.2g')} of Tr(ideal).",
            f"{named(setting)}: late traces by the bound are off by {errors['end'].told('.2g')} of Tr(ideal).",
        )
        parts.append(norms["end"].part(near, briefs[0], of=thresholds.close, claimed=-1, test=thresholds.test))
        if chunk < ORIGINAL_CHUNK:
            notes.append(exact)
        else:
            parts.append(errors["end"].part(exact, briefs[1], of=thresholds.close, claimed=-1, test=thresholds.test))
    if not parts:
        return Finding(C11, note=missing_issgd(runs, "audits and records of B.2's bound"))
    notes += [LOOSE] if notes else []
    return Finding(C11, parts, values, "\n".join(note for note in (*notes, _sampled(runs.runs, NOISY)) if note))


def _sampled(runs: Sequence[Run], effect: str) -> str:
    """What it does to a claim that audits are on samples; empty where they are on all examples."""
    return f"By {audits_told(runs)}: {effect}" if any(run.audit_sample for run in runs) else ""


def _others(runs: Runs, papers: Sequence[Run]) -> list[Run]:
    """Runs of ours that draw by norms of their own examples."""
    known = {id(run) for run in papers}
    return [run for run in runs.runs if id(run) not in known and run.config.proposal.source != "shuffled"]


def _violations(run: Run) -> tuple[Float64s, NDArray[np.bool_], NDArray[np.bool_], Float64s]:
    """The audits' steps, whether each holds all three traces, whether it violates C5, and Tr(stale) / Tr(uniform)."""
    steps, ideal, stale, uniform = traces_of(run, "ideal", "stale", "uniform")
    known = np.isfinite(ideal + stale + uniform)
    bad = known & ((stale > uniform * (1 + ROUNDING)) | (ideal > stale + abs(stale) * ROUNDING))
    ratio = np.where(known & (uniform > 0), stale / np.where(uniform > 0, uniform, 1.0), -np.inf)
    return steps, known, bad, ratio


def _counted(runs: Sequence[Run]) -> dict[str, Any]:
    """Audits and violations, in all and by group, and the worst of them."""
    groups: dict[str, dict[str, int]] = {}
    worst, worst_at = 1.0, ""
    for run in runs:
        steps, known, bad, ratio = _violations(run)
        group = groups.setdefault(f"{run.setting} {run.method}".strip(), {"audits": 0, "violations": 0})
        group["audits"] += int(known.sum())
        group["violations"] += int(bad.sum())
        if len(ratio) and ratio.max() > worst:
            worst = float(ratio.max())
            worst_at = f"{run.setting} {run.method} seed {run.seed}, step {steps[ratio.argmax()]:.0f}".strip()
    totals = {name: sum(group[name] for group in groups.values()) for name in ("audits", "violations")}
    return {**totals, "groups": groups, "worst_ratio": worst, "worst_at": worst_at}


def _shares(runs: Sequence[Run]) -> PerSeed:
    """The share of a seed's audits at which C5's inequality holds, over all its runs."""
    found: dict[int, list[Float64s]] = {}
    for run in runs:
        _, known, bad, _ = _violations(run)
        if known.any():
            found.setdefault(run.seed, []).append(np.asarray(~bad[known], np.float64))
    seeds = tuple(sorted(found))
    return PerSeed(seeds, np.array([np.concatenate(found[seed]).mean() for seed in seeds]))


def traces_of(run: Run, *names: str) -> tuple[Float64s, ...]:
    """The audits' steps, and these traces at each, NaN where an audit lacks one, shape (audits,) each."""
    found = [run.series(f"audit/trace/{name}") for name in names]
    steps = np.unique(np.concatenate([series.positions for series in found]))
    columns = [dict(zip(series.positions, series.values, strict=True)) for series in found]
    return steps, *(np.array([column.get(step, np.nan) for step in steps], np.float64) for column in columns)


def uniform_and_in_use(run: Run) -> tuple[Float64s, Float64s]:
    """Both traces over the same examples: those that can be drawn, where a staleness limit leaves some out."""
    _, uniform, in_use, dropped = traces_of(run, "uniform", "in_use", "uniform_in_use")
    return np.where(np.isfinite(dropped), dropped, uniform), in_use


def _share_above_uniform(run: Run) -> float | None:
    uniform, in_use = uniform_and_in_use(run)
    known = np.isfinite(in_use + uniform)
    return float((in_use > uniform * (1 + ROUNDING))[known].mean()) if known.any() else None


def _in_use_above_uniform(runs: Runs) -> dict[str, float]:
    """By group of runs that draw by importance: the share of audits at which uniform draws had been better."""
    shares: dict[str, list[float]] = {}
    for run in runs.runs:
        share = _share_above_uniform(run)
        if share is not None and run.by_scores and run.config.proposal.source != "shuffled":
            shares.setdefault(f"{run.setting} {run.method}".strip(), []).append(share)
    return {name: float(np.mean(values)) for name, values in shares.items()}


def _in_use_text(shares: dict[str, float]) -> str:
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"The weights really drawn from were worse than uniform at this share of audits: {listed}." if listed else ""


def _error_of_bound(run: Run, when: str) -> float | None:
    """|bound - ||g_TRUE||^2| / Tr(ideal), means over the first or last tenth of the audits."""
    exact, bound = run.series("audit/gradient_norm2"), run.series("gradient_norm2/bound")
    ideal = run.series("audit/trace/ideal")
    if not len(exact.values) or not len(bound.values) or not len(ideal.values):
        return None
    part = late if when == "end" else early
    # The bound is recorded beside training: its last record at an audit's step is the one to compare; the first
    # audit may come before any.
    recorded = bound.at(np.maximum(exact.positions, bound.positions[0]))
    gaps = np.abs(recorded - exact.values)
    scale = part(ideal).mean()
    count = len(part(exact))
    return float((gaps[-count:] if when == "end" else gaps[:count]).mean() / scale) if scale > 0 else None


def _relative_gradient(run: Run, when: str) -> float | None:
    exact, ideal = run.series("audit/gradient_norm2"), run.series("audit/trace/ideal")
    if not len(exact.values) or not len(ideal.values):
        return None
    part = late if when == "end" else early
    scale = part(ideal).mean()
    return float(part(exact).mean() / scale) if scale > 0 else None
