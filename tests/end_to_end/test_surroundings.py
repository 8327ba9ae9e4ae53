"""What a command meets outside itself: a reader who leaves, a full disk, a user's own modules, signals at any time."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.cli import output
from tests.end_to_end.conftest import EXPERIMENTS, CommandLine
from tests.processes import PATIENCE, eventually

Command = Callable[..., subprocess.CompletedProcess[str]]
ISSGD = [sys.executable, "-m", "issgd_cli"]
SIMULATED = ("--cluster", "simulated", "--steps", "64")
ENDLESS = (
    "--cluster",
    "simulated",
    "--mode",
    "relaxed",
    "--steps",
    "1000000",
)  # one process: what is heard is the same


def state_of(issgd: CommandLine, name: str) -> str:
    return "finished" if '"state": "finished"' in (issgd.run_of(name) / "manifest.json").read_text() else "other"


# Output decides nothing


@pytest.mark.long
def test_a_reader_that_leaves_does_not_end_a_run(issgd: CommandLine) -> None:
    """As `issgd train | head -1` does."""
    process = issgd.start(*issgd.train("piped", "--workers", "1"))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert state_of(issgd, "piped") == "finished"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
@pytest.mark.soak
def test_a_full_disk_behind_the_output_does_not_end_a_run_and_is_told(
    issgd: CommandLine, streams: tuple[str, ...]
) -> None:
    with open("/dev/full", "w") as full:
        redirected = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | dict.fromkeys(streams, full)
        command = [*ISSGD, *map(str, issgd.train("full", *SIMULATED))]
        done = subprocess.run(command, cwd=issgd.place, text=True, check=False, **redirected)  # type: ignore[call-overload]
    assert done.returncode == 0
    assert state_of(issgd, "full") == "finished"
    if streams == ("stdout",):
        assert done.stderr == "issgd: not all of this could be written to standard output: No space left on device.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_command_that_only_tells_fails_where_it_cannot(issgd: CommandLine) -> None:
    with open("/dev/full", "w") as full:
        told = subprocess.run(
            [*ISSGD, "status"], cwd=issgd.place, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert told.returncode == 1
    assert told.stderr == "issgd: Standard output cannot be written: No space left on device. Send it elsewhere.\n"


@pytest.mark.parametrize("closing", [">&-", "<&- >&- 2>&-"])
@pytest.mark.soak
def test_closed_streams_do_not_end_a_run(issgd: CommandLine, closing: str) -> None:
    command = " ".join(f"'{word}'" for word in [*ISSGD, *map(str, issgd.train("closed", *SIMULATED))])
    assert subprocess.run(f"{command} {closing}", shell=True, cwd=issgd.place, check=False).returncode == 0
    assert state_of(issgd, "closed") == "finished"


@pytest.mark.long
def test_a_terminal_that_is_closed_ends_neither_a_run_that_ignores_it_nor_its_figures(issgd: CommandLine) -> None:
    """As under nohup: the run goes on, and what it prints goes nowhere."""
    (issgd.place / "tiny.toml").write_text(
        f'extends = "{EXPERIMENTS / "smoke.toml"}"\nseeds = "0"\ncluster.kind = "simulated"\n'
    )
    ours, theirs = pty.openpty()
    command = [*ISSGD, "reproduce", "tiny.toml", "--data-dir", str(issgd.data_dir)]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
        cwd=issgd.place,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    eventually(lambda: list((issgd.place / "results").glob("tiny/*/seed-000/manifest.json")), "a run")
    os.close(ours)  # from now on every write to it fails
    assert process.wait(PATIENCE) == 0
    assert (issgd.place / "results/tiny/report.md").exists()
    assert (issgd.place / "results/tiny/figure-2.png").exists()


def test_letters_that_the_terminal_does_not_know_are_replaced(issgd: CommandLine) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [*ISSGD, "train", "ж.toml"], cwd=issgd.place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("issgd: No file ?.toml.")


def test_an_output_that_does_not_wait_is_waited_for(tmp_path: Path) -> None:
    """Another program has made the pipe non-blocking, and its reader is slow."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    raw = output._Forgiving(writer, "w")
    content = b"x" * 2**20
    with subprocess.Popen(["sh", "-c", "sleep 0.3; wc -c"], stdin=reader, stdout=subprocess.PIPE) as slow:
        os.close(reader)
        left = memoryview(content)
        while left:
            left = left[raw.write(left) :]
        raw.close()
        out, _ = slow.communicate()
    assert int(out) == len(content)
    assert raw.lost is None


