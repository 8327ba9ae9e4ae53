"""Run folders: who may start what, and what is true of a run whose process is gone."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.runs.folder import RunFolder, begin, end, find, hash_of, is_locked, locked, run_folder, surroundings
from tests import disks

Configured = Callable[..., Config]


@contextmanager
def holder(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder's lock until it is killed."""
    code = f"""
        import sys, time
        from pathlib import Path
        from issgd_cli.runs.folder import locked
        with locked(Path({str(place)!r}), "the other"):
            print("held", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def begun(folder: RunFolder, config: Config, resume: bool = False) -> RunFolder:
    begin(folder, config, ["issgd", "train"], resume)
    return folder


# Where it lies


def test_the_folder_is_named_by_setting_method_and_hash(tmp_path: Path, configured: Configured) -> None:
    config = configured("name=quick", "seed=7")
    path = run_folder(tmp_path, config, "b", "issgd").path
    assert path == tmp_path / "quick" / f"b-issgd-{config.hash()}" / "seed-007"
    assert run_folder(tmp_path, config, "", "sgd").path.parent.name == f"sgd-{config.hash()}"


def test_the_dataset_stands_between_setting_and_method_where_it_has_a_name(
    tmp_path: Path, configured: Configured
) -> None:
    config = configured("name=quick")
    assert run_folder(tmp_path, config, "b", "sgd", "mnist").path.parent.name == f"b-mnist-sgd-{config.hash()}"
    assert run_folder(tmp_path, config, "", "sgd", "mnist").path.parent.name == f"mnist-sgd-{config.hash()}"
    assert run_folder(tmp_path, config, "b", "sgd", "") == run_folder(tmp_path, config, "b", "sgd")


def test_seeds_share_a_folder_and_configurations_do_not(tmp_path: Path, configured: Configured) -> None:
    paths = [
        run_folder(tmp_path, configured(*settings), "a", "issgd").path
        for settings in (["seed=1"], ["seed=2"], ["seed=1", "optimizer.learning_rate=0.9"])
    ]
    assert paths[0].parent == paths[1].parent != paths[2].parent


# Starting


def test_a_new_run_has_its_configuration_manifest_and_places(tmp_path: Path, configured: Configured) -> None:
    config = configured("seed=3")
    folder = begun(RunFolder(tmp_path / "run" / "seed-003"), config)
    assert folder.read_config() == config
    manifest = json.loads(folder.manifest.read_text())
    assert (manifest["state"], manifest["failure"], manifest["seed"]) == ("running", None, 3)
    assert (manifest["command"], manifest["config_hash"]) == (["issgd", "train"], config.hash())
    assert set(manifest["packages"]) >= {"torch", "numpy", "redis"}
    assert manifest["start"]
    assert folder.logs.is_dir()
    assert folder.audits.is_dir()
    assert folder.checkpoint.parent.is_dir()


def test_a_finished_run_is_not_started_again_even_with_resume(tmp_path: Path, configured: Configured) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured())
    end(folder, "finished")
    for resume in (False, True):
        with pytest.raises(RunError, match="holds a finished run"):
            begun(folder, configured(), resume)


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_an_unfinished_run_is_gone_on_with_only_by_resume(tmp_path: Path, configured: Configured, state: str) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured())
    start = folder.read_manifest()["start"]
    folder.update_manifest(state=state, failure={"actor": "master", "reason": "x"})
    with pytest.raises(RunError, match="--resume"):
        begun(folder, configured())
    manifest = begun(folder, configured(), resume=True).read_manifest()
    assert manifest["start"] == start
    assert manifest["resumed"]
    assert json.loads(folder.manifest.read_text())["state"] == "running"
    assert json.loads(folder.manifest.read_text())["failure"] is None


def test_a_run_of_another_configuration_is_not_gone_on_with(tmp_path: Path, configured: Configured) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured())
    with pytest.raises(RunError, match="another configuration"):
        begun(folder, configured("optimizer.learning_rate=0.9"), resume=True)
    begun(folder, configured("cluster.devices=['cpu']"), resume=True)  # no part of what defines the results


def test_resuming_where_nothing_was_started_starts(tmp_path: Path, configured: Configured) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured(), resume=True)
    assert "start" in folder.read_manifest()


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, configured: Configured) -> None:
    (tmp_path / "results").write_text("a file where the folder belongs")
    folder = RunFolder(tmp_path / "results" / "seed-000")
    with pytest.raises(RunError, match=r"cannot be written: .*--results-dir"), locked(folder.path, "another"):
        pass
    with pytest.raises(RunError, match=r"cannot be written: .*--results-dir"):
        begun(folder, configured())


def test_a_disk_that_fills_leaves_the_manifest_whole_and_one_clear_error(
    tmp_path: Path, configured: Configured
) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured())
    before = folder.manifest.read_bytes()
    with (
        disks.full(100),
        pytest.raises(RunError, match=r"manifest\.json cannot be written: .*Free space.*--results-dir"),
    ):
        end(folder, "finished")
    assert folder.manifest.read_bytes() == before
    assert not list(folder.path.glob("*.partial"))


# State


def test_a_folder_without_a_run_has_no_state(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).state() is None
    with pytest.raises(RunError, match=r"no readable manifest\.json"):
        RunFolder(tmp_path).read_manifest()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"no": "state"}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=r"no readable manifest\.json"):
        RunFolder(tmp_path).state()


def test_a_run_reads_as_running_while_its_process_lives_and_as_interrupted_once_it_is_killed(
    tmp_path: Path, configured: Configured
) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured())
    with holder(folder.path) as process:
        assert folder.state() == "running"
        process.kill()
        process.wait()
        manifest = folder.read_manifest()
    assert manifest["state"] == "interrupted"
    assert manifest["failure"] == {"actor": "launcher", "reason": "killed"}


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_how_a_run_ended_stays_true(tmp_path: Path, configured: Configured, state: str) -> None:
    folder = begun(RunFolder(tmp_path / "seed-000"), configured())
    end(folder, state, None if state == "finished" else {"actor": "worker-1", "reason": "out of memory"})  # type: ignore[arg-type]
    manifest = folder.read_manifest()
    assert manifest["state"] == state
    assert manifest["end"] >= manifest["start"]
    assert (manifest["failure"] is None) == (state == "finished")


# The lock


def test_the_lock_refuses_a_second_process_and_names_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert is_locked(tmp_path)
        with pytest.raises(RunError, match=rf"another issgd is already at work .*process {process.pid}"):
            with locked(tmp_path, "another issgd"):
                pass
    assert not is_locked(tmp_path)
    with locked(tmp_path, "another issgd"):  # a killed process holds nothing
        assert is_locked(tmp_path)


def test_the_lock_refuses_the_same_process_too_and_ends_with_its_block(tmp_path: Path) -> None:
    with locked(tmp_path, "this"), pytest.raises(RunError, match="already at work"), locked(tmp_path, "this"):
        pass
    assert not is_locked(tmp_path)
    with locked(tmp_path, "this"):
        pass


def test_a_folder_that_nobody_ever_locked_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


# Finding, and what a result depends on


def test_runs_are_found_in_order_at_or_under_a_folder(tmp_path: Path, configured: Configured) -> None:
    paths = [tmp_path / "e" / run / seed for run in ("b-sgd", "a-issgd") for seed in ("seed-001", "seed-000")]
    for path in paths:
        begun(RunFolder(path), configured())
    (tmp_path / "e" / "manifest.json").write_text("{}")  # an experiment's own is no run's
    assert [run.path for run in find(tmp_path)] == sorted(paths)
    assert [run.path for run in find(paths[0])] == [paths[0]]
    assert find(tmp_path / "absent") == []


def test_runs_behind_links_are_found_once_and_a_circle_ends(tmp_path: Path, configured: Configured) -> None:
    """As after the results have been moved to another disk, and linked back."""
    for name in ("one", "two"):
        begun(RunFolder(tmp_path / "disk" / name / "a-issgd" / "seed-000"), configured())
    results = tmp_path / "results"
    results.mkdir()
    (results / "one").symlink_to(tmp_path / "disk" / "one")
    (results / "one-again").symlink_to(tmp_path / "disk" / "one")
    (results / "two").mkdir()
    (results / "two" / "a-issgd").symlink_to(Path("../../disk/two/a-issgd"))
    (results / "back").symlink_to(results)
    (results / "nowhere").symlink_to(tmp_path / "gone")
    expected = [results / "one" / "a-issgd" / "seed-000", results / "two" / "a-issgd" / "seed-000"]
    assert [run.path for run in find(results)] == expected
    (tmp_path / "linked").symlink_to(results)
    assert len(find(tmp_path / "linked")) == 2


def test_surroundings_say_code_packages_and_machine() -> None:
    said = surroundings()
    assert said["packages"]["torch"]
    assert said["machine"]["cores"] >= 1
    assert said["machine"]["cpu"]
    json.dumps(said)


def test_hash_of_is_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_surroundings_name_the_gpus_where_the_driver_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for script, expected in (
        ("echo NVIDIA A100-SXM4-40GB; echo ' NVIDIA T4 '", ["NVIDIA A100-SXM4-40GB", "NVIDIA T4"]),
        ("echo no driver; exit 9", None),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert surroundings()["machine"].get("gpus") == expected
        assert "gpus" not in surroundings(("cpu",))["machine"]  # a run that uses none
