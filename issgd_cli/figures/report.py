"""report.md: one page that says what was run, what it shows of each claim, and where that differs from the paper."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.generalisation import Score, chosen
from issgd_cli.claims.verdicts import Verdict
from issgd_cli.config.sections import PAPER_EXAMPLES
from issgd_cli.figures import table_1

# The paper's scale. Source: section 5.1 and Table 1.
PAPER_HIDDEN, PAPER_SEEDS = (2048,) * 4, 50
HARDLY = 0.75  # of the initial training loss, left at the end: too early for a verdict

MARKS = {"holds": "**holds**", "fails": "**fails**", "undecided": "undecided", "untestable": "not testable"}


def report(runs: Runs, verdicts: Sequence[Verdict], figures: Sequence[tuple[str, str]]) -> str:
    """The page as Markdown.

    Args:
        runs: The experiment's.
        verdicts: On each claim.
        figures: Caption and file of each picture, relative to the page.
    """
    table = table_1.load(runs)
    sections = [
        f"# {runs.name}: what these runs show",
        headline(runs, verdicts),
        "## What was run",
        "\n".join(f"- {line}" for line in what_was_run(runs)),
        "## The paper's claims",
        claims_table(verdicts),
        "Verdicts are computed from the traces. From 6 seeds on the 95% bootstrap interval of the median decides; "
        "below 6 no interval is claimed, the seeds' values are shown, and only 3 or more that all agree decide. Claims "
        "of losses, errors and traces use exact audits, never the database's mixed records.",
        "## Table 1",
        table_1.as_markdown(table).strip(),
        "## Figures",
        *(f"![{caption}]({file})\n\n{caption}" for caption, file in figures),
        "## What differs from the paper",
        "\n".join(f"- {line}" for line in differences(runs)),
    ]
    return "\n\n".join(sections) + "\n"


def headline(runs: Runs, verdicts: Sequence[Verdict]) -> str:
    """Two sentences: how many claims stand, and Table 1 in words."""
    by_outcome: dict[str, list[str]] = {}
    for verdict in verdicts:
        by_outcome.setdefault(verdict.verdict, []).append(verdict.claim.id)
    said = {"holds": "holds", "fails": "fails", "undecided": "undecided", "untestable": "not testable on these runs"}
    counts = "; ".join(f"{said[outcome]}: {_listed(by_outcome[outcome])}" for outcome in said if outcome in by_outcome)
    text = f"{runs.tally()}. The paper's claims on these runs: {counts}."
    text += _speed(verdicts)
    for settings in runs.datasets().values():
        labels = runs.label("issgd"), runs.label("sgd")
        scores = [score for label in labels if (score := chosen(runs, label, settings))]
        if len(scores) == 2:
            text += " Final test error: " + ", ".join(_score(score) for score in scores) + "."
    return text


def _speed(verdicts: Sequence[Verdict]) -> str:
    """C1's differences in words, at equal steps and at equal work: the paper shows neither."""
    values = next((verdict.values for verdict in verdicts if verdict.claim.id == "C1"), {})
    text = ""
    for setting, found in values.items():
        sides = [
            _side(gap, what)
            for axis, what in (("steps", "equal steps"), ("examples", "equal examples by all actors"))
            if (gap := found.get(f"difference_at_equal_{axis}", {})).get("median") is not None
        ]
        if sides:
            where = f"In ({setting})" if setting else "Here"
            text += f" {where} ISSGD's training loss lies, on average over the run, {', '.join(sides)}."
    return text


def _side(gap: Mapping[str, Any], what: str) -> str:
    median, values = gap["median"], gap["values"]
    below = median < 0
    agree = sum((value < 0) == below for value in values)
    side = "below" if below else "above"
    return f"{abs(median):.2g} {side} SGD's at {what} (in {agree} of {len(values)} seeds)"


