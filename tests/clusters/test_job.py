"""A run within its Slurm job."""

import signal
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from issgd_cli.cli.signals import Stop
from issgd_cli.clusters import job
from issgd_cli.clusters.cluster import Standing
from issgd_cli.clusters.inviting import inviting
from issgd_cli.clusters.jobs import head_of, invitation_of, job_ids
from issgd_cli.clusters.service import Service
from issgd_cli.clusters.slurm import Slurm
from issgd_cli.clusters.steps import step_environment
from issgd_cli.clusters.supervisor import GRACE_SECONDS
from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.runs.folder import RunFolder

NewFolder = Callable[[str], RunFolder]


def test_a_job_takes_its_place_in_the_list_once(new_folder: NewFolder) -> None:
    folder = new_folder("run")
    assert job_ids(folder) == []
    with pytest.raises(RunError, match="This is no Slurm job"):
        job.note(folder, {})
    folder.manifest.write_text('{"state": "running"}')
    folder.jobs.write_text("3;cluster\n\nnonsense\n")
    for number in ("3", "5", "5"):
        job.note(folder, {"SLURM_JOB_ID": number})
    assert job_ids(folder) == ["3", "5"]
    assert folder.read_manifest()["jobs"] == ["3", "5"]
    job.note(folder, {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "12"})
    assert job_ids(folder) == ["3", "5", "6_12"]


@pytest.mark.parametrize(
    ("known", "forgets"),
    [
        ({}, True),
        ({"5": Standing("running")}, True),  # us
        ({"3": Standing("running"), "5": Standing("running")}, False),
        ({"3": Standing("requeued"), "9": Standing("running")}, True),
        (None, False),
    ],
)
def test_a_head_forgets_the_locks_of_an_earlier_one_on_another_machine_if_slurm_says_that_it_is_over(
    new_folder: NewFolder, monkeypatch: pytest.MonkeyPatch, known: dict[str, Standing] | None, forgets: bool
) -> None:
    monkeypatch.setattr(Slurm, "standings", lambda self: known)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    folder = new_folder("run")
    folder.jobs.write_text("3\n5\n")
    head_of(folder).write_text("n1\n")
    marks = [folder.path / "lock.held", folder.checkpoint.parent / "lock.held", folder.logs / "lock.held"]
    for mark in marks:
        mark.parent.mkdir(exist_ok=True)
        mark.write_text("123\nn1\n")
    job.take_over(folder)
    assert [mark.exists() for mark in marks] == [not forgets] * 3
    assert head_of(folder).read_text() == "n1\n"  # whose locks these are, until we hold them
    job.arrived(folder)
    assert head_of(folder).read_text() == f"{socket.gethostname()}\n"


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGUSR2, 150.0), (signal.SIGTERM, GRACE_SECONDS), (None, GRACE_SECONDS)]
)
def test_a_job_that_is_warned_waits_for_who_saves(
    configured: Callable[..., Config], number: signal.Signals | None, seconds: float
) -> None:
    stop = Stop()
    stop.signal_number = number
    config = configured("cluster.kind=slurm", "cluster.slurm.signal_seconds=300")
    assert job.grace_seconds(config, stop) == seconds
    assert job.grace_seconds(config, threading.Event()) == GRACE_SECONDS


@pytest.mark.parametrize(
    ("names", "there", "ours"),
    [(["n1"], "", "127.0.0.1"), (["n1", "n2"], "127.0.0.1", "127.0.0.1"), (["n1", "n2"], "localhost", None)],
)
def test_the_server_listens_where_the_other_nodes_reach_it(
    monkeypatch: pytest.MonkeyPatch, names: list[str], there: str, ours: str | None
) -> None:
    monkeypatch.setattr(job, "nodes", lambda environment: names)
    monkeypatch.setattr(job, "address", lambda node: {"n2": there}[node])
    found = job.own_address({"SLURMD_NODENAME": "n1"})
    assert found == ours if ours else found in ("127.0.0.1", "::1")


def test_a_node_that_no_way_leads_to_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "nodes", lambda environment: ["n1", "n2"])
    monkeypatch.setattr(job, "address", lambda node: "no-such-host.invalid")
    with pytest.raises(RunError, match=r"No way from here to the job's node n2.*--listen HOST:0"):
        job.own_address({"SLURMD_NODENAME": "n1"})


def test_the_invitation_is_its_users_alone_and_goes_with_the_server(new_folder: NewFolder, tmp_path: Path) -> None:
    folder = new_folder("run")
    (tmp_path / "theirs").write_text("redis://worker:secret@h:1\n")
    server: Any = SimpleNamespace(invitation=tmp_path / "theirs")
    service = cast(Service, SimpleNamespace(server=server))
    invitation_of(folder).write_text("of a life that was killed")
    with inviting(folder, service):
        assert invitation_of(folder).read_text() == "redis://worker:secret@h:1\n"
        assert stat.S_IMODE(invitation_of(folder).stat().st_mode) == 0o600
    assert [path.name for path in folder.path.glob("worker-database*")] == []


def test_a_step_inherits_where_the_job_is_and_nobodys_share_or_database() -> None:
    ours = {"PATH": "/bin", "SLURM_JOB_ID": "3", "SLURM_CPU_BIND": "mask_cpu:0x3", "SLURM_NTASKS": "1"}
    environment = step_environment({**ours, "ISSGD_DATABASE": "redis://u:secret@h", "ISSGD_LAUNCHER": "1"})
    del environment["OMP_NUM_THREADS"]
    assert environment == {"PATH": "/bin", "SLURM_JOB_ID": "3"}
