"""Under which conditions runs were made: data, size, machines, commits; and what of that is not as in the paper."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs, audits_told, is_papers
from issgd_cli.config.config import Config
from issgd_cli.config.sections import PAPER_EXAMPLES

# The paper's. Source: section 5.1, Table 1, the original code; for the sweep B.1: 4 s are 15% of it, at 26 ms a step.
PAPER_HIDDEN, PAPER_SEEDS, PAPER_MINIBATCH = (2048,) * 4, 50, 128
PAPER_PUBLISH, PAPER_STD = {"issgd": 32, "sgd": 512}, 0.01
PAPER_SWEEP = 0.23  # epochs, by 3 workers
OFFICIAL_TEST, SMALL_TEST = 26_032, 2_000  # crops: of SVHN, and of the small files that svhn-small was made for
HARDLY = 0.75  # of the initial training loss, left at the end: too early for a verdict


def what_was_run(runs: Runs) -> list[str]:
    """Experiment, data, size, hardware, code, counts, time: a line each."""
    if not runs.runs:
        return [f"{runs.tally()}: nothing to show yet."]
    config = runs.runs[0].config
    lines = [
        f"Runs: {runs.tally()}; settings {listed(runs.settings)}, methods {listed(runs.methods)}, "
        f"seeds {ranges(sorted({run.seed for run in runs.runs}))}.",
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


def differences(runs: Runs) -> list[str]:
    """What of these runs is not as in the paper, as far as their configurations and manifests tell."""
    if not runs.runs:
        return []
    lines = [*_data_differs(runs), *_model_differs(runs)]
    issgd = [run.config for run in runs.runs if run.config.proposal.method == "issgd" and is_papers(run)]
    chosen = {(config.optimizer.learning_rate, config.proposal.smoothing) for config in issgd}
    if not chosen <= {(0.01, 10.0), (0.001, 1.0)}:
        lines.append("Learning rates or smoothings are not the paper's (0.01 with +10, 0.001 with +1).")
    lines += _publishing_differs(runs)
    seeds = len({run.seed for run in runs.runs})
    if seeds != PAPER_SEEDS:
        lines.append(f"Seeds: {seeds}, the paper has {PAPER_SEEDS}.")
    counts = {config.worker.count for config in issgd}
    if counts - {3}:
        lines.append(f"Workers of ISSGD: {listed([str(count) for count in sorted(counts)])}, the paper has 3.")
    if runs.virtual:
        lines.append(
            "Time and place: simulated; all seconds are those of the virtual clock. With a preset a worker's rate is "
            "scaled by N / 570,000, so that a sweep takes as many steps as on the paper's cluster; in epochs it is "
            "longer by the inverse factor. The database serves everybody at once: many workers that pull together do "
            "not share its bandwidth, which flatters large clusters."
        )
    return [
        *lines,
        "The paper's curves are means of records at mixed parameter versions; they are drawn so, but claims are judged "
        f"on {audits_told(runs.runs)}.",
        "Its time axes compare different numbers of GPUs; here equal steps, work and seconds are all told. Work is "
        "counted in examples that a method needs: SGD's are those that it trains on, since its worker only measures; "
        "ISSGD's those that it trains on and those that its workers score.",
        "The original's plotted stale curves took a square root of what was already a norm; here eq. 9 is computed as "
        "printed.",
    ]


def scale(runs: Runs) -> list[str]:
    """How far parameters move between publications and during a sweep, in epochs: what a table's staleness means."""
    groups: dict[tuple[int, int, int], list[Run]] = {}
    for run in runs.runs:
        train = _dataset(run).get("train")
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
    sizes = [_dataset(run).get(split) or 0 for split in ("train", "valid", "test")]
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


def _data_differs(runs: Runs) -> list[str]:
    lines = []
    for name in dict.fromkeys(run.config.data.name for run in runs.runs):
        dataset = next(_dataset(run) for run in runs.runs if run.config.data.name == name)
        test = dataset.get("test")
        if not name.startswith("svhn"):
            lines.append(f"Data: {name}, not SVHN; test errors don't compare with the paper's.")
        elif name.startswith("svhn-small") or (test and test != OFFICIAL_TEST):
            lines.append(
                "Data: real SVHN crops, not in their official parts; test errors don't compare with the paper's."
            )
            if name.startswith("svhn-small") or test == SMALL_TEST:
                lines.append(
                    "Official test crops are among the training examples: the small files' train part is the first "
                    f"1,083 official train and the first 7,000 official test crops, their test part the next "
                    f"{SMALL_TEST:,} official test crops."
                )
        if (train := dataset.get("train")) and train < 0.9 * PAPER_EXAMPLES:
            lines.append(f"Size: {train:,} training examples of {name}, the paper has about {PAPER_EXAMPLES:,}.")
    return lines


def _network(config: Config) -> str:
    """What is trained, with its settings."""
    model = config.model
    if model.network == "mlp":
        return f"{'-'.join(str(width) for width in model.hidden)} hidden ReLU units"
    section = getattr(config, model.network, None)
    values = model.arguments if section is None else section.model_dump()
    return f"{model.network} ({', '.join(f'{key} {value}' for key, value in values.items()) or 'no arguments'})"


def _model_differs(runs: Runs) -> list[str]:
    model = runs.runs[0].config.model
    lines = [] if model.loss == "cross-entropy" else [f"Loss: {model.loss}, the paper's: cross-entropy."]
    if model.network != "mlp":
        return [*lines, f"Model: {model.network}, the paper's: 4 hidden layers of 2048."]
    if model.hidden != PAPER_HIDDEN:
        lines.append(f"Model: {len(model.hidden)} hidden layers of {model.hidden[0]}, the paper's: 4 of 2048.")
    std = model.initial_weight_std
    if std is not None and std != PAPER_STD:
        lines.append(f"Initial weights: standard deviation {std:g}, the original's {PAPER_STD:g}.")
    elif std is None and min(model.hidden[:-1], default=PAPER_HIDDEN[0]) < PAPER_HIDDEN[0]:
        lines.append(
            f"Initial weights: standard deviation {PAPER_STD:g} as the original's, but sqrt(2048 / width) times that "
            "in hidden layers after the first, which are narrower than 2048."
        )
    return lines


def _publishing_differs(runs: Runs) -> list[str]:
    lines = []
    for method, label in (("issgd", "ISSGD"), ("sgd", "SGD")):
        rates = {run.config.master.publish_every_steps for run in runs.runs if run.config.proposal.method == method}
        if rates - {PAPER_PUBLISH[method]}:
            told = listed([str(rate) for rate in sorted(rates)])
            lines.append(f"{label} publishes every {told} steps, the original every {PAPER_PUBLISH[method]}.")
    return lines


def _dataset(run: Run) -> dict[str, Any]:
    return run.manifest.get("dataset") or {}


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
        train = _dataset(run).get("train")
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
    dataset = _dataset(run)
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
