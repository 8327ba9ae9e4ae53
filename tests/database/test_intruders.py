"""Garbage in every key that anyone reads, in turn: a clear error or a complaint, no crash, no hang, no wrong draw."""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import redis
import torch

from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.recorder import Recorder
from issgd_cli.actors.worker import Worker
from issgd_cli.clusters.resuming import set_back
from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Layout, Published, Topic
from issgd_cli.database.documents import read_topic
from issgd_cli.database.records import FIELDS, flaw
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import Server
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DatabaseError, IssgdError, RecordError
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.masters import refresh
from tests.servers import administered

RUN = "intruders/a/seed-000-0"
CPU = torch.device("cpu")
Configured = Callable[..., Config]

# A monitor that finds garbage leaves its open files to the end of its process, which here goes on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ARRAYS = [f"{split}:{field}" for split in SPLITS for field in FIELDS]
TOLD = [key for key in ARRAYS if not key.endswith(":seconds")]  # which an idle worker stamps anew, whole
DOCUMENTS = ["start", "layout", "p:cur", *get_args(Topic)]
HASHES = ["status", "events", *(f"{split}:claims" for split in SPLITS)]
KEYS = [*ARRAYS, *DOCUMENTS, *HASHES, "p:1:0", *(f"{split}:cursor" for split in SPLITS)]


