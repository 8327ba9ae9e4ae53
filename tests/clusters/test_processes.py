"""Actors as processes of this machine."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from issgd_cli.clusters.cluster import Handle, Launcher
from issgd_cli.clusters.processes import ALLOCATION, Processes, process_environment
from issgd_cli.runs.folder import RunFolder
from tests.processes import eventually

NewFolder = Callable[[str], RunFolder]


@pytest.fixture
def as_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a shell script stand for the interpreter, and so for an actor."""

    def of(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))

    return of


def test_an_actor_gets_its_command_line_and_its_environment(
    new_folder: NewFolder, as_python: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_python('echo "$@"; echo $ISSGD_DATABASE $ISSGD_LAUNCHER $ISSGD_JOBS $MALLOC_TRIM_THRESHOLD_; exit 3')
    monkeypatch.setenv("ISSGD_DATABASE", "another")
    folder = new_folder("run")
    launcher: Launcher = Processes("a/b/c", folder, "/data", jobs=2)
    for actor, own in (("worker-12", "--index 12"), ("monitor", f"--folder {folder.path}")):
        handle = launcher.start(actor, {"ISSGD_DATABASE": "unix://x"})
        eventually(lambda: handle.poll() is not None)  # noqa: B023 - not kept
        assert handle.poll() == 3
        kind = actor.partition("-")[0]
        assert handle.last_words().splitlines() == [
            f"-m issgd_cli {kind} --run a/b/c --data-dir /data {own}",
            f"unix://x {os.getpid()} 2 {ALLOCATION['MALLOC_TRIM_THRESHOLD_']}",
        ]


def test_an_actor_is_told_of_the_network_that_the_launchers_command_line_names(
    new_folder: NewFolder, as_python: Callable[[str], None]
) -> None:
    as_python('echo "$@"')
    for actor in ("master", "worker-0", "monitor"):
        handle = Processes("a", new_folder(actor), "data", model="own.module:function").start(actor, {})
        eventually(lambda: handle.poll() is not None)  # noqa: B023 - not kept
        assert handle.last_words().endswith(" --model own.module:function\n")


def test_the_last_words_are_those_of_this_life(new_folder: NewFolder, as_python: Callable[[str], None]) -> None:
    as_python("echo out; echo err >&2; printf cut")
    folder = new_folder("run")
    log = folder.log_of("master")
    log.write_text("of the life before\n")
    handle = Processes("a", folder, "data").start("master", {})
    eventually(lambda: handle.poll() == 0)
    assert handle.last_words() == "out\nerr\ncut"
    assert log.read_text().startswith("of the life before\n")
    log.unlink()
    assert handle.last_words() == ""


def test_an_actor_is_asked_to_end_and_then_ended(new_folder: NewFolder, as_python: Callable[[str], None]) -> None:
    as_python("trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done")
    handle: Handle = Processes("a", new_folder("run"), "data").start("master", {})
    try:
        eventually(lambda: handle.last_words() == "ready\n")
        assert handle.poll() is None
        handle.end()
        eventually(lambda: handle.last_words() == "ready\nasked\n")
        assert handle.poll() is None
    finally:
        handle.kill()
    eventually(lambda: handle.poll() is not None)
    assert handle.poll() == -signal.SIGKILL
    handle.end()  # nobody: nothing
    handle.kill()


def test_a_process_imports_what_we_do_and_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", "relative", str(tmp_path), str(tmp_path / "missing")])
    environment = process_environment()
    home = Path(__file__).parents[2]
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), str(home)]
    assert environment["PYTHONSAFEPATH"] == "1"