# A user's own modules


@pytest.mark.parametrize(
    ("command", "cluster"), [(ISSGD, SIMULATED), ([str(Path(sys.executable).with_name("issgd"))], ("--workers", "1"))]
)
@pytest.mark.soak
def test_modules_in_the_current_folder_are_nobodys(
    issgd: CommandLine, command: list[str], cluster: tuple[str, ...]
) -> None:
    if not Path(command[0]).exists():
        pytest.skip("the command is not installed beside this Python")
    names = ("random", "redis", "numpy", "torch", "signal", "socket", "typer", "logging", "multiprocessing", "json")
    for name in names:
        (issgd.place / f"{name}.py").write_text("raise SystemExit(f'{__name__} of the current folder is loaded')")
    arguments = map(str, issgd.train("own", *cluster))
    done = subprocess.run([*command, *arguments], cwd=issgd.place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert state_of(issgd, "own") == "finished"


@pytest.mark.long
def test_runs_in_processes_of_their_own_load_nothing_from_the_current_folder(issgd: CommandLine) -> None:
    (issgd.place / "tiny.toml").write_text(
        f'extends = "{EXPERIMENTS / "smoke.toml"}"\nseeds = "0"\ncluster.kind = "simulated"\nmaster.steps = 32\n'
    )
    for name in ("socket", "selectors", "pickle", "random"):
        (issgd.place / f"{name}.py").write_text("raise SystemExit(f'{__name__} of the current folder is loaded')")
    done = issgd("reproduce", "tiny.toml", "--data-dir", issgd.data_dir, "--only", "method=sgd")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_checkout_that_was_never_installed_runs_its_actors_too(issgd: CommandLine, tmp_path: Path) -> None:
    """Its code is found by the path that the launcher was given, not by the environment's packages."""
    other = tmp_path / "checkout" / "issgd_cli"
    other.parent.mkdir()
    other.symlink_to(Path(output.__file__).parents[1])
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from issgd_cli.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(other.parent), *map(str, issgd.train("other", "--workers", "1"))],
        cwd=issgd.place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Signals at any time


@pytest.mark.parametrize("resumed", [False, True])
def test_ctrl_c_while_a_command_starts_is_answered_with_130_and_no_traceback(issgd: CommandLine, resumed: bool) -> None:
    arguments = issgd.train("early", *ENDLESS)
    if resumed:
        process = issgd.start(*arguments)
        eventually(lambda: list((issgd.place / "results/early").glob("*/seed-000/trace.csv")), "a trace")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        arguments = (*arguments, "--resume")
    for seconds in (0.1, 0.5, 1.5):
        process = issgd.start(*arguments)
        heard = Path(f"/proc/{process.pid}/status")
        if heard.exists():  # until then the signal is Python's own
            eventually(lambda: started(heard), "the command has begun")  # noqa: B023 - not kept
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, f"after {seconds} s: {out}{err}"
        assert "Traceback" not in out + err
        assert err.startswith(("issgd: interrupted", "issgd: Interrupted.")), err
        if not resumed and list((issgd.place / "results/early").glob("*/seed-000/manifest.json")):
            arguments = (*issgd.train("early", *ENDLESS), "--resume")