class Stage(NamedTuple):
    """A small run that has just been published and scored, and everyone who reads it."""

    url: str
    client: "redis.Redis"
    config: Config
    data: Prepared
    folder: RunFolder

    def open(self) -> RedisDatabase:
        return RedisDatabase(self.url, RUN, patient=False)

    def readers(self) -> dict[str, Callable[[RedisDatabase], object]]:
        """What launcher, worker, monitor and master read, as they read it."""

        def launcher(database: RedisDatabase) -> object:
            database.statuses()
            return database.seconds()

        def joining(database: RedisDatabase) -> object:
            return resolve((database.get("description") or {"config": {}})["config"], "the description")

        def worker(database: RedisDatabase) -> object:
            actor = Worker.of(self.config, Problem(self.config, self.data), database, CPU)
            operations = list(itertools.islice(actor.run(), 12))
            Recorder("worker-0", actor, 1).report(database, "score")
            return operations

        def monitor(database: RedisDatabase) -> object:
            actor = Monitor(self.config, Problem(self.config, self.data), database, self.folder, CPU)
            with contextlib.closing(actor.trace), contextlib.closing(actor.events):
                list(itertools.islice(actor.run(), 3))
                actor.sample(Published(1, 0))
                Recorder("monitor", actor, 1).report(database, "sample")
                return actor.latest

        def master(database: RedisDatabase) -> object:
            actor = Master.of(self.config, Problem(self.config, self.data), database, self.folder, CPU)
            actor.publishing.version = 2
            refresh(actor)
            actor.checkpoint(actor.database.seconds())
            return actor.method.proposal.weights

        def barrier(database: RedisDatabase) -> object:
            actor = Master.of(self.config, Problem(self.config, self.data), database, self.folder, CPU)
            return actor.publishing.is_everywhere(Published(1, 0))

        return {
            "launcher": launcher,
            "joining": joining,
            "worker": worker,
            "monitor": monitor,
            "master": master,
            "barrier": barrier,
        }


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    with administered(tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture
def stage(
    servers: tuple[Server, str],
    data: Prepared,
    configured: Configured,
    new_folder: Callable[[str], RunFolder],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    monkeypatch.setattr(os, "fsync", lambda file: None)  # thousands of small files, none of them to be kept
    config = configured("master.mode=relaxed", "proposal.smoothing=variance-optimal")
    folder = new_folder("run")
    database = RedisDatabase(servers[0].url, RUN)
    set_back(database, folder, config, Problem(config, data), None)
    master = Master.of(config, Problem(config, data), database, folder, CPU)
    database.publish(Published(1, 0), master.learner.parameters.numpy())
    worker = Worker.of(config, Problem(config, data), database, CPU)
    operations = worker.run()
    while database.behind(1):
        next(operations)
    common = {"process": 1, "seconds": 1.0, "bytes": 0, "examples": {"train": 1}, "doing": "wait"}
    database.report("worker-7", common)
    database.push_events("worker-7:1", [])
    database.put("proposal", {"step": 0, "seconds": 0.5, "values": {"proposal/entropy": 1.0}})
    database.put("acknowledged", {"version": 1})
    database.put("work", {"before": {"work/bytes_sent": 3.0}})
    with redis.Redis.from_url(servers[1]) as client:
        yield Stage(servers[0].url, client, config, data, folder)
        for key in client.scan_iter(match=f"issgd:{RUN}:*"):
            client.delete(key)
    database.close()


def as_bytes(value: object) -> bytes:
    """What a client that decodes nothing has read."""
    return value if isinstance(value, bytes) else b""


def garbage(value: bytes, item: str) -> dict[str, bytes]:
    """What an intruder or a broken worker might leave in the place of a value."""
    count = max(1, len(value) // np.dtype(item).itemsize)
    floats = item in ("<f4", "<f8")
    return {
        "truncated": value[:-1],
        "longer": value + b"\0",
        "random": np.random.default_rng(0).bytes(len(value)),
        "huge": b"7" * 3_000_000,
        "nan": np.full(count, np.nan if floats else 255).astype(item).tobytes(),
        "infinite": np.full(count, np.inf if floats else 2**7 - 1).astype(item).tobytes(),
        "negative": np.full(count, -1).astype(item).tobytes(),
        "text": b"\xff\xfe not JSON",
        **{f"json {text:.20}": text.encode() for text in WRONG_JSON if item == "u1"},
    }


WRONG_JSON = [
    *("null", "true", "7", '"text"', "[]", "{}", "[1, 2]", "[-1, 0, 4]", "[1, 0, 3]", "[1, 0, 400000000000000000000]"),
    *("NaN", "[NaN, 0, 4]", "1e999", "-Infinity", '[["a"]]', "[" * 100_000, "9" * 10_000, '{"version": "1"}'),
    *('{"version": NaN}', '{"step": -1, "seconds": 0, "values": {}}', '{"step": 1, "seconds": 0, "values": []}'),
    *('{"step": 1, "seconds": 0, "values": {"a": "b"}}', '{"step": 1, "seconds": 0, "values": {"a\\nb": 1}}'),
    *('{"config": {"model": {"hidden": [99999999999]}}, "dataset": "d", "model": "m", "resumed": false}',),
    *('{"train": 1, "valid": 1, "test": 1, "chunk_size": 0}', '{"train": -1, "valid": 1, "test": 1, "chunk_size": 1}'),
]


def outcome(read: Callable[[RedisDatabase], object], stage: Stage) -> tuple[object, list[str]]:
    """What a reader gives, None where it says clearly why not; and what was complained of."""
    database = stage.open()
    try:
        return read(database), database.complaints()
    except IssgdError as error:
        return None, [str(error)]
    finally:
        database.close()


def test_the_keys_are_all_that_a_run_has(stage: Stage) -> None:
    stage.client.set(f"issgd:{RUN}:finished", b'{"step": 1, "version": 1}')
    stage.client.set(f"issgd:{RUN}:stop", b"{}")
    there = {key.decode().removeprefix(f"issgd:{RUN}:") for key in stage.client.scan_iter(match=f"issgd:{RUN}:*")}
    assert there == set(KEYS)


def test_every_reader_reads_what_is_whole(stage: Stage) -> None:
    for name, read in stage.readers().items():
        found, said = outcome(read, stage)
        assert found is not None, (name, said)
        assert said == []


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_garbage_in_a_key_is_a_clear_error_or_harmless(stage: Stage, key: str) -> None:
    readers = stage.readers()
    clean, _ = outcome(readers["master"], stage)
    full = f"issgd:{RUN}:{key}"
    item = FIELDS[key.split(":")[1]].dtype if key in ARRAYS else "<f4" if key == "p:1:0" else "u1"
    saved = stage.client.dump(full)
    value = None if key in HASHES else as_bytes(stage.client.get(full))
    kinds = garbage(value or b"{}", item)
    if key in ARRAYS and not key.startswith("train:"):  # read by the same lines
        kinds = {kind: kinds[kind] for kind in ("truncated", "nan", "negative")}
    if key.endswith((":claims", ":cursor")):  # more of them below
        kinds = {kind: kinds[kind] for kind in ("random", "huge", "text")}
    for kind, content in kinds.items():
        stage.client.delete(full)
        if key in HASHES:
            stage.client.hset(full, mapping={b"worker-7": content, b"0": content, b"\xff\x1b[31m": b"{}"})
        else:
            stage.client.set(full, content)
        spoiled(stage, readers, clean, f"{key}, {kind}")
        stage.client.delete(full)
        if saved is not None:
            stage.client.restore(full, 0, saved)
    stage.client.delete(full)
    stage.client.rpush(full, b"a list")
    said = spoiled(stage, readers, clean, f"{key}, another type")
    if not key.endswith((":claims", ":cursor")):  # of which only one who claims takes notice, below
        assert said, f"{key}: nobody noticed that it is of another type"


def spoiled(
    stage: Stage, readers: dict[str, Callable[[RedisDatabase], object]], clean: object, where: str
) -> list[str]:
    """Lets everyone read; whatever the master draws from then is what it would have been."""
    complaints = []
    for name, read in readers.items():
        try:
            found, said = outcome(read, stage)
        except Exception as error:  # whatever is no IssgdError would be a traceback
            pytest.fail(f"{where}: {name} fails with {type(error).__name__}: {error}")
        complaints += said
        if name == "master" and found is not None:
            np.testing.assert_array_equal(found, clean, err_msg=where)
        if name == "monitor" and isinstance(found, dict):
            assert all(math.isfinite(value) or quantity == "proposal/smoothing" for quantity, value in found.items())
    return complaints


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *(
            (f"train:{field}", kind)
            for field in ("norms", "previous_norms")
            for kind in ("nan", "infinite", "negative")
        ),
        *((f"valid:{field}", kind) for field in ("versions", "gradient_versions") for kind in ("negative", "random")),
        *((f"{split}:losses", "nan") for split in SPLITS),
        *((key, "truncated") for key in (*TOLD, "p:1:0", "p:cur", "description", "layout")),
        *((key, "text") for key in (*DOCUMENTS, "status", "events")),
    ],
)
def test_what_can_be_told_to_be_wrong_is_told(stage: Stage, key: str, kind: str) -> None:
    full = f"issgd:{RUN}:{key}"
    if key == "train:previous_norms":  # read in pairs with the version before
        stage.client.set(f"issgd:{RUN}:train:previous_versions", stage.client.get(f"issgd:{RUN}:train:versions") or b"")
    item = FIELDS[key.split(":")[1]].dtype if key in ARRAYS else "u1"
    if key in HASHES:
        stage.client.hset(full, "worker-7", garbage(b"{}", item)[kind])
    else:
        value = as_bytes(stage.client.get(full)) or b"{}"
        stage.client.set(full, garbage(value, item)[kind])
    said = [line for read in stage.readers().values() for line in outcome(read, stage)[1]]
    assert any(key in line or key.split(":")[0] in line or "parameters" in line for line in said), said


def test_a_damaged_status_is_taken_out_and_complained_of_once_and_the_others_are_read(stage: Stage) -> None:
    database = stage.open()
    stage.client.hset(f"issgd:{RUN}:status", mapping={"worker-8": b"{}", "worker-9": b"x" * 2**21, "\n[/]": b"{}"})
    for _ in range(3):
        assert set(database.statuses()) == {"worker-7"}
    complaints = database.complaints()
    assert len(complaints) == 3
    assert all(line.isprintable() for line in complaints)
    assert any("worker-8" in line for line in complaints)
    assert set(stage.client.hkeys(f"issgd:{RUN}:status")) == {b"worker-7"}
    database.close()


def test_a_flood_of_entries_is_read_a_bounded_part_at_a_time(stage: Stage) -> None:
    database = stage.open()
    stage.client.hset(f"issgd:{RUN}:events", mapping={f"flood-{number}": b"?" for number in range(5000)})
    for _ in range(6):
        database.events()
    assert len(database.complaints()) <= 20
    assert database.events().keys() == {"worker-7:1"}
    database.close()


@pytest.mark.parametrize("cursor", [b"nan", b"-5", b"1e400", b"99999", b"0.5", b"x", b"\xff"])
@pytest.mark.parametrize("claim", [b"", b"x", b"\xff" * 12, b"\x01\0\0\0" + np.float64(1e300).tobytes()])
def test_no_cursor_and_no_claim_withholds_a_chunk_for_ever(stage: Stage, cursor: bytes, claim: bytes) -> None:
    database = stage.open()
    database.publish(Published(2, 3), np.ones(4, np.float32))
    stage.client.set(f"issgd:{RUN}:train:cursor", cursor)
    stage.client.hset(f"issgd:{RUN}:train:claims", mapping={str(number): claim for number in range(10)})
    given = {database.claim(2, "train", 60.0) for _ in range(10)}
    assert given == {Chunk("train", number) for number in range(10)}
    database.close()


@pytest.mark.parametrize("key", ["claims", "cursor", "versions"])
def test_a_claim_among_keys_of_another_type_is_a_clear_error(stage: Stage, key: str) -> None:
    database = stage.open()
    database.publish(Published(2, 3), np.ones(4, np.float32))
    stage.client.delete(f"issgd:{RUN}:train:{key}")
    stage.client.rpush(f"issgd:{RUN}:train:{key}", b"a list")
    with pytest.raises(DatabaseError, match="refuses a command"):
        database.claim(2, "train", 60.0)
    database.close()


# At the door

LAYOUT = Layout(train=23, valid=5, test=10, chunk_size=10)


def bad_scores() -> dict[str, ChunkScores]:
    good = ChunkScores(np.ones(10, np.float32), np.ones(10, np.float32), np.ones(10, np.uint8), 0.5)
    wrong: dict[str, Any] = {"nan": np.nan, "infinite": np.inf, "negative": -1e-3}
    found = {}
    for name, value in wrong.items():
        norms = good.norms.copy()
        norms[3] = value
        found[f"norms {name}"] = good._replace(norms=norms)
        if name != "negative":
            found[f"losses {name}"] = good._replace(losses=norms)
        found[f"gradient {name}"] = good._replace(gradient_norm2=value)
    found["errors"] = good._replace(errors=np.full(10, 2, np.uint8))
    found["count"] = good._replace(norms=np.ones(9, np.float32))
    return found


@pytest.mark.parametrize("which", bad_scores())
def test_a_record_that_cannot_be_true_is_refused_at_the_door(stage: Stage, which: str) -> None:
    database = stage.open()
    before = database.records()
    database.publish(Published(2, 3), np.ones(4, np.float32))
    with pytest.raises(RecordError, match=r"refused|not 10 values"):
        database.push(Chunk("train", 0), 2, bad_scores()[which])
    after = database.records()
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(before["train"], name), getattr(after["train"], name))
    database.close()


