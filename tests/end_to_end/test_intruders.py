"""Workers from elsewhere, and who else comes: with the real command line, real processes and a real server."""

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import redis

from tests.end_to_end.conftest import CommandLine
from tests.processes import PATIENCE
from tests.servers import free_port

Find = Callable[[str], list[int]]
Eventually = Callable[[Callable[[], object]], None]


def environment(pid: int) -> str:
    """An actor's, where other users cannot look."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def command_lines() -> list[bytes]:
    """Of all processes, but those that end just now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def server_folder(master: int) -> Path:
    """The private folder of the server that a master was given."""
    (path,) = re.findall(r"ISSGD_DATABASE=unix://owner:[0-9a-f]{64}@([^\0]+)", environment(master))
    return Path(unquote(path)).parent


def run_name_of(issgd: CommandLine, name: str, eventually: Eventually) -> str:
    found = issgd.place / "results" / name
    eventually(lambda: list(found.glob("*/seed-000/manifest.json")))
    manifest = issgd.run_of(name) / "manifest.json"
    eventually(lambda: "run_name" in json.loads(manifest.read_text()))
    return str(json.loads(manifest.read_text())["run_name"])


pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")


@pytest.mark.long
def test_a_worker_from_elsewhere_joins_by_the_invitation_and_no_secret_leaks(
    issgd: CommandLine, find: Find, eventually: Eventually
) -> None:
    address = f"127.0.0.1:{free_port()}"
    launcher = issgd.start(*issgd.train("invited", "--listen", address, "--workers", "0"))
    run_name = run_name_of(issgd, "invited", eventually)
    eventually(lambda: find("master --run invited"))
    folder = server_folder(find("master --run invited")[0])
    invitation = issgd.place / "copy"
    eventually((folder / "worker-database").exists)
    invitation.touch(0o644)
    invitation.write_text((folder / "worker-database").read_text())
    arguments = ("worker", "--database-file", invitation, "--run", run_name, "--data-dir", issgd.data_dir)
    refused = issgd(*arguments)
    assert refused.returncode == 1
    assert "chmod 600" in refused.stderr
    invitation.chmod(0o600)
    url = invitation.read_text().strip()
    secrets = {*re.findall("[0-9a-f]{64}", environment(find("master --run invited")[0])), str(urlparse(url).password)}
    assert len(secrets) == 2  # the workers' and the owner's
    with redis.Redis.from_url(url.replace(str(urlparse(url).password), "wrong")) as stranger:
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
    worker = issgd.start(*arguments)
    eventually(lambda: find("worker --database-file"))
    lines = command_lines()
    out, err = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0, err
    worker_out, worker_err = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, worker_err
    assert f"--run {run_name} --database-file FILE" in out
    assert str(folder / "worker-database") in out
    files = [path.read_bytes() for path in (issgd.place / "results").rglob("*") if path.is_file()]
    assert len(files) > 8
    seen = [*lines, *files, *(text.encode() for text in (out, err, worker_out, worker_err, refused.stderr))]
    for secret in secrets:
        assert not any(secret.encode() in text for text in seen)
    assert not folder.exists()


@pytest.mark.long
def test_a_malicious_worker_is_told_of_and_cannot_stop_the_run_by_its_words(
    issgd: CommandLine, find: Find, eventually: Eventually
) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = ("--mode", "relaxed", "--steps", "600", "--workers", "1", "--set", "monitor.every_seconds=0.2")
    launcher = issgd.start(*issgd.train("words", "--listen", address, *settings))
    run_name = run_name_of(issgd, "words", eventually)
    eventually(lambda: find("master --run words"))
    folder = server_folder(find("master --run words")[0])
    with redis.Redis.from_url((folder / "worker-database").read_text().strip()) as client:
        for key in ("status", "events"):
            client.hset(f"issgd:{run_name}:{key}", mapping={b"intruder": b"\xff", b"\x1b[31m": b"{}", b"master": b"[]"})
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set(f"issgd:{run_name}:stop", b"{}")
    out, err = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0, err
    assert "intruder was left aside" in out
    assert "\x1b" not in out
    logs = "".join(path.read_text() for path in (issgd.run_of("words") / "logs").glob("*.log"))
    assert "Traceback" not in logs


@pytest.mark.long
def test_records_that_a_malicious_worker_has_poisoned_end_the_run_clearly(
    issgd: CommandLine, find: Find, eventually: Eventually
) -> None:
    address = f"127.0.0.1:{free_port()}"
    launcher = issgd.start(*issgd.train("poison", "--listen", address, "--mode", "relaxed", "--steps", "1000000"))
    run_name = run_name_of(issgd, "poison", eventually)
    eventually(lambda: find("master --run poison"))
    folder = server_folder(find("master --run poison")[0])
    with redis.Redis.from_url((folder / "worker-database").read_text().strip()) as client:
        norms = f"issgd:{run_name}:train:norms"
        eventually(lambda: any(client.getrange(norms, 0, 400)))
        # Again and again: the worker that means well replaces them, perhaps before anybody has read them.
        deadline = time.monotonic() + PATIENCE
        while launcher.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError):  # the server ends with the run
                client.set(norms, np.full(2000, np.nan, "<f4").tobytes())
            time.sleep(0.05)
        _, err = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 1
    assert "Traceback" not in err
    failure = json.loads((issgd.run_of("poison") / "manifest.json").read_text())["failure"]
    assert failure["actor"] in ("master", "monitor")
    assert "train:norms hold a value that is negative or not finite" in failure["reason"]
    assert find("--run poison/") == []


@pytest.mark.parametrize("arguments", [("--database",), ("--set",)])
def test_a_password_on_the_command_line_is_refused(issgd: CommandLine, arguments: tuple[str, ...]) -> None:
    value = "redis://:verysecret@127.0.0.1:1"
    done = issgd("train", *arguments, value if arguments == ("--database",) else f"database.url={value}")
    assert done.returncode == 1
    assert "ISSGD_DATABASE" in done.stderr
    assert "verysecret" not in done.stderr