def what_was_run(runs: Runs) -> list[str]:
    """Experiment, data, size, hardware, counts, time."""
    if not runs.runs:
        return [f"{runs.tally()}: nothing to show yet."]
    config = runs.runs[0].config
    lines = [
        f"Runs: {runs.tally()}; settings {_listed(runs.settings)}, methods {_listed(runs.methods)}, "
        f"seeds {_ranges(sorted({run.seed for run in runs.runs}))}.",
        *_each_group(runs),
        f"Data: {'; '.join(dict.fromkeys(_data(run) for run in runs.runs))}.",
        f"Model: {'-'.join(str(width) for width in config.model.hidden)} hidden ReLU units; minibatches of "
        f"{config.master.minibatch_size}.",
        *_clocks(runs),
        f"Hardware: {'; '.join(hardware(runs)) or 'not recorded'}.",
        f"Time: {_time(runs)}.",
    ]
    failures = [run for run in runs.runs if not run.finished]
    lines += [line for setting in runs.settings if (line := _hardly_learned(runs, setting))]
    lines += [f"Not finished: {run.name}, {run.state}{_reason(run)}." for run in failures]
    return lines


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """One row a claim."""
    rows = ["| | The paper says | These runs show | Verdict |", "|---|---|---|---|"]
    for verdict in verdicts:
        claim = verdict.claim
        cells = (claim.id, f"{claim.statement} ({claim.source})", verdict.evidence, MARKS[verdict.verdict])
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |")
    return "\n".join(rows)


def differences(runs: Runs) -> list[str]:
    """What these runs changed, as far as their configurations tell."""
    if not runs.runs:
        return []
    first = runs.runs[0]
    config, dataset = first.config, first.manifest.get("dataset") or {}
    lines = []
    if config.data.name != "svhn":
        lines.append(f"Data: {config.data.name}, not SVHN; test errors don't compare with the paper's.")
    if (train := dataset.get("train")) and train < 0.9 * PAPER_EXAMPLES:
        lines.append(f"Size: {train:,} training examples, the paper has about {PAPER_EXAMPLES:,}.")
    if config.model.hidden != PAPER_HIDDEN:
        lines.append(
            f"Model: {len(config.model.hidden)} hidden layers of {config.model.hidden[0]}, the paper's: 4 of 2048."
        )
    rates = {
        (run.config.optimizer.learning_rate, run.config.proposal.smoothing)
        for run in runs.runs
        if run.config.proposal.method == "issgd"
    }
    if not rates <= {(0.01, 10.0), (0.001, 1.0)}:
        lines.append("Learning rates or smoothings are not the paper's (0.01 with +10, 0.001 with +1).")
    seeds = len({run.seed for run in runs.runs})
    if seeds != PAPER_SEEDS:
        lines.append(f"Seeds: {seeds}, the paper has {PAPER_SEEDS}.")
    counts = {run.config.worker.count for run in runs.runs if run.config.proposal.method == "issgd"}
    if counts - {3}:
        lines.append(f"Workers of ISSGD: {_listed([str(count) for count in sorted(counts)])}, the paper has 3.")
    if runs.virtual:
        lines.append(
            "Time and place: simulated; all seconds are those of the virtual clock. With a preset a worker's rate is "
            "scaled by N / 570,000, so that a sweep takes as many steps as on the paper's cluster; in epochs it is "
            "longer by the inverse factor. The database serves everybody at once: many workers that pull together do "
            "not share its bandwidth, which flatters large clusters."
        )
    lines.append(
        "The paper's curves are means of records at mixed parameter versions; they are drawn so, but claims are judged "
        "on exact audits. Its time axes compare different numbers of GPUs; here equal steps, examples and seconds are "
        "all told (examples count every actor's, also those of SGD's worker, which only measures)."
    )
    lines.append(
        "The original's plotted stale curves took a square root of what was already a norm; here eq. 9 is computed as "
        "printed."
    )
    return lines


