"""Under which conditions runs were made: data, size, machines, commits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from issgd_cli.claims.choice import why
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.config.config import Config
from issgd_cli.config.sections import PAPER_EXAMPLES

# The paper's. Source: section 5.1; for the sweep B.1: 4 s are 15% of it, at 26 ms a step.
PAPER_PUBLISH, PAPER_MINIBATCH = {"issgd": 32, "sgd": 512}, 128
PAPER_SWEEP = 0.23  # epochs, by 3 workers
HARDLY = 0.75  # of the initial training loss, left at the end: too early for a verdict


def what_was_run(runs: Runs) -> list[str]:
    """Experiment, data, size, hardware, code, counts, time: a line each."""
    if not runs.runs:
        return [f"{runs.tally()}: nothing to show yet."]
    config = runs.runs[0].config
    settings = f"settings {listed(runs.settings)}, " if any(runs.settings) else ""
    lines = [
        f"Runs: {runs.tally()}; {settings}methods {listed(runs.methods)}, "
        f"seeds {ranges(sorted({run.seed for run in runs.runs}))}.",
        *_chosen(runs),
        *_each_group(runs),
        f"Data: {'; '.join(dict.fromkeys(_data(run) for run in runs.runs))}.",
        f"Model: {', '.join(dict.fromkeys(_network(run.config) for run in runs.runs))}; minibatches of "
        f"{config.master.minibatch_size}.",
        *_clocks(runs),
        *scale(runs),
        f"Hardware: {'; '.join(hardware(runs)) or 'not recorded'}.",
        f"Code: {_code(runs)}.",
        f"Time: {_time(runs)}.",
    ]
    failures = [run for run in runs.runs if not run.finished]
    lines += [line for setting in runs.settings if (line := _hardly_learned(runs, setting))]
    lines += [f"Not finished: {run.name}, {run.state}{_reason(run)}." for run in failures]
    return lines


def scale(runs: Runs) -> list[str]:
    """How far parameters move between publications and during a sweep, in epochs: what a table's staleness means."""
    groups: dict[tuple[int, int, int], list[Run]] = {}
    for run in runs.runs:
        train = dataset_of(run).get("train")
        if train and run.by_scores:
            key = (int(train), run.config.master.publish_every_steps, run.config.worker.count)
            groups.setdefault(key, []).append(run)
    lines = []
    for (train, steps, workers), group in groups.items():
        size = group[0].config.master.minibatch_size
        text = (
            f"Scale: the {steps} steps between publications are {steps * size / train:.2g} epochs of these {train:,} "
            f"training examples; the paper's {PAPER_PUBLISH['issgd']} are "
            f"{PAPER_PUBLISH['issgd'] * PAPER_MINIBATCH / PAPER_EXAMPLES:.2g} of its {PAPER_EXAMPLES:,}"
        )
        sweeps = [epochs for run in group if (epochs := _sweep(run)) is not None]
        if sweeps:
            text += f". {workers} worker{'s score' if workers > 1 else ' scores'} everything once in "
            text += f"{np.median(sweeps):.2g} epochs, the paper's 3 in about {PAPER_SWEEP}"
        lines.append(f"{text}.")
    return lines


def hardware(runs: Runs) -> list[str]:
    """The machines that the manifests name, each once."""
    return list(dict.fromkeys(text for run in runs.runs if (text := _machine(run.manifest.get("machine") or {}))))


def listed(words: Sequence[str]) -> str:
    """Words with commas, or none."""
    return ", ".join(words) if words else "none"


def ranges(seeds: Iterable[int]) -> str:
    """Ascending numbers in short: 0-2, 5."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _sweep(run: Run) -> float | None:
    """Epochs that the master trains while the workers score every training example once; None where it isn't known."""
    trained, scored = (run.series(f"work/examples_{kind}").values for kind in ("trained", "scored"))
    sizes = [dataset_of(run).get(split) or 0 for split in ("train", "valid", "test")]
    # Barriers wait for all of every split; without them the splits take turns.
    parts = sizes if run.config.master.mode == "exact" else run.config.worker.shares
    if not len(trained) or not len(scored) or not scored[-1] > 0:
        return None
    return float(trained[-1] / (scored[-1] * parts[0] / sum(parts)))


def _code(runs: Runs) -> str:
    """The commits that made the runs, and how many of these had changes that were not committed."""
    counts: Counter[str] = Counter()
    dirty: Counter[str] = Counter()
    for run in runs.runs:
        git = run.manifest.get("git") or {}
        commit = str(git.get("commit") or "")[:12]
        counts[commit] += 1
        dirty[commit] += bool(git.get("dirty"))
    if set(counts) == {""}:
        return "commit not recorded"
    told = []
    for commit, count in counts.items():
        text = f"{f'commit {commit}' if commit else 'unknown commit'} ({count} run{'s' if count > 1 else ''}"
        told.append(text + (f", {dirty[commit]} of them with uncommitted changes)" if dirty[commit] else ")"))
    return f"{'; '.join(told)}{'' if dirty.total() else '; nothing uncommitted'}"


def _network(config: Config) -> str:
    """What is trained, with its settings."""
    model = config.model
    if model.network == "mlp":
        return f"{'-'.join(str(width) for width in model.hidden)} hidden ReLU units"
    section = getattr(config, model.network, None)
    values = model.arguments if section is None else section.model_dump()
    return f"{model.network} ({', '.join(f'{key} {value}' for key, value in values.items()) or 'no arguments'})"


def dataset_of(run: Run) -> dict[str, Any]:
    return run.manifest.get("dataset") or {}


def _machine(machine: dict[str, Any]) -> str:
    gpu = machine.get("gpu") or machine.get("gpus") or ""
    counts = Counter(map(str, gpu)) if isinstance(gpu, list | tuple) else Counter([str(gpu)])
    gpus = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    return ", ".join(part for part in (str(machine.get("cpu") or ""), cores, gpus) if part)


def _clocks(runs: Runs) -> list[str]:
    """Of simulated runs: what their clock says, and what a sweep is in steps. A line a size of dataset."""
    lines = []
    for run in runs.runs:
        clock = run.manifest.get("clock") or {}
        step, rate = clock.get("step_seconds"), clock.get("examples_per_second")
        train = dataset_of(run).get("train")
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


def _chosen(runs: Runs) -> list[str]:
    """What each method's setting is, where others have been run to choose it; a line."""
    if not runs.choosing:
        return []
    rates = [f"{method} {runs.of(method=method)[0].config.optimizer.learning_rate:g}" for method in runs.methods]
    by = f"the one with the lowest {words}" if (words := why(runs)) else "one of several that were tried"
    return [
        f"Learning rates: {listed(rates)}; each method's is {by} at seeds "
        f"{ranges(sorted({run.seed for run in runs.choosing}))}, whose runs are in no number here."
    ]


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
    dataset = dataset_of(run)
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
