"""What a user meets who mistypes, has no data yet, or only looks around."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.end_to_end.conftest import CommandLine


def test_version_and_help(issgd: CommandLine) -> None:
    assert issgd("--version").stdout.startswith("issgd 0.")
    for command in ("prepare", "train", "reproduce", "plot", "doctor", "status", "master", "worker", "monitor"):
        shown = issgd(command, "--help")
        assert shown.returncode == 0
        assert command in shown.stdout


def test_help_answers_fast() -> None:
    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - start

    # Beside what any such command line has to load, in turns, so that a slow or busy machine slows both.
    for attempt in range(3):
        both = [
            (seconds("-m", "issgd_cli", "--help"), seconds("-c", "import typer, rich.console, rich.table"))
            for _ in range(5 * (attempt + 1))
        ]
        ours, least = (min(times) for times in zip(*both, strict=True))
        if ours < 3 * least:  # 1.6 times, where nothing else is loaded
            return
    pytest.fail(f"issgd --help takes {ours:.2f} s, loading typer and rich alone {least:.2f} s")


@pytest.mark.parametrize(
    ("arguments", "what", "remedy"),
    [
        (("train", "--data", "mnist"), "mnist", "issgd prepare mnist"),
        (("train", "--data", "house-number"), "house-number", "house-numbers"),
        (("train", "--data", "none.npz"), "none.npz", ""),
        (("train", "missing.toml"), "missing.toml", "experiments/"),
        (("train", "--set", "optimizer.learnin_rate=1"), "learnin_rate", "did you mean optimizer.learning_rate"),
        (("train", "--set", "learning_rate"), "learning_rate", "section.key=value"),
        (("train", "--set", "optimizer.learning_rate=-1"), "optimizer.learning_rate", "greater than 0"),
        (("train", "--method", "adam"), "adam", "issgd"),
        (("train", "--mode", "exact"), "exact mode", "master.steps"),
        (("plot", "nowhere"), "nowhere", "issgd status"),
        (("prepare", "svhn", "--from", "nowhere"), "nowhere", ""),
        (("prepare", "imagenet"), "imagenet", "house-numbers"),
        (("worker", "--database", "nonsense", "--run", "x"), "URL", "redis://"),
        (("worker", "--database", "unix:///nonexistent.sock", "--run", "x"), "", ""),
    ],
)
def test_a_mistake_is_answered_in_one_message_with_the_remedy(
    issgd: CommandLine, arguments: tuple[str, ...], what: str, remedy: str
) -> None:
    done = issgd.here(*arguments)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("issgd: ")
    assert "Traceback" not in done.stderr
    assert what in done.stderr
    assert remedy in done.stderr


def test_wrong_usage_exits_2(issgd: CommandLine) -> None:
    assert issgd("train", "--workers", "many").returncode == 2


def test_doctor_says_what_is_missing_and_the_command_that_mends_it(issgd: CommandLine) -> None:
    without = issgd.here("doctor")
    assert without.returncode == 1
    assert "issgd prepare house-numbers" in without.stdout
    with_data = issgd.here("doctor", "--data-dir", issgd.data_dir)
    assert with_data.returncode == 0, with_data.stdout
    assert "MISSING" not in with_data.stdout


def test_a_results_folder_that_cannot_be_made_is_named(issgd: CommandLine) -> None:
    blocked = issgd.place / "file"
    blocked.write_text("")
    done = issgd.here(*issgd.train("blocked", "--results-dir", blocked))
    assert done.returncode == 1
    assert str(blocked) in done.stderr
    assert "--results-dir" in done.stderr


def test_nothing_but_the_command_line_is_loaded_for_help() -> None:
    code = "import sys, issgd_cli.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    heavy = {"torch", "numpy", "pandas", "scipy", "matplotlib", "redis", "pydantic"}
    assert not heavy & set(loaded.stdout.split())


def test_exact_mode_without_workers_is_refused_instead_of_waiting_for_ever(issgd: CommandLine) -> None:
    done = issgd(*issgd.train("nobody", "--workers", "0"))
    assert done.returncode == 1
    assert "none can join" in done.stderr


def test_settings_on_the_command_line_win_over_the_file_the_seed_included(issgd: CommandLine) -> None:
    settings = ("--cluster", "simulated", "--steps", "3", "--set", "seed=4", "--set", "master.steps=2")
    done = issgd.here(*issgd.train("won", *settings))
    assert done.returncode == 0, done.stderr
    (folder,) = (issgd.place / "results" / "won").glob("*/seed-004")
    assert "steps = 2\n" in (folder / "config.toml").read_text()
    changed = issgd.here("train", folder / "config.toml", "--data-dir", issgd.data_dir, "--set", "seed=5")
    assert changed.returncode == 0, changed.stderr
    assert (folder.parent / "seed-005" / "trace.csv").exists()


@pytest.mark.long
def test_users_own_data_with_a_split_of_its_own_is_trained_at_once(issgd: CommandLine) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 600)
    images = (random.integers(0, 80, (600, 8, 8)) + 60 * labels[:, None, None]).astype(np.uint8)
    np.savez(issgd.place / "mine.npz", images=images, labels=labels)
    settings = ("model.hidden=[16]", "data.validation_fraction=0.1", "model.initial_weight_std=0.2")
    flags = ("--steps", "40", "--workers", "1", *(word for setting in settings for word in ("--set", setting)))
    done = issgd("train", "--data", "mine.npz", *flags)
    assert done.returncode == 0, done.stderr
    assert "Finished: 40 steps" in done.stdout
    assert "preparing mine-" in done.stderr  # not silently

    (name,) = [folder.name for folder in (issgd.place / "data").glob("mine-*")]
    prepared = issgd("prepare", "./mine.npz", "--validation-fraction", "0.1")
    assert f"Next: issgd train --data {name} --workers 3" in prepared.stdout
    for spelling in (issgd.place / "mine.npz", name):  # by any name it is the same run, and the file may go
        assert "holds a finished run" in issgd("train", "--data", spelling, *flags, "--resume").stderr
        (issgd.place / "mine.npz").unlink(missing_ok=True)
    assert f"write `{name}` in its place" in issgd("train", "--data", "mine.npz", *flags).stderr


@pytest.mark.long
def test_a_run_takes_a_block_of_steps_and_its_last_audit_however_short_its_seconds(issgd: CommandLine) -> None:
    limits = ("--set", "master.steps=100000", "--seconds", "0.01", "--mode", "relaxed")
    done = issgd(*issgd.train("short", *limits))
    assert done.returncode == 0, done.stderr
    assert "Finished: 32 steps" in done.stdout
    assert "exact at the last step" in done.stdout