def hardware(runs: Runs) -> list[str]:
    """The machines that the manifests name, each once."""
    return list(dict.fromkeys(text for run in runs.runs if (text := _machine(run.manifest.get("machine") or {}))))


def _machine(machine: dict[str, Any]) -> str:
    gpu = machine.get("gpu") or machine.get("gpus") or ""
    gpus = ", ".join(map(str, gpu)) if isinstance(gpu, list | tuple) else str(gpu)
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    return ", ".join(part for part in (str(machine.get("cpu") or ""), cores, gpus) if part)


def _clocks(runs: Runs) -> list[str]:
    """Of simulated runs: what their clock says, and what a sweep is in steps. A line a size of dataset."""
    lines = []
    for run in runs.runs:
        clock = run.manifest.get("clock") or {}
        step, rate = clock.get("step_seconds"), clock.get("examples_per_second")
        train = (run.manifest.get("dataset") or {}).get("train")
        if not (step and rate and train):
            continue
        shares = run.config.worker.shares
        sweep = train / (rate * shares[0] / sum(shares))
        lines.append(
            f"Cluster: simulated, clock {clock.get('preset')}: a step takes {step * 1000:.3g} ms, a worker scores "
            f"{rate:,.0f} examples a second, so one worker sweeps the {train:,} training examples in {sweep:.3g} s or "
            f"{sweep / step:,.0f} steps, three in {sweep / 3:.3g} s or {sweep / 3 / step:,.0f}."
        )
    return list(dict.fromkeys(lines))


def _each_group(runs: Runs) -> list[str]:
    """A line a setting and method, where a run is missing from it."""
    lines = []
    for setting in runs.settings:
        for method in runs.methods:
            group = runs.of(setting, method)
            finished = sum(run.finished for run in group)
            if group and finished < len(group):
                lines.append(f"{setting} {method}: {finished} of {len(group)} finished.".strip())
    return lines


def _hardly_learned(runs: Runs, setting: str) -> str:
    """A warning where the runs ended before the training loss had fallen much; empty elsewhere."""
    curves = [run.series("audit/loss/train").values for run in runs.of(setting) if run.finished]
    ends = np.array([(values[0], values[-1]) for values in curves if len(values) > 1]).reshape(-1, 2)
    start, end = np.median(ends, axis=0) if len(ends) else (0.0, 0.0)
    if end <= HARDLY * start:
        return ""
    where = f"Setting ({setting})" if setting else "The model"
    fall = f"training loss {start:.2f} to {end:.2f}"
    return f"{where} had hardly begun to learn at the end ({fall}): its verdicts say little."


def _data(run: Run) -> str:
    dataset = run.manifest.get("dataset") or {}
    counts = [
        f"{dataset[split]:,} {split}" for split in ("train", "valid", "test") if isinstance(dataset.get(split), int)
    ]
    name = str(dataset.get("name") or run.config.data.name)
    return f"{name} ({', '.join(counts)})" if counts else name


def _time(runs: Runs) -> str:
    """All runs' durations added up, from the manifests."""
    total, known = 0.0, 0
    for run in runs.runs:
        start, end = run.manifest.get("start"), run.manifest.get("end")
        if start and end:
            total += (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
            known += 1
    if not known:
        return "not recorded"
    text = f"{total / 3600:.1f} hours" if total >= 2 * 3600 else f"{total / 60:.1f} minutes"
    return f"{text} of runs in all" + (f" ({known} of {len(runs.runs)} recorded)" if known < len(runs.runs) else "")


def _reason(run: Run) -> str:
    failure = run.manifest.get("failure")
    return f" ({failure['actor']}: {failure['reason']})" if failure else ""


def _score(score: Score) -> str:
    where = f" in setting ({score.setting})" if score.setting else ""
    return f"{table_1.NAMES[score.method].partition(' (')[0]} {score.test.values.mean():.4f}{where}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) if words else "none"


def _ranges(seeds: Sequence[int]) -> str:
    """0-2, 5."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
