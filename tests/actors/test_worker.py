"""A worker: what it scores, in what order, and that how many there are changes nothing in exact mode."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from issgd_cli.actors.actor import Actor, Operation
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.worker import LEAST_LEASE_SECONDS, Worker, turns_of_splits
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Database, Published, Split
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets import prepared
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DataError, RecordError, RunError
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.problem import Problem
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]
Play = Callable[..., list[tuple[Actor, Operation]]]


def published(database: Database, config: Config, data: Prepared, version: int = 1, seed: int = 0) -> torch.nn.Module:
    """The model whose parameters are published under this version."""
    model = mlp(data.features, config.model.hidden, data.classes)
    initialise(model, seed, 0.5)
    database.publish(Published(version, 3 * version), flatten_parameters(model).numpy().copy())
    return model


def operations(worker: Worker, count: int) -> list[Operation]:
    """The first so many of its life."""
    life = worker.run()
    return [next(life) for _ in range(count)]


# What it scores


@pytest.mark.parametrize("split", SPLITS)
def test_a_chunks_scores_are_its_examples_losses_errors_and_gradient_norms(
    data: Prepared, configured: Configured, begun: Begun, split: Split
) -> None:
    config = configured()
    database = begun(config)
    model = published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    operations(worker, 2)  # pulled
    chunk = Chunk(split, database.layout().chunks(split) - 1)  # the short one
    scores = worker.score(chunk)
    span = database.layout().span(split, chunk.number)
    pixels = data.splits[split].inputs[span].astype(np.float64)
    inputs = torch.from_numpy((pixels - data.mean) / data.std)
    labels = torch.from_numpy(data.splits[split].targets[span])
    assert scores.norms.shape == scores.losses.shape == scores.errors.shape == (len(labels),)
    wide = model.double()
    for number in range(len(labels)):
        logits = wide(inputs[number : number + 1])
        loss = functional.cross_entropy(logits, labels[number : number + 1])
        gradients = torch.autograd.grad(loss, list(wide.parameters()))
        norm = sum(float(part.square().sum()) for part in gradients) ** 0.5
        assert scores.norms[number] == pytest.approx(norm, rel=1e-4)
        assert scores.losses[number] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert scores.errors[number] == int(logits.argmax() != labels[number])


def test_the_chunks_gradient_norm_is_that_of_its_mean_loss(
    data: Prepared, configured: Configured, begun: Begun
) -> None:
    config = configured("worker.gradient_every_chunks=1")
    database = begun(config)
    model = published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    operations(worker, 2)
    inputs, labels = Examples(data, data.splits["train"], CPU)[slice(20, 30)]
    loss = functional.cross_entropy(model(inputs), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = sum(float(part.double().square().sum()) for part in gradients)
    assert worker.score(Chunk("train", 2)).gradient_norm2 == pytest.approx(expected, rel=1e-5)
    for split in ("valid", "test"):
        assert worker.score(Chunk(split, 0)).gradient_norm2 is None


@pytest.mark.parametrize("every", [1, 3, 4, 7, 20])
def test_at_each_version_one_chunk_in_so_many_gives_its_gradient_and_in_turn_every_one(
    data: Prepared, configured: Configured, begun: Begun, every: int
) -> None:
    config = configured(f"worker.gradient_every_chunks={every}")
    worker = Worker.of(config, Problem(config, data), begun(config), CPU)
    chunks = worker.layout.chunks("train")
    given: Counter[int] = Counter()
    period = min(every, chunks)
    for version in range(1, period + 1):
        worker.version = version
        at_this_version = [chunk for chunk in range(chunks) if worker.score(Chunk("train", chunk)).gradient_norm2]
        assert chunks // period <= len(at_this_version) <= -(-chunks // period)
        given.update(at_this_version)
    assert given == Counter(range(chunks))


# Its life


def test_a_worker_waits_until_there_are_parameters(data: Prepared, configured: Configured, begun: Begun) -> None:
    config = configured()
    database = begun(config)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    life = worker.run()
    assert [next(life).name for _ in range(3)] == ["wait"] * 3
    published(database, config, data)
    assert [next(life).name for _ in range(3)] == ["pull", "score", "push"]


def test_a_worker_pulls_only_what_is_new_and_scores_every_chunk_once_at_a_version(
    data: Prepared, configured: Configured, begun: Begun
) -> None:
    config = configured()
    database = begun(config)
    published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    life = worker.run()
    done = [next(life) for _ in range(60)]
    names = Counter(operation.name for operation in done)
    assert names["pull"] == 1
    assert names["score"] == names["push"] == 14  # 10 + 1 + 3 chunks
    assert sum(operation.examples for operation in done) == 95 + 5 + 23
    assert database.behind(1) == 0
    assert {operation.seconds > 0 for operation in done if operation.name == "wait"} == {True}
    published(database, config, data, version=5, seed=1)
    done = [next(life) for _ in range(60)]
    assert Counter(operation.name for operation in done)["pull"] == 1
    assert database.behind(5) == 0
    records = database.records()["train"]
    assert set(records.previous_versions.tolist()) == {1}


def test_a_relaxed_worker_looks_for_new_parameters_after_so_many_chunks(
    data: Prepared, configured: Configured, begun: Begun
) -> None:
    config = configured("master.mode=relaxed", "worker.pull_every_chunks=4")
    database = begun(config)
    published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    life = worker.run()
    assert [next(life).name for _ in range(3)] == ["pull", "score", "push"]
    published(database, config, data, version=2, seed=1)
    names = []
    while (operation := next(life)).name != "pull":
        names.append(operation.name)
    assert names == ["score", "push"] * 3
    next(life)
    assert worker.version == 2


def test_a_worker_leaves_when_the_master_has_finished(
    data: Prepared, configured: Configured, begun: Begun, play: Play
) -> None:
    config = configured()
    database = begun(config)
    published(database, config, data)
    database.put("finished", {"step": 9, "version": 1})
    assert play(Worker.of(config, Problem(config, data), database, CPU)) == []


def test_what_a_killed_worker_left_is_scored_by_another_when_its_lease_is_over(
    data: Prepared, configured: Configured, begun: Begun, clock: list[float]
) -> None:
    config = configured()
    database = begun(config)
    published(database, config, data)
    killed, other = (Worker.of(config, Problem(config, data), database, CPU) for _ in range(2))
    assert operations(killed, 2)[1].name == "score"  # and it never pushes
    life = other.run()
    for _ in range(60):
        next(life)
    assert database.behind(1) == 1
    clock[0] += killed.lease + 1
    for _ in range(10):
        next(life)
    assert database.behind(1) == 0


def test_the_lease_follows_the_time_that_a_chunk_takes(
    data: Prepared, configured: Configured, begun: Begun, clock: list[float]
) -> None:
    config = configured()
    database = begun(config)
    published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    life = worker.run()
    next(life), next(life)
    clock[0] += 10.0
    next(life), next(life)
    assert worker.lease == pytest.approx(40)
    next(life), next(life)
    assert worker.lease == LEAST_LEASE_SECONDS


# What it must not push


def flawed(scores: ChunkScores) -> dict[str, ChunkScores]:
    """Of the scores of a chunk, what cannot be true."""
    found = {}
    for name, value in {"NaN": np.nan, "infinite": np.inf, "negative": -1.0}.items():
        norms = scores.norms.copy()
        norms[-1] = value
        found[f"a norm {name}"] = scores._replace(norms=norms)
        found[f"a gradient {name}"] = scores._replace(gradient_norm2=value)
        if value != -1.0:
            found[f"a loss {name}"] = scores._replace(losses=norms)
    found["too few"] = scores._replace(norms=scores.norms[1:])
    norms = np.append(scores.norms, np.float32(1)).astype(np.float32)
    found["too many"] = scores._replace(norms=norms)
    found["an error of 2"] = scores._replace(errors=np.full_like(scores.errors, 2))
    return found


FLAWS = list(flawed(ChunkScores(np.ones(2, np.float32), np.ones(2, np.float32), np.ones(2, np.uint8), None)))


@pytest.mark.parametrize("mode", ["relaxed", "exact"])
@pytest.mark.parametrize("flaw", FLAWS)
def test_scores_that_cannot_be_true_never_reach_the_table(
    data: Prepared, configured: Configured, begun: Begun, monkeypatch: pytest.MonkeyPatch, flaw: str, mode: str
) -> None:
    config = configured(f"master.mode={mode}", "worker.pull_every_chunks=100")
    database = begun(config)
    published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    score = worker.scorer.score
    monkeypatch.setattr(worker.scorer, "score", lambda chunk, version: flawed(score(chunk, version))[flaw])
    life = worker.run()
    assert [next(life).name for _ in range(3)] == ["pull", "score", "push"]
    if mode == "exact":  # its chunk would be waited for in vain
        with pytest.raises(RecordError, match=r"The scores of .*diverged by version 1 .*optimizer\.learning_rate"):
            next(life)
    else:
        next(life)
        (notice,) = worker.notices
        assert "The scores of" in notice
    assert database.behind(1) == 14
    for split, records in database.records().items():
        assert not records.versions.any(), split
        assert not records.norms.any(), split


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_no_scores_are_pushed_that_may_be_of_changed_data(
    data: Prepared, configured: Configured, begun: Begun, tmp_path: Path, what: str
) -> None:
    shutil.copytree(data.directory, tmp_path / "data")
    copied = prepared.load(tmp_path / "data")
    config = configured()
    database = begun(config)
    published(database, config, data)
    life = Worker.of(config, Problem(config, copied), database, CPU).run()
    assert [next(life).name for _ in range(5)] == ["pull", "score", "push", "score", "push"]
    path = tmp_path / "data" / "train-images.npy"
    path.unlink() if what == "removed" else path.touch()
    with pytest.raises(DataError, match=rf"train-images\.npy has been {what}"):
        next(life)
    assert database.behind(1) == 13  # the first one only was pushed


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 24.0 MiB for an array"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore about it."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["bare", "numpy", "cuda", "cpu", "cublas"],
)
def test_memory_that_runs_out_is_told_with_the_size_of_the_chunk(
    data: Prepared, configured: Configured, begun: Begun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    config = configured()
    database = begun(config)
    published(database, config, data)
    worker = Worker.of(config, Problem(config, data), database, CPU)

    def fail(chunk: Chunk, version: int) -> None:
        raise error

    monkeypatch.setattr(worker.scorer, "score", fail)
    life = worker.run()
    assert [next(life).name for _ in range(2)] == ["pull", "score"]
    with pytest.raises(RunError, match=r"chunk of 10 examples .*`worker\.count`.*`worker\.chunk_size`") as told:
        next(life)
    assert "\n" not in str(told.value)
    assert database.behind(1) == 14


def test_any_other_error_while_scoring_stays_what_it_is(
    data: Prepared, configured: Configured, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured()
    worker = Worker.of(config, Problem(config, data), begun(config), CPU)

    def fail(chunk: Chunk, version: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(worker.scorer, "score", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        worker.score(Chunk("train", 0))


# Whose turn it is


@pytest.mark.parametrize("shares", [(20, 1, 1), (1, 1, 1), (3, 2, 1), (7, 3, 5)])
def test_turns_are_dealt_in_the_ratio_of_the_shares_and_spread_evenly(shares: tuple[int, int, int]) -> None:
    turns = turns_of_splits(shares)
    assert Counter(turns) == dict(zip(SPLITS, shares, strict=True))
    for split, share in zip(SPLITS, shares, strict=True):
        places = [place for place, turn in enumerate(turns) if turn == split]
        gaps = np.diff([*places, places[0] + len(turns)])
        assert gaps.max() <= 2 * len(turns) / share + 1


def test_the_shares_decide_what_is_scored_while_all_is_behind(
    data: Prepared, configured: Configured, begun: Begun
) -> None:
    config = configured("master.mode=relaxed", "worker.shares=[2, 1, 1]", "worker.pull_every_chunks=1000")
    database = begun(config)
    worker = Worker.of(config, Problem(config, data), database, CPU)
    life = worker.run()
    next(life)
    published(database, config, data)
    assert next(life).name == "pull"
    chunks: list[Operation] = [next(life) for _ in range(8)]
    assert [operation.name for operation in chunks] == ["score", "push"] * 4
    sizes = [operation.examples for operation in chunks if operation.name == "score"]
    assert sorted(sizes) == [5, 10, 10, 10]  # of train two, of valid (5 examples) and of test one


# How many there are


def lasting(folder: RunFolder) -> list[tuple[Any, ...]]:
    """The trace's rows but clocks and work."""
    table = traces.read(folder.trace)
    kept = table[~table.quantity.str.contains("seconds|work/")][["step", "quantity", "value"]]
    return [tuple(row) for row in kept.itertuples(index=False)]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["proposal.smoothing=variance-optimal", "proposal.staleness_limit_versions=1"],
        ["proposal.method=sgd", "worker.shares=[1, 5, 2]"],
    ],
)
def test_an_exact_runs_trace_is_the_same_to_the_bit_for_1_2_and_5_workers(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, settings: list[str]
) -> None:
    found = []
    for count in (1, 2, 5):
        config = configured(f"worker.count={count}", "monitor.audit_every_steps=4", *settings)
        folder, database = new_folder(f"workers-{count}"), begun(config)
        monitor = Monitor(config, Problem(config, data), database, folder, CPU)
        workers = [Worker.of(config, Problem(config, data), database, CPU) for _ in range(count)]
        play(monitor, *workers, Master.of(config, Problem(config, data), database, folder, CPU))
        monitor.trace.close()
        monitor.events.close()
        found.append(lasting(folder))
    assert len(found[0]) > 50
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_an_exact_run_ends_even_if_a_worker_is_killed_on_the_way(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, clock: list[float]
) -> None:
    config = configured()
    folder, database = new_folder("run"), begun(config)
    monitor, master = (
        Monitor(config, Problem(config, data), database, folder, CPU),
        Master.of(config, Problem(config, data), database, folder, CPU),
    )
    workers = [Worker.of(config, Problem(config, data), database, CPU) for _ in range(2)]
    actors: list[Actor] = [monitor, master, *workers]
    lives = [actor.run() for actor in actors]
    for _ in range(30):
        for life in lives:
            next(life)
    assert database.behind(2) > 0
    lives.pop()
    rounds = 0
    while master.learner.step < 9 or database.get("finished") is None:
        for life in lives:
            operation = next(life, None)
            clock[0] += 0.01 + (operation.seconds if isinstance(operation, Operation) else 0)
        rounds += 1
        assert rounds < 20_000
    for life in lives:
        for _ in life:
            pass
    monitor.trace.close()
    monitor.events.close()
    assert traces.read(folder.trace).step.max() == 9


def test_a_worker_in_bfloat16_pushes_nearly_the_same_norms_and_the_same_gradient(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder
) -> None:
    """||g_B||^2 goes into the trace, so it stays float32's."""
    pushed = []
    for precision in ("float32", "bfloat16"):
        config = configured("master.mode=relaxed", f"worker.precision={precision}")
        database = begun(config)
        master = Master.of(config, Problem(config, data), database, new_folder(precision), CPU)
        database.publish(Published(1, 0), master.learner.parameters.numpy())
        worker = Worker.of(config, Problem(config, data), database, CPU)
        for _ in worker._pull():
            pass
        pushed.append([worker.score(Chunk("train", number)) for number in range(4)])
    for exact, reduced in zip(*pushed, strict=True):
        np.testing.assert_allclose(reduced.norms, exact.norms, rtol=0.1)
        assert (exact.gradient_norm2 is None) == (reduced.gradient_norm2 is None)
        if exact.gradient_norm2 is not None:
            assert reduced.gradient_norm2 == exact.gradient_norm2
            np.testing.assert_array_equal(reduced.norms, exact.norms)
        else:
            assert not np.array_equal(reduced.norms, exact.norms)