def test_a_relaxed_worker_reports_what_was_refused_and_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    database = stage.open()
    worker = Worker.of(stage.config, Problem(stage.config, stage.data), database, CPU)

    def not_a_number(chunk: Chunk) -> ChunkScores:
        size = int(database.layout().sizes(chunk.split)[chunk.number])
        wrong = np.full(size, np.nan, np.float32)
        return ChunkScores(wrong, wrong, np.zeros(size, np.uint8), None)

    monkeypatch.setattr(worker, "score", not_a_number)
    database.publish(Published(2, 3), worker.scorer.parameters.numpy())
    list(itertools.islice(worker.run(), 30))
    (line,) = worker.status()["notices"]
    assert "refused" in line
    assert database.behind(2) == 14  # all
    Recorder("worker-0", worker, 1).report(database, "score")
    assert database.statuses()["worker-0"]["notices"] == [line]
    database.close()


def test_parameters_that_are_not_finite_are_never_published(stage: Stage) -> None:
    database = stage.open()
    with pytest.raises(DatabaseError, match="diverged"):
        database.publish(Published(2, 3), np.array([1, np.nan], np.float32))
    assert database.newest() == Published(1, 0)
    database.close()


def test_parameters_of_another_length_end_the_worker_clearly(stage: Stage) -> None:
    database = stage.open()
    database.publish(Published(2, 3), np.ones(7, np.float32))
    worker = Worker.of(stage.config, Problem(stage.config, stage.data), database, CPU)
    with pytest.raises(DatabaseError, match=r"7 parameters.*model has"):
        list(itertools.islice(worker.run(), 5))
    database.close()


def test_every_topic_has_a_reader() -> None:
    for topic in get_args(Topic):
        assert callable(read_topic(topic))
        with pytest.raises(ValueError, match="JSON"):
            read_topic(topic)(b"]")


def test_records_as_workers_write_them_have_no_flaw(stage: Stage) -> None:
    database = stage.open()
    for records in database.records().values():
        assert flaw(vars(records), newest=1) is None
        assert json.dumps(flaw(vars(records), newest=0)) != "null"
    database.close()
