"""The monitor's numbers against equations.py and a loop over all examples; what it writes, and when."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from issgd_cli.actors.actor import Actor, Operation
from issgd_cli.actors.auditing import AUDIT_DRAWS, AUDIT_MINIBATCH
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import WORK, Monitor, quantities
from issgd_cli.actors.worker import Worker
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Layout, Published, Records, Split, Weights
from issgd_cli.database.documents import UnfitError, read_topic
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.records import FIELDS, NO_ERROR, Event, flaw
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations import alain2015 as equations
from issgd_cli.errors import DamagedError, DataError, RunError
from issgd_cli.methods.proposal import FLOOR
from issgd_cli.methods.smoothing import smoothed
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.problem import Problem
from issgd_cli.runs import traces
from issgd_cli.runs.audits import load_audit, save_audit
from issgd_cli.runs.checkpoints import total_work
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.parameters import load_parameters
from issgd_cli.runs.traces import BLOCK_ENDS
from tests import disks
from tests.points import point_of

CPU = torch.device("cpu")
LAYOUT = Layout(95, 5, 23, 10)

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]
Play = Callable[..., list[tuple[Actor, Operation]]]
Watching = Callable[[Config, MemoryDatabase, RunFolder], Monitor]


@pytest.fixture
def watching(data: Prepared) -> Iterator[Watching]:
    """A monitor whose files are closed in the end."""
    monitors: list[Monitor] = []

    def of(config: Config, database: MemoryDatabase, folder: RunFolder) -> Monitor:
        monitors.append(Monitor(config, Problem(config, data), database, folder, CPU))
        return monitors[-1]

    yield of
    for monitor in monitors:
        monitor.trace.close()
        monitor.events.close()


def all_scored(seed: int = 0) -> dict[Split, Records]:
    """Records as after several versions: every example has a norm at two of them."""
    random = np.random.default_rng(seed)
    found: dict[Split, Records] = {}
    for split in SPLITS:
        arrays: dict[str, Any] = {
            name: (random.exponential(1.0, LAYOUT.shape(split, name))).astype(field.dtype)
            for name, field in FIELDS.items()
        }
        arrays["errors"] = random.integers(0, 2, LAYOUT.examples(split)).astype(np.uint8)
        arrays["previous_versions"] = random.integers(1, 3, LAYOUT.chunks(split)).astype(np.int32)
        arrays["versions"] = arrays["previous_versions"] + 1
        arrays["gradient_versions"] = np.zeros(LAYOUT.chunks(split), np.int32)
        if split == "train":
            arrays["gradient_versions"][[1, 4, 9]] = [3, 1, 2]
        found[split] = Records(**arrays)
    return found


def first_chunks(records: Records, count: int) -> Records:
    """The same with only the first so many chunks ever scored."""
    scored = np.arange(len(records.versions)) < count
    zeros = {name: getattr(records, name) * scored for name in ("versions", "previous_versions", "gradient_versions")}
    return replace(records, **zeros)


# From the database's records


def test_quantities_are_the_equations_of_the_records() -> None:
    records = all_scored()
    values = quantities(records, LAYOUT, 0.5, (0.0, 1.0, 10.0))
    for split in SPLITS:
        assert values[f"loss/{split}"] == pytest.approx(records[split].losses.mean(dtype=np.float64))
        assert values[f"error/{split}"] == pytest.approx(records[split].errors.mean())
    train = records["train"]
    norms, previous = train.norms.astype(np.float64), train.previous_norms.astype(np.float64)
    measured = train.gradient_norms2[[1, 4, 9]]
    bound = np.sqrt(measured).mean() ** 2
    assert values["gradient_norm2/bound"] == pytest.approx(bound)
    assert values["gradient_norm2/unbiased"] == pytest.approx(
        equations.gradient_norm2_unbiased(measured, [10, 10, 5], float((norms**2).mean()), 95)
    )
    assert values["trace/ideal"] == pytest.approx(norms.mean() ** 2 - bound)
    assert values["trace/uniform"] == pytest.approx((norms**2).mean() - bound)
    for name, constant in (("", 0.5), ("+0", 0.0), ("+1", 1.0), ("+10", 10.0)):
        stale = previous + constant
        assert values[f"trace/stale{name}"] == pytest.approx(stale.mean() * (norms**2 / stale).mean() - bound)
    assert len(values) == 6 + 2 + 2 + 4


def test_an_infinite_smoothing_makes_the_stale_trace_the_uniform_one() -> None:
    values = quantities(all_scored(), LAYOUT, math.inf, ())
    assert values["trace/stale"] == pytest.approx(values["trace/uniform"])


def test_a_previous_norm_of_zero_counts_with_the_masters_floor() -> None:
    records = all_scored()
    records["train"].previous_norms[3] = 0
    values = quantities(records, LAYOUT, 0.0, ())
    previous = records["train"].previous_norms.astype(np.float64)
    previous[3] = FLOOR * previous.mean()
    expected = equations.stale_trace(records["train"].norms.astype(np.float64) ** 2, previous, 0.0)
    assert values["trace/stale"] == pytest.approx(expected - values["gradient_norm2/bound"])


def test_nothing_is_said_of_a_split_before_anything_of_it_is_scored() -> None:
    assert quantities({split: LAYOUT.empty(split) for split in SPLITS}, LAYOUT, 1.0, ()) == {}
    records = {**all_scored(), "valid": LAYOUT.empty("valid")}
    names = quantities(records, LAYOUT, 1.0, ()).keys()
    assert not any("valid" in name for name in names)
    assert {"loss/train", "loss/test"} <= names


def test_a_loss_that_knows_no_errors_has_no_row_of_them() -> None:
    records = all_scored()
    without: dict[Split, Records] = {
        split: replace(of, errors=np.full_like(of.errors, NO_ERROR)) for split, of in records.items()
    }
    assert all(flaw({"errors": of.errors}) is None for of in without.values())
    found, expected = (quantities(of, LAYOUT, 1.0, (0.0,)) for of in (without, records))
    assert found == {name: value for name, value in expected.items() if not name.startswith("error/")}
    without["train"].errors[3] = 2
    assert (
        flaw({"errors": without["train"].errors}) == "errors hold 2, where 0 and 1 belong, or 255 where there are none"
    )


def test_means_are_over_the_examples_scored_so_far() -> None:
    records = all_scored()
    records["train"] = first_chunks(records["train"], 3)
    values = quantities(records, LAYOUT, 1.0, (0.0,))
    norms = records["train"].norms[:30].astype(np.float64)
    assert values["loss/train"] == pytest.approx(records["train"].losses[:30].mean(dtype=np.float64))
    assert values["trace/uniform"] + values["gradient_norm2/bound"] == pytest.approx((norms**2).mean())
    assert "gradient_norm2/unbiased" not in values  # it needs the mean over all


def test_traces_wait_for_a_gradient_and_eq_9_for_a_second_norm_of_every_example() -> None:
    records = all_scored()
    train = records["train"]
    records["train"] = replace(train, gradient_versions=np.zeros_like(train.gradient_versions))
    assert not any(name.startswith("trace/") for name in quantities(records, LAYOUT, 1.0, ()))
    once = train.previous_versions.copy()
    once[4] = 0
    records["train"] = replace(train, previous_versions=once)
    names = quantities(records, LAYOUT, 1.0, (0.0,)).keys()
    assert {"trace/ideal", "trace/uniform"} <= names
    assert not any(name.startswith("trace/stale") for name in names)


# What it writes, and when


def played(
    play: Play, watching: Watching, data: Prepared, config: Config, database: MemoryDatabase, folder: RunFolder
) -> tuple[Monitor, Any]:
    monitor = watching(config, database, folder)
    workers = [Worker.of(config, Problem(config, data), database, CPU) for _ in range(config.worker.count)]
    play(monitor, Master.of(config, Problem(config, data), database, folder, CPU), *workers)
    return monitor, traces.read(folder.trace)


def test_in_exact_mode_every_sample_is_of_one_version_and_equals_the_audit_at_its_step(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("monitor.audit_every_steps=3", "worker.gradient_every_chunks=1")
    folder = new_folder("run")
    monitor, table = played(play, watching, data, config, begun(config), folder)
    values = {(row.step, row.quantity): row.value for row in table.itertuples()}
    assert sorted(set(table.step[table.quantity == "loss/train"])) == [0, 3, 6, 9]
    for step in (0, 3, 6, 9):
        for name in ("loss/train", "loss/valid", "loss/test", "error/train", "error/valid", "error/test"):
            assert values[step, name] == pytest.approx(values[step, f"audit/{name}"], rel=1e-5)
        bound, exact = values[step, "gradient_norm2/bound"], values[step, "audit/gradient_norm2"]
        assert bound >= exact * (1 - 1e-5)
        for name in ("ideal", "uniform"):
            assert values[step, f"trace/{name}"] + bound == pytest.approx(
                values[step, f"audit/trace/{name}"] + exact, rel=1e-5
            )
        assert values[step, "audit/trace/ideal"] <= values[step, "audit/trace/in_use"] * (1 + 1e-6)
    assert monitor.status()["audits_left"] == 0
    assert list(folder.audits.glob("*.npz")) == []


def test_the_database_gives_the_unbiased_norm_exactly_when_one_chunk_holds_all(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("worker.chunk_size=1000", "monitor.audit_every_steps=3")
    _, table = played(play, watching, data, config, begun(config), new_folder("run"))
    values = {(row.step, row.quantity): row.value for row in table.itertuples()}
    for step in (0, 3, 6, 9):
        assert values[step, "gradient_norm2/unbiased"] == pytest.approx(values[step, "audit/gradient_norm2"], rel=1e-4)


def test_no_quantity_is_written_that_the_traces_schema_does_not_list(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("monitor.audit_every_steps=3", "monitor.extra_smoothings=[0.0, 2.5]")
    _, table = played(play, watching, data, config, begun(config), new_folder("run"))
    listed = set()
    for name in traces.QUANTITIES:
        head, brace, rest = name.partition("{")
        choices, _, tail = rest.partition("}")
        listed |= {head + choice + tail for choice in choices.split(",")} if brace else {name}
    listed = (listed - {"trace/stale+c"}) | {"trace/stale+0", "trace/stale+2.5"}
    listed = {name for name in listed if not name.startswith("staleness/gradients/")}  # of peers
    # Of audits on a sample, of a method that looks before it draws, and told by actors, of whom none reports here.
    listed -= {"audit/quantity/standard_error", "work/examples_looked_at", "work/in_examples", "audit/work/in_examples"}
    written = {name.removeprefix("audit/") for name in table.quantity}
    assert written <= {name.removeprefix("audit/") for name in listed}
    assert {name for name in table.quantity if not name.startswith("audit/")} <= listed
    # And all of the list is there, but for what only runs write that drop examples, draw a block at once, correct their
    # learning rate, or prune.
    listed -= {"audit/trace/uniform_in_use", "audit/trace/in_use_systematic", "proposal/rate", "audit/epochs"}
    assert listed <= set(table.quantity)


def test_in_exact_mode_samples_come_every_so_many_steps_and_at_the_last(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("master.steps=10", "master.publish_every_steps=2", "monitor.every_steps=5")
    _, table = played(play, watching, data, config, begun(config), new_folder("run"))
    assert sorted(set(table.step[table.quantity == "loss/train"])) == [0, 6, 10]


def test_in_relaxed_mode_samples_come_every_so_many_seconds_and_at_the_end(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("master.mode=relaxed", "master.steps=60", "monitor.every_seconds=0.1")
    _, table = played(play, watching, data, config, begun(config), new_folder("run"))
    samples = table[table.quantity == "work/examples_trained"]
    assert (np.diff(samples.seconds)[:-1] >= 0.1).all()
    assert (np.diff(samples.seconds) < 0.2).all()
    assert samples.step.max() == 60
    assert len(samples) > 3


def test_events_move_from_the_database_into_the_file_once(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    monitor = watching(config, database, folder)
    event = Event("master", 0.5, 1.0, "train", 3)
    database.push_events("master:1", [event])
    monitor.write_events()
    monitor.write_events()
    assert database.events() == {}
    assert [Event(*row) for row in traces.read_events(folder.events).itertuples(index=False)] == [event]
    database.push_events("master:2", [event._replace(version=4)])
    monitor.stop()
    assert traces.read_events(folder.events).version.tolist() == [3, 4]


def test_work_is_of_all_actors_the_restarted_ones_and_the_checkpoints_included(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    names = ("examples_trained", "examples_scored", "bytes_sent")
    database.put("work", {"before": {f"work/{name}": 1000 for name in names}})  # of the checkpoint
    database.publish(Published(1, 2), np.zeros(3, np.float32))
    monitor = watching(config, database, folder)
    database.report("master", {"process": 1, "examples": {"train": 8}, "bytes": 100})
    database.report("worker-0", {"process": 2, "examples": {"score": 30}, "bytes": 10})
    monitor.sample(Published(1, 2))
    database.report("worker-0", {"process": 3, "examples": {"score": 5}, "bytes": 1})  # started again
    monitor.sample(Published(1, 2))
    assert [monitor.latest[f"work/{name}"] for name in names] == [1008, 1035, 1111]
    work = database.get("work") or {}
    assert list(work) == ["before", "master:1", "worker-0:2", "worker-0:3"]
    assert work["worker-0:2"] == {"work/examples_trained": 0, "work/examples_scored": 30, "work/bytes_sent": 10}
    assert total_work(work) == {"work/examples_trained": 1008, "work/examples_scored": 1035, "work/bytes_sent": 1111}
    assert read_topic("work")(json.dumps(work).encode()) == work


def test_work_is_counted_once_by_a_monitor_that_is_started_again(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    database.publish(Published(1, 2), np.zeros(3, np.float32))
    database.report("master", {"process": 1, "examples": {"train": 8}, "bytes": 100})
    database.report("worker-0", {"process": 2, "examples": {"score": 30}, "bytes": 10})
    watching(config, database, folder).sample(Published(1, 2))
    database.report("master", {"process": 1, "examples": {"train": 16}, "bytes": 200})  # the same life goes on
    database.report("worker-0", {"process": 3, "examples": {"score": 5}, "bytes": 1})
    for _ in range(3):
        monitor = watching(config, database, folder)
        monitor.sample(Published(2, 3))
        assert [monitor.latest[name] for name in WORK] == [16, 35, 211]


def test_the_count_of_many_lives_stays_short_and_right(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.actors.monitor.MOST_LIVES", 5)
    config, folder = configured(), new_folder("run")
    database = begun(config)
    monitor = watching(config, database, folder)
    for process in range(40):
        if process % 7 == 6:
            monitor = watching(config, database, folder)
        database.report("master", {"process": 1, "examples": {"train": process}, "bytes": 0})
        for worker in range(2):
            database.report(f"worker-{worker}", {"process": process, "examples": {"score": 10}, "bytes": 1})
        if process == 3:  # not heard of for long, and then again
            lost = database._statuses.pop("worker-1")
            monitor.count_work()
            database.report("worker-1", lost)
        totals = monitor.count_work()
        assert totals == {WORK[0]: process, WORK[1]: 20 * (process + 1), WORK[2]: 2 * (process + 1)}
        assert len(database.get("work") or {}) <= 6


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('{"work/bytes_sent": 3}', "where a JSON object belongs"),
        ('{"master:1": {"work/bytes_sent": NaN}}', "is no number"),
        ('{"master:1": {"work/bytes_sent": "3"}}', "is no number"),
        ('{"master 1": {}}', "is no name"),
        ('{"master:": {}}', "is no name"),
        ('{":1": {}}', "is no name"),
        ("[]", "where a JSON object belongs"),
    ],
)
def test_work_that_is_no_counts_of_lives_is_unfit(text: str, wrong: str) -> None:
    with pytest.raises(UnfitError, match=wrong):
        read_topic("work")(text.encode())


def test_the_work_of_the_longest_name_of_an_actor_is_read() -> None:
    work = {"before": {WORK[0]: math.inf}, "w" * 200 + ":123": {WORK[0]: 2.0**60}}
    assert read_topic("work")(json.dumps(work).encode()) == work


# Killed, or without space, at any moment


def test_the_rows_of_a_sample_a_report_and_an_audit_end_as_a_restarted_monitor_expects(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("monitor.audit_every_steps=3", "proposal.staleness_limit_versions=1")
    folder = new_folder("run")
    _, table = played(play, watching, data, config, begun(config), folder)
    blocks: list[list[Any]] = [[]]
    for each in table.itertuples():
        blocks[-1].append(each)
        if each.quantity in BLOCK_ENDS:
            blocks.append([])
    assert blocks.pop() == []
    kinds = [("audit/", 4), ("proposal/", 3), ("work/", 4)]
    assert {kind: sum(block[-1].quantity.startswith(kind) for block in blocks) for kind, _ in kinds} == dict(kinds)
    for block in blocks:
        assert len(block) > 5
        assert len({each.step for each in block}) == 1  # so that cutting.drop_from takes whole blocks
        audit = block[-1].quantity == "audit/trace/in_use"
        assert all(each.quantity.startswith("audit/") == audit for each in block)


def prepared_audits(data: Prepared, config: Config, folder: RunFolder, steps: Sequence[int] = (5, 12)) -> RunFolder:
    """A folder with audit points of some steps."""
    model = mlp(data.features, config.model.hidden, data.classes)
    initialise(model, 0, 0.5)
    flatten_parameters(model)
    for step in steps:
        save_audit(folder.audits, replace(point_of(model, np.linspace(0.1, 1, 95), np.ones(95)), step=step))
    return folder


def test_a_monitor_killed_at_any_byte_of_an_audits_rows_leaves_the_same_file_in_the_end(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured()
    database = begun(config)
    database.put("finished", {"step": 12, "version": 1})
    folder = prepared_audits(data, config, new_folder("whole"))
    play(watching(config, database, folder))
    whole = folder.trace.read_bytes()
    start = len("step,seconds,quantity,value\n")
    for number, size in enumerate([*range(start, len(whole), len(whole) // 20), len(whole)]):
        folder = prepared_audits(data, config, new_folder(f"cut-{number}"))
        folder.trace.write_bytes(whole[:size])
        play(watching(config, database, folder))
        assert folder.trace.read_bytes() == whole
        assert list(folder.audits.iterdir()) == []


def forgetful(database: MemoryDatabase) -> None:
    """The next batches are not forgotten: whoever wrote them is killed."""

    def forget_events(batches: Sequence[str]) -> None:
        del database.forget_events
        raise KeyboardInterrupt

    database.forget_events = forget_events  # type: ignore[method-assign]


def test_events_that_a_killed_monitor_had_written_and_not_forgotten_are_written_once(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config = configured()
    database = begun(config)
    events = [Event("master", 0.1 * number, 0.1 * number + 1 / 3, "train", number) for number in range(4)]
    first = new_folder("first")
    monitor = watching(config, database, first)
    database.push_events("master:1:0", events[:1])
    monitor.write_events()
    database.push_events("master:1:1", events[1:3])
    forgetful(database)
    with pytest.raises(KeyboardInterrupt):
        monitor.write_events()
    assert list(database.events()) == ["master:1:1"]
    database.push_events("master:1:2", events[3:])
    content = first.events.read_bytes()
    waiting = database.events()
    whole = content + b"master,0.30000000000000004,0.6333333333333333,train,3\n"
    sizes = range(content.index(b"\n", content.index(b"master")) + 1, len(content) + 1)
    for size in sizes:  # and a part of the last batch may be all that was written
        for batch, each in waiting.items():
            database.push_events(batch, each)
        folder = new_folder(f"killed-{size}")
        folder.events.write_bytes(content[:size])
        monitor = watching(config, database, folder)
        monitor.write_events()
        monitor.write_events()
        assert sorted(folder.events.read_bytes().splitlines()) == sorted(whole.splitlines())
        assert database.events() == {}


def test_a_batch_that_is_handed_over_again_is_written_once(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    monitor = watching(config, database, folder)
    monitor.write_events()
    event = Event("worker-0", 0.5, 1.0, "push", 3)
    for number, batch in enumerate(["worker-0:7:00000000", "worker-0:7:00000000", "worker-0:7:00000001"]):
        database.push_events(batch, [event._replace(version=number)])
        monitor.write_events()
        assert database.events() == {}
    assert traces.read_events(folder.events).version.tolist() == [0, 2]


@pytest.mark.parametrize("mode", ["exact", "relaxed"])
def test_the_last_sample_is_taken_once_by_a_monitor_killed_after_it(
    data: Prepared,
    configured: Configured,
    begun: Begun,
    new_folder: NewFolder,
    play: Play,
    watching: Watching,
    mode: str,
) -> None:
    config, folder = configured(f"master.mode={mode}", "monitor.every_seconds=1000"), new_folder("run")
    database = begun(config)
    _, table = played(play, watching, data, config, database, folder)
    assert table.step[table.quantity == WORK[-1]].tolist() == ([0, 3, 6, 9] if mode == "exact" else [0, 9])
    whole = folder.trace.read_bytes()
    for _ in range(2):
        play(watching(config, database, folder))
        assert folder.trace.read_bytes() == whole
    database._documents.pop("finished")  # killed before the master has said so
    monitor = watching(config, database, folder)
    play(monitor, until=lambda actor, operation: operation.name == "wait")
    again = traces.read(folder.trace)
    last = again.step[again.quantity == WORK[-1]].tolist()
    assert last == ([0, 3, 6, 9] if mode == "exact" else [0, 9, 9])  # by time, a restarted one samples at once
    assert not again.duplicated(["step", "seconds", "quantity"]).any()
    assert (database.get("acknowledged") == {"version": 4}) == (mode == "exact")


def test_a_torn_sample_is_taken_again(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    played(play, watching, data, config, database, folder)
    whole = folder.trace.read_text().splitlines(keepends=True)
    audits = sum("audit/" in line for line in whole)  # of the last step
    sampled = whole[: len(whole) - audits]
    start = max(number for number, line in enumerate(sampled) if "proposal/entropy" in line) + 1
    assert all(line.startswith("9,") for line in sampled[start:])
    for kept in range(start, len(sampled)):
        folder.trace.write_text("".join(sampled[:kept]))
        play(watching(config, database, folder))
        found = folder.trace.read_text().splitlines(keepends=True)
        # The database stands still: all is the same again, but for when it was sampled.
        assert [line.split(",")[::2] for line in found] == [line.split(",")[::2] for line in sampled]


def test_a_full_disk_ends_the_monitor_clearly_and_leaves_whole_what_it_has_written(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    monitor, _ = played(play, watching, data, config, database, folder)
    content = folder.trace.read_bytes()
    with disks.full(len(content) + 100), pytest.raises(RunError, match=r"trace\.csv cannot be written: .*--resume"):
        monitor.sample(Published(5, 12))
    assert folder.trace.read_bytes() == content
    database.push_events("master:1:9", [Event("master", 0.5, 1.0, "train", 3)] * 100)
    events = folder.events.read_bytes()
    with disks.full(len(events) + 100), pytest.raises(RunError, match=r"events\.csv cannot be written: .*--resume"):
        monitor.stop()
    assert folder.events.read_bytes() == events
    assert list(database.events()) == ["master:1:9"]  # for the next monitor
    monitor.stop()
    assert len(folder.events.read_bytes().splitlines()) == len(events.splitlines()) + 100


def test_a_damaged_audit_point_is_named_with_what_to_do(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured()
    database = begun(config)
    database.put("finished", {"step": 12, "version": 1})
    folder = prepared_audits(data, config, new_folder("run"))
    path: Path = folder.audits / "step-00000012.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=r"step-00000012\.npz is damaged .*Remove it, its audit is lost"):
        play(watching(config, database, folder))
    path.unlink()  # as told
    play(watching(config, database, folder))
    table = traces.read(folder.trace)
    assert table.step[table.quantity == "audit/trace/in_use"].tolist() == [5]


def test_no_audit_of_changed_data_is_written_and_its_point_stays(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play
) -> None:
    config = configured()
    database = begun(config)
    database.put("finished", {"step": 12, "version": 1})
    folder = prepared_audits(data, config, new_folder("run"))
    changed = replace(data, stamps={**data.stamps, "valid-images.npy": [1, 1]})
    monitor = Monitor(config, Problem(config, changed), database, folder, CPU)
    with pytest.raises(DataError, match=r"valid-images\.npy has been changed .*--resume"):
        play(monitor)
    monitor.trace.close()
    monitor.events.close()
    assert len(traces.read(folder.trace)) == 0
    assert len(list(folder.audits.iterdir())) == 2


def test_a_report_of_the_proposal_is_written_once_even_after_a_restart(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    for step in (3, 3, 6):
        database.put("proposal", {"step": step, "seconds": 1.0, "values": {"proposal/entropy": float(step)}})
        watching(config, database, folder).sample(Published(2, step))
    table = traces.read(folder.trace)
    assert table.value[table.quantity == "proposal/entropy"].tolist() == [3, 6]


def test_a_trace_that_holds_no_report_of_the_proposal_yet_can_be_gone_on_with(
    configured: Configured, begun: Begun, new_folder: NewFolder, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    database = begun(config)
    watching(config, database, folder).sample(Published(1, 0))  # before the master's first refresh
    assert len(traces.read(folder.trace)) > 0
    watching(config, database, folder).sample(Published(1, 0))


def test_audits_happen_after_the_last_step_only_and_in_order(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config, folder = configured("monitor.audit_every_steps=2"), new_folder("run")
    database = begun(config)
    monitor = watching(config, database, folder)
    master = Master.of(config, Problem(config, data), database, folder, CPU)
    announced = play(monitor, master, *(Worker.of(config, Problem(config, data), database, CPU) for _ in range(2)))
    names = [operation.name for _, operation in announced]
    assert names.index("audit") > max(
        place for place, name in enumerate(names) if name in ("train", "publish", "score")
    )
    # Steps 0, 2, 4, 6, 8 and the last: each of the splits, and draws of the audit's own.
    assert names.count("audit") == 6 * (len(SPLITS) + AUDIT_DRAWS // AUDIT_MINIBATCH)
    audits = traces.read(folder.trace).query("quantity == 'audit/loss/train'")
    assert audits.step.tolist() == [0, 2, 4, 6, 8, 9]


def test_audits_on_a_sample_are_on_the_same_examples_at_every_audit_of_a_run(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config = configured("monitor.audit_every_steps=3", "monitor.audit_examples=40", "monitor.extra_smoothings=[1.0]")
    monitor, table = played(play, watching, data, config, begun(config), new_folder("run"))
    audits = table[table.quantity.str.startswith("audit/")]
    estimates = {name for name in audits.quantity if not name.endswith("/standard_error")}
    of_means = estimates - {"audit/rank_correlation"}
    assert set(audits.quantity) - estimates == {f"{name}/standard_error" for name in of_means}
    assert "audit/trace/stale+1" in estimates
    assert "audit/estimator/error_ratio" not in estimates
    assert set(audits.groupby("step").quantity.last()) == {"audit/trace/in_use"}  # ends the block
    errors = audits[audits.quantity.str.endswith("standard_error")]
    whole = errors.quantity.str.contains("valid|test")  # 5 and 23 examples, all of them
    assert (errors.value[whole] == 0).all()
    assert (errors.value[~whole] > 0).all()
    sample = monitor.sample_of_audits
    assert sample is not None
    assert {split: len(rows) for split, rows in sample.items()} == {"train": 40, "valid": 5, "test": 23}
    last = audits[(audits.step == 9)].set_index("quantity").value
    model = monitor.problem.network(CPU)
    load_parameters(monitor.folder.parameters, model)
    with torch.no_grad():
        inputs, labels = monitor.examples["train"][sample["train"]]
        losses = monitor.problem.loss(model(inputs), labels).double().numpy()
    assert last["audit/loss/train"] == pytest.approx(losses.mean(), rel=1e-6)
    error = losses.std(ddof=1) * (55 / 95 / 40) ** 0.5
    assert last["audit/loss/train/standard_error"] == pytest.approx(error, rel=1e-5)


def test_audits_on_a_sample_of_all_are_those_without_a_sample_to_the_bit(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    found = []
    for number, settings in enumerate(([], ["monitor.audit_examples=95"], ["monitor.audit_examples=1000"])):
        config = configured("monitor.audit_every_steps=3", *settings)
        _, table = played(play, watching, data, config, begun(config), new_folder(str(number)))
        found.append(table[table.quantity.str.startswith("audit/")][["step", "quantity", "value"]])
    for table in found[1:]:
        pd.testing.assert_frame_equal(table, found[0], check_exact=True)


def test_audit_points_left_by_an_interruption_are_audited_later(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, watching: Watching
) -> None:
    config, folder = configured(), new_folder("run")
    model = mlp(data.features, config.model.hidden, data.classes)
    initialise(model, 0, 0.5)
    flatten_parameters(model)
    save_audit(folder.audits, point_of(model, np.ones(95), np.ones(95)))
    database = begun(config)
    database.put("finished", {"step": 12, "version": 1})
    play(watching(config, database, folder))
    table = traces.read(folder.trace)
    assert set(table.step) == {12}
    assert (table.seconds == 3.5).all()
    assert not list(folder.audits.iterdir())


def test_the_weights_in_use_are_those_of_the_last_draw_smoothing_included(
    data: Prepared,
    configured: Configured,
    begun: Begun,
    new_folder: NewFolder,
    play: Play,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the previous norms are what the same look at the table gave."""
    config, folder = configured("proposal.smoothing=0.75"), new_folder("run")
    database = begun(config)
    master = Master.of(config, Problem(config, data), database, folder, CPU)
    monitor = Monitor(config, Problem(config, data), database, folder, CPU)
    read: list[Weights] = []

    def reading() -> Weights:
        read.append(MemoryDatabase.weights(database))
        return read[-1]

    monkeypatch.setattr(database, "weights", reading)

    def finished(actor: Actor, operation: Operation) -> bool:
        return operation.name == "audit"

    play(monitor, master, *(Worker.of(config, Problem(config, data), database, CPU) for _ in range(2)), until=finished)
    monitor.trace.close()
    monitor.events.close()
    point = load_audit(folder.audits / "step-00000009.npz")
    np.testing.assert_allclose(point.weights, smoothed(read[-1].norms, 0.75), rtol=1e-12)
    np.testing.assert_array_equal(point.previous, read[-1].previous_norms)
    np.testing.assert_array_equal(read[-1].previous_norms, read[-2].norms)  # behind barriers, of the version before
    assert not np.array_equal(read[-1].norms, read[-2].norms)
    assert point.smoothing == 0.75
