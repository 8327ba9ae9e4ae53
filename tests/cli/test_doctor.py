"""`issgd doctor`: it tries what a run needs, and names for each failure the remedy that fits it."""

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from issgd_cli import datasets
from issgd_cli.cli import app
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.binaries import binary_version
from issgd_cli.database.permissions import KEYS, OWNER_COMMANDS, WORKER_COMMANDS, allowed
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import DatabaseError
from tests.processes import eventually
from tests.servers import BINARIES, free_port

REAL = [*{str(path): path for path in BINARIES.values()}.values()]
LAYOUT = Layout(train=23, valid=5, test=10, chunk_size=10)

Start = Callable[..., str]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without data: what a user has prepared in the checkout is none of the tests'."""
    monkeypatch.chdir(tmp_path)


def doctor(*arguments: object, database: str = "", status: int = 1) -> str:
    """What it says."""
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"ISSGD_DATABASE": database})
    assert done.exit_code == status, f"{done.output} {done.exception}"
    for line in done.output.split("MISSING")[1:]:
        assert "\n        -> " in line, f"no remedy: {line}"
    return done.output


@pytest.fixture(params=REAL, ids=lambda path: binary_version(path))
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts a server of somebody else's, with these options, then tells it these commands; its address."""
    with contextlib.ExitStack() as stack:

        def of(*options: str, commands: tuple[str, ...] = ()) -> str:
            port = free_port()
            common = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
            log = stack.enter_context((tmp_path / f"log-{port}").open("wb"))
            process = subprocess.Popen([request.param, *common, *options], stdout=log, stderr=log)
            stack.enter_context(process)
            stack.callback(process.kill)
            eventually(lambda: b"eady to accept connections" in (tmp_path / f"log-{port}").read_bytes(), "a server")
            with redis.Redis(port=port) as client:
                for command in commands:
                    client.execute_command(*command.split())
            return f"127.0.0.1:{port}"

        yield of


def user(rules: str) -> str:
    return f"ACL SETUSER someone on >secret {rules}"


CLUSTER = ("--cluster-enabled", "yes")
UNFIT = {  # options, commands of an administrator, the user; what is told, and the remedy
    "a cluster's, without slots": (CLUSTER, (), "", "cluster mode", "without cluster mode"),
    "a cluster's": (CLUSTER, (f"CLUSTER ADDSLOTS {' '.join(map(str, range(16384)))}",), "", "cluster", "cluster mode"),
    "a replica": (("--replicaof", "127.0.0.1", "1"), (), "", "read-only replica", "name the replica's primary"),
    "without EVALSHA": (("--rename-command", "EVALSHA", ""), (), "", "EVALSHA", "Lua scripts"),
    "without SCRIPT": (("--rename-command", "SCRIPT", ""), (), "", "SCRIPT", "Lua scripts"),
    "without HDEL": (("--rename-command", "HDEL", ""), (), "", "HDEL", "A run needs the commands"),
    "without UNLINK": (("--rename-command", "UNLINK", ""), (), "", "UNLINK", "A run needs the commands"),
    "without EXEC": (("--rename-command", "EXEC", ""), (), "", "EXEC", "A run needs the commands"),
    "without MULTI": (("--rename-command", "MULTI", ""), (), "", "MULTI", "+multi"),
    "without a number 99": ((), (), "", "DB index", "out of the URL"),
    "evicting": (("--maxmemory", "900mb", "--maxmemory-policy", "allkeys-lru"), (), "", "allkeys-lru", "noeviction"),
    "full": (("--maxmemory", "1"), (), "", "maxmemory", "Raise its maxmemory"),
    "asking for a password": (("--requirepass", "else"), (), "", "refuses us", "ISSGD_DATABASE"),
    "of another password": (("--requirepass", "else"), (), ":secret@", "refuses us", "--database-file"),
    "for readers": ((), (user("~* +@read +@connection +info +ping"),), "someone:secret@", "permission", KEYS),
    "of other keys": ((), (user("~mine:* +@all"),), "someone:secret@", "ermissions", KEYS),
    "for workers": ((), (user(f"{KEYS} {allowed(WORKER_COMMANDS)}"),), "someone:secret@", "permission", "+script|load"),
    **{
        f"without +{name}": ((), (user(f"~* +@all -{name.partition('|')[0]}"),), "someone:secret@", "", f"+{name}")
        for name in OWNER_COMMANDS
        if name != "ping"
    },
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_server_that_cannot_hold_a_run_is_told_with_its_own_remedy(start: Start, tmp_path: Path, what: str) -> None:
    options, commands, given, told, remedy = UNFIT[what]
    url = f"redis://{given}{start(*options, commands=commands)}" + "/99" * (what == "without a number 99")
    said = doctor("--results-dir", tmp_path, database=url).partition("MISSING no database: ")[2].partition("MISSING")[0]
    what_is_wrong, _, mended_by = said.partition("\n        -> ")
    assert told in what_is_wrong
    assert remedy in mended_by.partition("\n")[0]
    assert "pip install" not in said
    assert "secret" not in said
    with pytest.raises(DatabaseError) as caught:
        launch(url)
    assert remedy in str(caught.value)


def launch(url: str) -> None:
    """As the launcher does it."""
    with contextlib.closing(RedisDatabase(url, "run", patient=False)) as database:
        database.ping()
        database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})


