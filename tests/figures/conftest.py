"""Run folders as a finished experiment leaves them, with curves of a realistic shape and no training."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from issgd_cli import datasets
from issgd_cli.claims import Run, Runs, load, load_run
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.database.records import Event
from issgd_cli.datasets import Prepared
from issgd_cli.figures import style
from issgd_cli.figures.plane import data_of
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator
from issgd_cli.runs.folder import RunFolder, run_folder
from issgd_cli.runs.parameters import save_parameters
from issgd_cli.runs.traces import Row, TraceWriter

PlaneRun = Callable[..., tuple[Run, Prepared]]

SETTINGS = {"a": (0.01, 10.0), "b": (0.001, 1.0)}
STEPS = 3000
SPLITS = ("train", "valid", "test")


def write_runs(
    results: Path,
    seeds: Iterable[int] = range(3),
    settings: Iterable[str] = ("a", "b"),
    methods: Iterable[str] = ("issgd", "sgd"),
    name: str = "quick",
    events: bool = False,
) -> list[RunFolder]:
    """Finished runs of settings x methods x seeds."""
    return [
        write_run(results, setting, method, seed, name=name, events=events)
        for setting in settings
        for method in methods
        for seed in seeds
    ]


def write_run(
    results: Path,
    setting: str = "a",
    method: str = "issgd",
    seed: int = 0,
    name: str = "quick",
    state: str = "finished",
    until: int = STEPS,
    events: bool = False,
    mode: str = "relaxed",
    change: Callable[[Row], Row | None] = lambda row: row,
    overrides: dict[str, Any] | None = None,
    dataset: str = "",
) -> RunFolder:
    """One run; `until` cuts its trace at a step, `change` alters or leaves out rows."""
    rate, smoothing = SETTINGS.get(setting, (0.01, 10.0))
    base = method.partition("-")[0]
    proposal: dict[str, Any] = {"method": base, "smoothing": smoothing if base == method else "variance-optimal"}
    config = resolve(
        {
            "name": name,
            "seed": seed,
            "data": {"name": dataset or "house-numbers"},
            "model": {"hidden": [128] * 4},
            "optimizer": {"learning_rate": rate},
            "proposal": {**proposal, **(overrides or {})},
            "master": {"steps": STEPS, "mode": mode},
            "worker": {"count": 3 if base == "issgd" else 1},
        },
        "test",
    )
    folder = run_folder(results, config, setting, method, dataset)
    begin_folder(folder, config, setting, method, state)
    if dataset:
        folder.update_manifest(dataset_label=dataset)
    rows = [change(row) for row in rows_of(setting, base, seed, smoothing) if row.step <= until]
    writer = TraceWriter(folder.trace, Row._fields)
    writer.append([row for row in rows if row is not None])
    writer.close()
    if events:
        write_events(folder, exact=mode == "exact", workers=config.worker.count)
    return folder


def begin_folder(folder: RunFolder, config: Any, setting: str, method: str, state: str) -> None:
    """The folder with config.toml and a manifest like the launcher's."""
    from issgd_cli.config.toml import as_toml

    folder.path.mkdir(parents=True)
    folder.config.write_text(as_toml(config))
    folder.update_manifest(
        state=state,
        failure={"actor": "worker-1", "reason": "out of memory"} if state == "failed" else None,
        seed=config.seed,
        setting=setting,
        method=method,
        start="2026-01-01T10:00:00+00:00",
        end="2026-01-01T10:00:52+00:00" if state == "finished" else None,
        packages={"torch": "2.9.0", "numpy": "2.4.6"},
        machine={"system": "Linux", "cpu": "Example CPU", "cores": 2},
        git={"commit": "0" * 40, "dirty": False},
        dataset={"name": "house-numbers", "fingerprint": "abcd", "train": 19000, "valid": 1000, "test": 4000},
        redis="7.2.4",
        config_hash=config.hash(),
        command=["issgd", "reproduce", "experiments/quick.toml"],
    )


