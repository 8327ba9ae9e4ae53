"""Slurm's commands: a script becomes a job, which is asked after and cancelled; see Submission."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from issgd_cli.clusters.cluster import Standing
from issgd_cli.errors import RunError

PATIENCE_SECONDS = 60.0
# By a submission: a password, and what would stand in the place of the script's own lines.
LEFT_BEHIND = ("ISSGD_DATABASE", "SBATCH_ARRAY_INX", "SBATCH_JOB_NAME", "SBATCH_SIGNAL")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING")


class Slurm:
    """See Submission."""

    def submit(self, script: Path) -> str:
        # All of a job's environment is kept where others may read it.
        environment = {name: value for name, value in os.environ.items() if name not in LEFT_BEHIND}
        said = _run(["sbatch", "--parsable", str(script)], environment).split(";")[0].strip()
        if not said.isdecimal():
            raise RunError(f"sbatch has told no job's number, but {said!r}. Submit {script} by hand.")
        return said

    def standings(self) -> Mapping[str, Standing] | None:
        columns = "JobArrayID:24,State:24,RestartCnt:12,Reason:64"
        with contextlib.suppress(RunError):  # a controller that is busy, or away, says so by its status
            return dict(standings(_run(["squeue", "--me", "--array", "--noheader", f"--Format={columns}"])))
        return None

    def cancel(self, job: str) -> None:
        _run(["scancel", job])


def standings(text: str) -> Iterator[tuple[str, Standing]]:
    """Jobs and how they stand, from what squeue has printed; those that have ended are left out."""
    for line in text.splitlines():
        job, state, restarts, reason = (*line.split(maxsplit=3), "", "", "", "")[:4]
        reason = "" if reason.strip() == "None" else reason.strip()
        if state in WAITING:
            yield job, Standing("requeued" if restarts not in ("", "0") or state != "PENDING" else "queued", reason)
        elif state in RUNNING:
            yield job, Standing("running")


def address(node: str) -> str:
    """Where the cluster reaches one of its nodes: a name or number of the network.

    Raises:
        RunError: Slurm does not know it.
    """
    words = _run(["scontrol", "show", "node", node, "--oneliner"]).split()
    found = [word.removeprefix("NodeAddr=") for word in words if word.startswith("NodeAddr=")]
    return found[0] if found else node


def nodes(environment: Mapping[str, str]) -> list[str]:
    """The names of the nodes of the job that this process is a part of.

    Raises:
        RunError: It is part of none.
    """
    if "SLURM_JOB_ID" not in environment:
        raise RunError("This is no Slurm job. `issgd train --cluster slurm` submits one.")
    listed = environment.get("SLURM_JOB_NODELIST", "")
    return _run(["scontrol", "show", "hostnames", listed]).split() if listed else []


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command of Slurm's prints.

    Raises:
        RunError: It is not there, or has failed; with its own words.
    """
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise RunError(
            f"There is no {command[0]} here. --cluster slurm is for a machine from which you submit Slurm jobs."
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} cannot be used: {error}.") from None
    if done.returncode:
        raise RunError(f"{command[0]} says: {done.stderr.strip() or f'nothing, with status {done.returncode}'}.")
    return done.stdout
