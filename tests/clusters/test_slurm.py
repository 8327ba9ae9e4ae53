"""Slurm's commands, by stand-ins for them on PATH."""

from collections.abc import Callable
from pathlib import Path

import pytest

from issgd_cli.clusters.cluster import Standing, Submission
from issgd_cli.clusters.slurm import Slurm, address, nodes, standings
from issgd_cli.errors import RunError

LISTED = """\
12                      PENDING                 0           Resources
13                      PENDING                 2           BeginTime
14                      RUNNING                 0           None
15                      COMPLETING              0           None
16                      COMPLETED               0           None
17                      REQUEUE_HOLD            1           job requeued in held state
18_3                    RUNNING                 0           None
nonsense
"""

Stub = Callable[[str, str], None]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Lets a shell script stand for one of Slurm's commands; all others are gone."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def of(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    return of


def test_what_squeue_prints_is_read() -> None:
    assert dict(standings(LISTED)) == {
        "12": Standing("queued", "Resources"),
        "13": Standing("requeued", "BeginTime"),
        "14": Standing("running"),
        "15": Standing("running"),
        "17": Standing("requeued", "job requeued in held state"),
        "18_3": Standing("running"),
    }


def test_a_script_is_submitted_and_no_password_goes_with_it(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what would stand in the place of the script's own lines."""
    monkeypatch.setenv("ISSGD_DATABASE", "redis://u:secret@h")
    for name in ("ARRAY_INX", "JOB_NAME", "SIGNAL"):
        monkeypatch.setenv(f"SBATCH_{name}", "0-3")
    none = "$ISSGD_DATABASE$SBATCH_ARRAY_INX$SBATCH_JOB_NAME$SBATCH_SIGNAL"
    stub("sbatch", f'test -z "{none}" && test "$1 $2" = "--parsable a b.sh" && echo "42;cluster"')
    slurm: Submission = Slurm()
    assert slurm.submit(Path("a b.sh")) == "42"


def test_a_job_that_slurm_refuses_is_told_of_in_its_own_words(stub: Stub) -> None:
    stub("sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(RunError, match="sbatch says: sbatch: error: invalid partition specified: gpu"):
        Slurm().submit(Path("job.sh"))
    stub("sbatch", "echo welcome")
    with pytest.raises(RunError, match="has told no job's number, but 'welcome'"):
        Slurm().submit(Path("job.sh"))


def test_where_there_is_no_slurm_it_is_said(stub: Stub) -> None:
    with pytest.raises(RunError, match="There is no sbatch here"):
        Slurm().submit(Path("job.sh"))
    with pytest.raises(RunError, match="There is no scancel here"):
        Slurm().cancel("1")
    assert Slurm().standings() is None


def test_a_controller_that_is_away_is_no_empty_queue(stub: Stub) -> None:
    stub("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert Slurm().standings() is None
    stub("squeue", "exit 0")
    assert Slurm().standings() == {}


def test_a_jobs_nodes_and_where_they_are(stub: Stub) -> None:
    stub("scontrol", 'test "$2" = hostnames && printf "n1\\nn2\\n" || echo "NodeName=$3 NodeAddr=10.0.0.2 State=IDLE"')
    assert nodes({"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n[1-2]"}) == ["n1", "n2"]
    assert address("n2") == "10.0.0.2"
    with pytest.raises(RunError, match="This is no Slurm job"):
        nodes({})