def rows_of(setting: str, method: str, seed: int, smoothing: float) -> list[Row]:
    """A plausible run: a plateau, a fall (steeper with ISSGD), overfitting; traces that rise and fall."""
    random = generator(seed, "house_numbers", index=hash_of(setting, method))
    speed = {"a": 1.0, "b": 0.7}.get(setting, 1.0) * (1.35 if method == "issgd" else 1.0)
    speed *= float(np.exp(0.06 * random.normal()))
    pace = 0.016 if method == "issgd" else 0.012  # seconds a step
    rows = []
    for step in range(0, STEPS + 1, 25):
        seconds = 1.0 + pace * step
        rows += _rows(random, step, seconds, speed, smoothing, method, prefix="")
        rows += [
            Row(step, seconds, "work/examples_trained", 128.0 * step),
            Row(step, seconds, "work/examples_scored", 2100.0 * seconds * (3 if method == "issgd" else 1)),
            Row(step, seconds, "work/bytes_sent", 1e6 * seconds),
            Row(step, seconds, "proposal/entropy", 9.5),
            Row(step, seconds, "proposal/effective_sample_size", 19000 * (1 - 0.5 * step / STEPS)),
            Row(step, seconds, "proposal/kept_fraction", 1.0),
            Row(step, seconds, "staleness/mean_seconds", 2.0 + 0.3 * random.normal()),
            Row(step, seconds, "staleness/max_seconds", 5.0 + 0.5 * random.normal()),
            Row(step, seconds, "staleness/mean_versions", 3.0),
        ]
    for step in range(0, STEPS + 1, 250):
        rows += _rows(random, step, 1.0 + pace * step, speed, smoothing, method, prefix="audit/")
    return rows


def _rows(
    random: np.random.Generator, step: int, seconds: float, speed: float, smoothing: float, method: str, prefix: str
) -> list[Row]:
    progress = speed * step / STEPS
    noise = 0.0 if prefix else 0.02
    train = 2.3 / (1 + np.exp(9 * (progress - 0.35))) + 0.003
    train *= float(np.exp(noise * random.normal()))
    valid = 2.3 / (1 + np.exp(9 * (progress - 0.35))) + 0.45 + 0.35 * progress
    errors = {"train": 0.39 * train, "valid": 0.11 + 0.33 * train, "test": 0.12 + 0.33 * train}
    losses = {"train": train, "valid": valid, "test": valid * 1.05}
    uniform = 4 + 300 * progress * np.exp(-3 * progress) * float(np.exp(2 * noise * random.normal()))
    ideal = uniform * (1 - 0.7 * min(progress, 1.0))
    gradient = 3.0 * np.exp(-5 * progress)
    traces = {"ideal": ideal, "uniform": uniform}
    for constant in (0.0, 1.0, 10.0):
        reach = 1 / (1 + 0.25 * constant)  # how much of the reduction this smoothing keeps
        stale = uniform - (uniform - ideal) * reach + (40 * progress if constant == 0 else 0.0)
        traces[f"stale+{constant:g}"] = stale
        if constant == smoothing:
            traces["stale"] = stale
            traces["in_use"] = uniform - 1.1 * (uniform - ideal) * reach if method == "issgd" else uniform
    rows = [Row(step, seconds, f"{prefix}loss/{split}", float(losses[split])) for split in SPLITS]
    rows += [Row(step, seconds, f"{prefix}error/{split}", float(errors[split])) for split in SPLITS]
    if prefix:
        rows.append(Row(step, seconds, "audit/gradient_norm2", float(gradient)))
    else:
        rows.append(Row(step, seconds, "gradient_norm2/bound", float(gradient * 1.2)))
        traces.pop("in_use", None)
    rows += [Row(step, seconds, f"{prefix}trace/{kind}", float(value)) for kind, value in traces.items()]
    return rows


