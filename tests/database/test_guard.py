"""Who is let in to a server of ours, and how far: held against every server that this machine has."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import redis

from issgd_cli.database import SPLITS, Chunk, ChunkScores, Layout, Published
from issgd_cli.database.binaries import binary_version
from issgd_cli.database.guard import listening
from issgd_cli.database.records import Event
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import Server
from issgd_cli.errors import DatabaseError
from tests.processes import eventually, is_alive
from tests.servers import NAMES, administered, binary, free_port

LAYOUT = Layout(train=23, valid=5, test=10, chunk_size=10)
RUN = "experiment/a/seed-000-12345678"
DANGEROUS = [
    *(["CONFIG", "GET", "*"], ["DEBUG", "JMAP"], ["MODULE", "LIST"], ["FLUSHALL"], ["FLUSHDB"], ["KEYS", "*"]),
    *(["SAVE"], ["BGSAVE"], ["BGREWRITEAOF"], ["REPLICAOF", "NO", "ONE"], ["SLAVEOF", "NO", "ONE"], ["SHUTDOWN"]),
    *(["MIGRATE", "h", "1", "k", "0", "1"], ["EVAL", "return 1", "0"], ["SCRIPT", "FLUSH"], ["ACL", "LIST"]),
    *(["ACL", "SETUSER", "x", "on"], ["CLIENT", "LIST"], ["CLIENT", "KILL", "x"], ["MONITOR"], ["SUBSCRIBE", "x"]),
    *(["RESTORE", "k", "0", "x"], ["SWAPDB", "0", "1"], ["CLUSTER", "INFO"], ["LATENCY", "RESET"], ["SLOWLOG", "GET"]),
]


@pytest.fixture(scope="module", params=NAMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of each kind, listening on an address as well."""
    path, log = binary(request.param), tmp_path_factory.mktemp("server") / "server.log"
    with administered(log, path, f"127.0.0.1:{free_port()}") as (running, _):
        yield running


def worker_url(server: Server) -> str:
    """What a worker on another machine gets."""
    assert server.invitation is not None
    return server.invitation.read_text().strip()


def begun(url: str) -> RedisDatabase:
    database = RedisDatabase(url, RUN)
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    return database


def raw(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, retry=None)


def refused(client: "redis.Redis", *command: str) -> None:
    # Before it looks at permissions, a newer server says of some commands that its configuration has them off.
    with pytest.raises(redis.RedisError, match=r"permissions|authenticat|password|user|DEBUG|MODULE"):
        client.execute_command(*command)  # type: ignore[no-untyped-call]


def test_the_owner_and_a_worker_can_do_their_work(server: Server) -> None:
    owner = begun(server.url)
    owner.publish(Published(1, 0), np.ones(4, np.float32))
    owner.put("description", {"config": {}, "dataset": "d", "model": "m", "resumed": False})
    for url in (server.worker_url, worker_url(server)):
        worker = RedisDatabase(url, RUN)
        assert worker.ping() == owner.ping() == server.version
        assert worker.layout() == LAYOUT
        assert worker.get("description") is not None
        assert worker.get("finished") is None
        assert worker.get("stop") is None
        assert worker.newest() == Published(1, 0)
        assert worker.parameters() is not None
        chunk = worker.claim(1, "train", 9.0)
        assert chunk is not None
        size = int(LAYOUT.sizes(chunk.split)[chunk.number])
        ones = np.ones(size, np.float32)
        assert worker.push(chunk, 1, ChunkScores(ones, ones, np.ones(size, np.uint8), 0.5))
        worker.report(
            "worker-0", {"process": 1, "seconds": worker.seconds(), "bytes": 0, "examples": {}, "doing": "wait"}
        )
        worker.push_events("worker-0:1", [Event("worker-0", 0.0, 1.0, "score", 1)])
        worker.close()
    assert owner.statuses().keys() == {"worker-0"}
    assert owner.events().keys() == {"worker-0:1"}
    assert owner.behind(1) == 3
    owner.clear("stop")
    owner.close()


@pytest.mark.parametrize("user", ["owner", "worker"])
def test_dangerous_commands_are_off_for_everyone(server: Server, user: str) -> None:
    with raw(server.url if user == "owner" else worker_url(server)) as client:
        for command in DANGEROUS:
            refused(client, *command)


@pytest.mark.parametrize("password", ["", "worker:", "owner:wrong@", "worker:wrong@", "default:@", "nobody:x@"])
@pytest.mark.parametrize("way", ["socket", "address"])
def test_strangers_are_refused(server: Server, password: str, way: str) -> None:
    there = server.url if way == "socket" else worker_url(server)
    url = re.sub("://[^@]*@", f"://{password.rstrip(':@')}@" if password else "://", there)
    with raw(url) as client:
        for command in (["PING"], ["GET", "issgd:x"], ["INFO"], ["SHUTDOWN"], ["CONFIG", "GET", "*"]):
            refused(client, *command)
    database = RedisDatabase(url, RUN)
    with pytest.raises(DatabaseError, match="refuses us"):
        database.ping()
    database.close()