def started(status: Path) -> bool:
    """Whether a process has come to load what the command line needs: then our own handler is in place."""
    try:
        maps = status.with_name("maps").read_text()
    except OSError:  # it is over
        return True
    return maps == "" or "lib-dynload" in maps or "site-packages" in maps


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("command", [("doctor",), ("prepare", "house-numbers")])
def test_ctrl_c_in_the_first_moments_of_any_command_leaves_no_traceback(
    issgd: CommandLine, command: tuple[str, ...]
) -> None:
    for seconds in (0.0, 0.5, 1.5):
        process = issgd.start(*command)
        eventually(lambda: started(Path(f"/proc/{process.pid}/status")), "it has begun")  # noqa: B023 - not kept
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (130, 0, 1), err  # or it was done before
        assert "Traceback" not in out + err
        assert process.returncode != 130 or err.endswith("issgd: interrupted\n")
    assert not list(issgd.place.glob("data/.*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_a_users_data_are_prepared_leaves_nothing_half_done(
    issgd: CommandLine, number: signal.Signals
) -> None:
    images = np.zeros((30_000, 50, 50), np.uint8)
    np.savez(issgd.place / "big.npz", images=images, labels=np.zeros(len(images), np.uint8))
    process = issgd.start("train", "--data", "big.npz", *ENDLESS)
    eventually(lambda: list((issgd.place / "data").glob(".big-*.partial")), "it is being prepared")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.splitlines()[-1]) == (128 + number, "issgd: interrupted")
    assert not list((issgd.place / "data").glob("*.partial")) + list((issgd.place / "data").glob("big-*"))


def test_a_closed_terminal_interrupts_a_run_which_can_be_gone_on_with(issgd: CommandLine) -> None:
    process = issgd.start(*issgd.train("hung", *ENDLESS))
    eventually(lambda: list((issgd.place / "results/hung").glob("*/seed-000/trace.csv")), "a trace")
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 129
    assert "--resume" in err
    assert '"interrupted"' in (issgd.run_of("hung") / "manifest.json").read_text()


# What cannot be read or written


def test_a_trace_that_cannot_be_read_leaves_the_others_listed(issgd: CommandLine) -> None:
    done = issgd.here(*issgd.train("one", *SIMULATED))
    assert done.returncode == 0, done.stderr
    shutil.copytree(issgd.place / "results/one", issgd.place / "results/two")
    trace = issgd.run_of("one") / "trace.csv"
    trace.unlink()
    trace.mkdir()
    listed = issgd.here("status")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("finished") == 2
    assert "Is a directory" in listed.stdout
    plotted = issgd.here("plot", issgd.run_of("one"))
    assert (plotted.returncode, plotted.stderr.count("\n")) == (1, 1)
    assert "trace.csv" in plotted.stderr


@pytest.mark.long
def test_a_figure_that_cannot_be_written_is_one_message_with_the_remedy(issgd: CommandLine) -> None:
    """As in somebody else's folder. (A folder in the figure's place keeps root out, too.)"""
    done = issgd.here(*issgd.train("theirs", *SIMULATED))
    assert done.returncode == 0, done.stderr
    (issgd.run_of("theirs") / "run.png").mkdir()
    refused = issgd.here("plot", issgd.run_of("theirs"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("issgd: ")
    assert "run.png cannot be written" in refused.stderr
    assert "--out DIR" in refused.stderr
    elsewhere = issgd.here("plot", issgd.run_of("theirs"), "--out", "elsewhere")
    assert elsewhere.returncode == 0, elsewhere.stderr
    (issgd.place / "file").touch()
    blocked = issgd.here("plot", issgd.run_of("theirs"), "--out", "file")
    assert (blocked.returncode, "--out DIR" in blocked.stderr) == (1, True), blocked.stderr


def test_whatever_else_the_system_refuses_is_one_message_too(issgd: CommandLine) -> None:
    (issgd.place / "loop").symlink_to("loop")
    for command in (("status", "loop/x"), ("plot", "loop"), ("train", "loop"), ("prepare", "mnist", "--from", "loop")):
        done = issgd.here(*command)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stderr.count("\n") <= 1