def write_events(folder: RunFolder, exact: bool, workers: int = 3, publishes: int = 12) -> None:
    """Who did what when: in exact mode the master waits after each publish until all chunks are scored."""
    rows = []
    score, train, chunks = 0.11, 0.016 * 32, 6
    now = 0.5
    for version in range(1, publishes + 1):
        rows.append(Event("master", now, now + 0.03, "publish", version))
        start = now + 0.03
        if exact:
            for worker in range(workers):
                ready = start + 0.02
                rows.append(Event(f"worker-{worker}", start, ready, "pull", version))
                for _ in range(chunks // workers + (worker < chunks % workers)):
                    done = ready + score * (1 + 0.1 * worker)
                    rows.append(Event(f"worker-{worker}", ready, done, "score", version))
                    rows.append(Event(f"worker-{worker}", done, done + 0.01, "push", version))
                    ready = done + 0.01
            barrier = start + 0.02 + (score * 1.2 + 0.01) * -(-chunks // workers)
            rows.append(Event("master", start, barrier, "wait", version))
            rows.append(Event("monitor", barrier, barrier + 0.05, "sample", version))
            start = barrier + 0.05
        rows.append(Event("master", start, start + 0.01, "refresh", version))
        now = start + 0.01
        for _ in range(32):
            rows.append(Event("master", now, now + train / 32, "train", version))
            now += train / 32
    if not exact:
        for worker in range(workers):
            ready, count = 0.6 + 0.05 * worker, 0
            version = 1
            while ready < now:
                if count % 4 == 0:
                    newest = max(event.version for event in rows if event.event == "publish" and event.end <= ready)
                    version = newest
                    rows.append(Event(f"worker-{worker}", ready, ready + 0.02, "pull", version))
                    ready += 0.02
                done = ready + score * (1 + 0.1 * worker)
                rows.append(Event(f"worker-{worker}", ready, done, "score", version))
                rows.append(Event(f"worker-{worker}", done, done + 0.01, "push", version))
                ready, count = done + 0.01, count + 1
    writer = TraceWriter(folder.events, Event._fields)
    writer.append(sorted(rows, key=lambda event: event.start))
    writer.close()


def audited_on(run: Run, examples: int | None) -> Run:
    """The same run with its audits on so many examples of each split."""
    monitor = run.config.monitor.model_copy(update={"audit_examples": examples})
    return replace(run, config=run.config.model_copy(update={"monitor": monitor}))


def hash_of(*words: str) -> int:
    """A small number of some words, the same in every process."""
    return sum(ord(letter) * (place + 1) for place, letter in enumerate("".join(words)))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Writes one run's folder; arguments as write_run's."""
    return functools.partial(write_run, tmp_path)


@pytest.fixture
def plane_run(tmp_path: Path) -> PlaneRun:
    """Writes a run on points of a plane whose final parameters are its initial ones; `toy`, 60 of them, unless told."""

    def of(*settings: str, state: str = "finished") -> tuple[Run, Prepared]:
        given = ["data.name=toy", f"data.dir={tmp_path / 'data'}", "master.steps=5", "model.hidden=[5]", *settings]
        config = resolve(assignments([*given, "model.initial_weight_std=0.7"]), "a test")
        if config.data.name == "toy":
            datasets.prepare("toy", tmp_path / "data", size=60)
        folder = run_folder(tmp_path / "results", config, "", "issgd")
        begin_folder(folder, config, "", "issgd", state)
        data = data_of(load_run(folder))
        assert data is not None
        folder.update_manifest(dataset={"name": data.name, "fingerprint": data.fingerprint})
        save_parameters(folder.parameters, Problem(config, data).initial_network(0, torch.device("cpu")))
        return load_run(folder), data

    return of


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and their files hold nothing: for tests of what stands beside them. Two seconds each."""

    def written(figure: Figure, stem: Path) -> list[Path]:
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
        for path in paths:
            path.write_bytes(b"")
        return paths

    monkeypatch.setattr(style, "save", written)


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two settings, two methods, three seeds, all finished, with events. Read only."""
    folders = write_runs(tmp_path_factory.mktemp("results"), events=True)
    return load(folders)