def test_a_worker_cannot_do_what_is_the_owners(server: Server) -> None:
    if not server.limits_workers:
        pytest.skip(f"{server.version} has no key permissions, as the screen and the manifest say")
    owner = begun(server.url)
    owner.publish(Published(1, 0), np.ones(4, np.float32))
    owner.put("acknowledged", {"version": 1})
    with raw(worker_url(server)) as worker:
        own = [f"issgd:{RUN}:{key}" for key in ("start", "layout", "description", "finished", "stop", "p:cur", "p:1:0")]
        for key in (*own, f"issgd:{RUN}:proposal", f"issgd:{RUN}:acknowledged", f"issgd:{RUN}:work", "else"):
            refused(worker, "SET", key, "x")
            refused(worker, "SETRANGE", key, "0", "x")
            refused(worker, "EXPIRE", key, "0")
        for key in ("status", "events", "proposal", "work", "acknowledged"):
            refused(worker, "GET", f"issgd:{RUN}:{key}")
            refused(worker, "HGET", f"issgd:{RUN}:{key}", "x")
        for command in (["UNLINK", own[0]], ["DEL", own[0]], ["SCAN", "0"], ["SCRIPT", "LOAD", "return 1"]):
            refused(worker, *command)
        for command in (["HDEL", f"issgd:{RUN}:status", "master"], ["HGETALL", f"issgd:{RUN}:status"]):
            refused(worker, *command)
    assert owner.newest() == Published(1, 0)
    owner.close()


def test_a_worker_that_finds_no_script_says_that_the_run_is_gone(server: Server) -> None:
    worker = RedisDatabase(server.worker_url, "nothing")
    with pytest.raises(DatabaseError, match=r"gone from the database"):
        worker._scripted("return 'never loaded'", [], [])
    worker.close()


def test_the_servers_folder_is_its_users_alone_and_holds_its_socket_and_the_invitation(server: Server) -> None:
    place = Path(urlparse(server.url).path).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert server.invitation == place / "worker-database"
    assert stat.S_IMODE(server.invitation.stat().st_mode) == 0o600
    passwords = {str(urlparse(url).password) for url in (server.url, server.worker_url)}
    assert len(passwords) == 2
    assert all(re.fullmatch("[0-9a-f]{64}", password) for password in passwords)  # 256 bits each
    assert worker_url(server).startswith(f"redis://worker:{urlparse(server.worker_url).password}@127.0.0.1:")
    assert {path.name for path in place.iterdir()} == {"database.sock", "worker-database"}


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux")
@pytest.mark.parametrize("name", NAMES)
def test_no_port_is_open_unless_an_address_is_given(name: str, tmp_path: Path) -> None:
    with administered(tmp_path / "log", binary(name)) as (running, _):
        assert listening(running.process.pid) == set()
        assert running.invitation is None
    port = free_port()
    with administered(tmp_path / "log", binary(name), f"127.0.0.1:{port}") as (running, _):
        assert listening(running.process.pid) == {("0100007F", port)}


def test_no_secret_is_on_a_command_line_or_in_the_servers_log(tmp_path: Path) -> None:
    with administered(tmp_path / "log", listen=f"127.0.0.1:{free_port()}") as (running, _):
        table = subprocess.run(["ps", "-axww", "-o", "command="], capture_output=True, text=True, check=True).stdout
        with raw(re.sub("://[^@]*@", "://owner:wrong@", running.url)) as client:
            refused(client, "PING")
        secrets = [str(urlparse(url).password) for url in (running.url, running.worker_url)]
    for text in (table, (tmp_path / "log").read_text()):
        assert not any(secret in text for secret in secrets)
    assert str(running.process.pid) in table or "server" in table  # there was something to see


def test_errors_hold_no_secret(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    secret = "very/se@cret"
    urls = [
        f"redis://user:{secret}@127.0.0.1:1",
        f"redis://user:{secret}@127.0.0.1:port",
        f"redis://:{secret}",
        f"redis://127.0.0.1:1?password={secret}",
        f"http://user:{secret}@host",
        re.sub("://[^@]*@", "://owner:very%2Fse%40cret@", worker_url(server)),
    ]
    for url in urls:
        with pytest.raises(DatabaseError) as caught:
            RedisDatabase(url, RUN, patient=False).ping()
        said = f"{caught.value} {caught.value.__cause__} {caplog.text}"
        assert "cret" not in said
        assert "very" not in said
        assert caught.value.__suppress_context__
    database = RedisDatabase(urls[-1], RUN)
    assert "cret" not in repr(database) + repr(database._client)


def test_the_server_ends_and_its_folder_goes_when_its_launcher_is_killed(tmp_path: Path, short_folder: Path) -> None:
    odd = short_folder / "-a b'$(c)\"[1]*"  # a shell removes what is in it
    odd.mkdir()
    code = (
        "import time; from pathlib import Path; from issgd_cli.database.server import serving\n"
        f"with serving(Path({str(tmp_path / 'log')!r})) as server:\n"
        "    print(server.process.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(odd)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        assert len(list(odd.iterdir())) == 1
        launcher.kill()
    eventually(lambda: not any(odd.iterdir()) and not is_alive(pid), "the end of the server and of its folder")


def test_a_version_that_was_never_published_is_not_stored(server: Server) -> None:
    owner = begun(server.url)
    owner.publish(Published(3, 0), np.ones(4, np.float32))
    ones = np.ones(10, np.float32)
    scores = ChunkScores(ones, ones, np.ones(10, np.uint8), None)
    assert not owner.push(Chunk("train", 0), 4, scores)
    assert owner.push(Chunk("train", 0), 3, scores)
    assert owner.behind(3) == 4
    owner.close()


def test_the_versions_that_the_rules_speak_of_are_told_apart(server: Server) -> None:
    major = int(re.split(r"[ .]", server.version)[1])
    assert server.limits_workers == (major >= 7)
    assert binary_version(binary("ours")).split()[0] in ("redis", "valkey")
