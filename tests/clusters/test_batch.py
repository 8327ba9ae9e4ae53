"""The batch script of a run."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from issgd_cli.clusters.batch import array, job_name, refuse_unfit, request, script, seconds_of
from issgd_cli.clusters.jobs import script_of
from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.runs.folder import RunFolder

Configured = Callable[..., Config]


def test_the_script_asks_for_what_is_configured(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    config = configured(
        "cluster.kind=slurm",
        "worker.count=16",
        "cluster.slurm.partition=gpu",
        "cluster.slurm.account=lab-7",
        "cluster.slurm.time=1-12:00:00",
        "cluster.slurm.nodes=4",
        "cluster.slurm.gpus_per_task=1",
        "cluster.slurm.signal_seconds=300",
        'cluster.slurm.sbatch=["--mem-per-cpu=4G", "--constraint=a100"]',
    )
    text = script(config, RunFolder(Path("results/x/a/seed-000")), "own.module:function", Path("/home/me"))
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        f'--job-name="{job_name(Path("/home/me/results/x/a/seed-000"))}"',
        '--chdir="/home/me"',
        '--output="/home/me/results/x/a/seed-000/logs/job-%j.log"',
        "--open-mode=append",
        "--partition=gpu",
        "--account=lab-7",
        "--time=1-12:00:00",
        "--nodes=4",
        "--ntasks=17",
        "--cpus-per-task=2",
        "--gpus-per-task=1",
        "--signal=B:USR2@300",
        "--requeue",
        "--dependency=singleton",
        "--mem-per-cpu=4G",
        "--constraint=a100",
    ]
    assert "\nrun=results/x/a/seed-000\n" in text
    assert '/usr/bin/python3 -m issgd_cli head --model own.module:function --folder "$run" &\n' in text
    assert "--exact --cpus-per-task=2 --gpus-per-task=1 --mem=0" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(("name", "quoted"), [("a b", '"/a b/'), ('q"$(x)`', '"/q\\"$(x)`/'), ("c\\d", '"/c\\\\d/')])
def test_names_are_quoted_for_sbatch_and_for_the_shell(configured: Configured, name: str, quoted: str) -> None:
    folder = RunFolder(Path("/") / name / "x/a/seed-000")
    text = script(configured("cluster.kind=slurm"), folder, None, Path("/"))
    assert f"--output={quoted}x/a/seed-000/logs/job-%j.log" in text
    (line,) = [line for line in text.splitlines() if line.startswith("run=")]
    assert shlex.split(line) == [f"run={folder.path}"]
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_a_sign_of_a_pattern_in_a_path_stands_for_itself(configured: Configured) -> None:
    text = script(configured("cluster.kind=slurm"), RunFolder(Path("/%j/x/a/seed-000")), None, Path("/"))
    assert '--output="/%%j/x/a/seed-000/logs/job-%j.log"' in text


def test_a_path_of_several_lines_is_refused(configured: Configured) -> None:
    with pytest.raises(RunError, match="cannot stand in a batch script"):
        script(configured("cluster.kind=slurm"), RunFolder(Path("/a\n#SBATCH --x/seed-000")), None, Path("/"))


def test_each_run_has_a_name_of_its_own() -> None:
    one, other = (job_name(Path(f"/{home}/results/x/a/seed-000")) for home in ("one", "other"))
    assert one != other
    assert re.fullmatch(r"x/a/seed-000-[0-9a-f]{8}", one)


def test_runs_that_ask_for_the_same_are_an_array(configured: Configured, tmp_path: Path) -> None:
    config = configured("cluster.kind=slurm")
    folders = [RunFolder(tmp_path / f"x/a '$b/seed-00{seed}") for seed in range(3)]
    for folder in folders:
        folder.logs.mkdir(parents=True)
    path = tmp_path / "x/array.sh"
    text = array(config, folders, path, 2, None, tmp_path)
    assert "#SBATCH --array=0-2%2\n" in text
    assert "#SBATCH --array=0-2\n" in array(config, folders, path, None, None, tmp_path)
    (name,) = re.findall("--job-name=(.*)", text)
    assert name in array(config, folders[:1], tmp_path / "x/other.sh", None, None, tmp_path)  # which waits for this one
    other = configured("cluster.kind=slurm", "worker.count=7")
    assert request(other) != request(config)
    assert name not in array(other, folders, path, 2, None, tmp_path)
    path.write_text(text)
    place = commands(tmp_path)
    environment = {
        **place,
        "HEAD": "echo $run; exit 140",
        "REFUSES": "1",
        "SLURM_JOB_ID": "9",
        "SLURM_ARRAY_TASK_ID": "1",
    }
    assert subprocess.run(["bash", path], env=environment, timeout=30, check=False).returncode == 140
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].endswith(f"head --folder {folders[1].path}")
    assert calls[2] == f"sbatch --parsable --array=1 {path}"
    assert folders[1].jobs.read_text() == "43_1\n"
    assert (folders[1].logs / "job-9.log").exists()


STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0")" in
  srun) exec sh -c "$HEAD" ;;
  scontrol) exit "$REFUSES" ;;
  sbatch) echo 43 ;;
esac
"""