@pytest.mark.parametrize("rules", ["~* +@all", f"{KEYS} -@all {allowed(OWNER_COMMANDS)}"])
def test_a_server_that_can_is_left_as_it_was(start: Start, tmp_path: Path, rules: str) -> None:
    address = start(commands=(user(rules), "SET else 1"))
    said = doctor("--results-dir", tmp_path, database=f"redis://someone:secret@{address}")
    assert "ok      database at the given URL answers, and can hold a run" in said
    with redis.Redis.from_url(f"redis://{address}") as client:
        assert client.keys() == [b"else"]


def test_a_file_may_hold_the_url(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    (tmp_path / "file").write_text(f"redis://{start()}")
    assert "at the given URL answers" in doctor("--database-file", tmp_path / "file", "--results-dir", tmp_path)


def test_a_url_that_is_none_and_a_server_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    assert "-> There can be db, username" in doctor(database="redis://h?tls=true")
    assert "-> Is the server up" in doctor(database=f"unix://{tmp_path}/none")


def test_all_is_well_where_there_is_all_and_own_data_are_listed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(60) % 3)
    folder = datasets.prepare(str(tmp_path / "mine.npz"), tmp_path / "data")
    said = doctor("--data-dir", tmp_path / "data", "--results-dir", tmp_path / "results" / "deeper", status=0)
    assert f"{folder.name}: 51 training examples" in said
    assert "starts, and can hold a run" in said
    assert "MISSING" not in said
    assert not (tmp_path / "results").exists()
    (folder / "train-images.npy").write_bytes(b"")
    assert f"-> issgd prepare FILE.npz --data-dir {tmp_path / 'data'}" in doctor("--data-dir", tmp_path / "data")


def test_a_folder_of_data_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "-> name a folder that you can read with --data-dir" in doctor("--data-dir", tmp_path / "file")
    (tmp_path / "a b" / "svhn").mkdir(parents=True)
    (tmp_path / "a b" / "else").mkdir()
    (tmp_path / "a b" / "else" / "meta.json").write_text(json.dumps(["not ours"]))
    said = doctor("--data-dir", tmp_path / "a b")
    assert f"-> issgd prepare svhn --data-dir '{tmp_path / 'a b'}'" in said
    assert "else" not in said


@pytest.mark.parametrize("place", ["file", "file/below", *(["/proc/results"] if Path("/proc/self").exists() else [])])
def test_results_that_cannot_be_written_are_a_finding(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written (" in doctor("--results-dir", tmp_path / place)


@pytest.mark.parametrize(
    ("module", "name", "number", "told"),
    [
        (fcntl, "flock", errno.EIO, "cannot be locked (Input/output error)\n        -> issgd train --results-dir"),
        (os, "fsync", errno.ENOSPC, "cannot be written (No space left on device)\n        -> free space there"),
        (tempfile, "mkdtemp", errno.EROFS, "Read-only file system\n        -> set TMPDIR to a folder"),
    ],
)
def test_what_the_system_refuses_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int, told: str
) -> None:
    def refuses(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, refuses)
    assert told in doctor()


def test_a_networks_norms_are_explained_layer_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    datasets.prepare("house-numbers", tmp_path / "data", size=400)
    given = ("--data", "house-numbers", "--data-dir", tmp_path / "data", "--set", "vit.depth=1")
    said = doctor("--network", "vit", *given, status=0)
    rows = {line.split()[0]: line for line in said.splitlines()[2:]}
    assert "rule" in rows["patches"]
    assert "fallback" in rows["positions"]
    assert "there is no rule for Positions" in rows["positions"]
    assert "blocks.0.to_qkv" in rows
    assert "111,168" in rows["blocks.0.to_qkv"]