def commands(place: Path) -> dict[str, str]:
    """Stands in for what a script calls; its environment. The file `calls` tells who was called."""
    for name in ("srun", "scontrol", "sbatch"):
        (place / name).write_text(STUB)
        (place / name).chmod(0o755)
    return {"PATH": f"{place}{os.pathsep}{os.environ['PATH']}", "CALLS": str(place / "calls")}


@pytest.mark.parametrize(
    ("head", "refuses", "status", "calls"),
    [
        ("exit 0", 0, 0, ["srun"]),
        ("exit 1", 0, 1, ["srun"]),
        ("kill -s USR2 $PPID; trap 'exit 140' USR2; while :; do sleep 0.1; done", 0, 140, ["srun", "scontrol"]),
        ("exit 140", 1, 140, ["srun", "scontrol", "sbatch"]),
    ],
)
def test_a_warned_head_is_queued_again_and_no_other(
    configured: Configured, tmp_path: Path, head: str, refuses: int, status: int, calls: list[str]
) -> None:
    folder = RunFolder(tmp_path / "x/a b/seed-000")
    folder.path.mkdir(parents=True)
    script_of(folder).write_text(script(configured("cluster.kind=slurm"), folder, None, tmp_path))
    environment = {
        **commands(tmp_path),
        "HEAD": head,
        "REFUSES": str(refuses),
        "SLURM_JOB_ID": "42",
    }
    assert subprocess.run(["bash", script_of(folder)], env=environment, timeout=30, check=False).returncode == status
    told = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[0] for line in told] == calls
    if "scontrol" in calls:
        assert told[1] == "scontrol requeue 42"
    assert folder.jobs.exists() == ("sbatch" in calls)
    if folder.jobs.exists():
        assert folder.jobs.read_text() == "43\n"


@pytest.mark.parametrize("time", ["1", "3:59", "0:03:59", "0-0:03"])
def test_a_job_that_would_be_warned_as_it_starts_is_refused(configured: Configured, time: str) -> None:
    with pytest.raises(ConfigError, match=r"must be at least twice cluster.slurm.signal_seconds = 120: else"):
        refuse_unfit(configured(f"cluster.slurm.time='{time}'"))
    refuse_unfit(configured(f"cluster.slurm.time='{time}'", "cluster.slurm.signal_seconds=10"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("0", None),
        ("30", 1800),
        ("30:05", 1805),
        ("4:00:00", 14_400),
        ("2-12", 216_000),
        ("1-0:01", 86_460),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "line",
    [
        "--dependency=afterok:7",
        "--dependency afterok:7",
        "-d singleton",
        "-Jname",
        "-a 0-9",
        "--array=0-3",
        "--signal=USR1",
        "--depend=afterok:7",
        "--arr=0-3",
        "--sig=USR1",
        "-HJ x",
        "-A g --job-name=x",
        '--comment="x',
    ],
)
def test_lines_that_keep_jobs_apart_are_ours(configured: Configured, line: str) -> None:
    with pytest.raises(
        ConfigError, match=r"cluster\.slurm\.sbatch holds .*: (job-name, dependency, array, signal are|No closing)"
    ):
        refuse_unfit(configured(f"cluster.slurm.sbatch=['{line}']"))
    refuse_unfit(
        configured("cluster.slurm.sbatch=['--mem-per-cpu=4G', '-A group', '-p gpu-debug', '--qos=a', '-t 30']")
    )
