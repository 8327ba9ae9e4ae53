"""The batch script of a run: what Slurm is asked for, and how the run's head starts, is warned, and queues again.

A user may read it, change it, and submit it by hand. It holds no secret: the head makes the passwords.
"""

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from issgd_cli.clusters.jobs import script_of
from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.runs.folder import RunFolder

REQUEUE_STATUS = 140  # 128 + USR2, of a head that was warned of its job's end

_SCRIPT = """\
#!/bin/bash
# The run in {place}
# Submitted by issgd. By hand: sbatch {script}
# It goes on where the run stands, and does nothing where that is finished.
{options}

unset ISSGD_DATABASE  # the job's server is its own
{exports}
# The head: database server, master and monitor. It starts each worker by an srun of its own.
srun {step} \\
  {head} &
head=$!

# Slurm warns of the time's end, and of preemption where the site lets it: the head saves a checkpoint, and ends.
trap 'kill -s USR2 "$head"' USR2
trap 'kill -s TERM "$head"' TERM
while wait "$head"; status=$?; kill -0 "$head" 2> /dev/null; do :; done

if [ "$status" = {requeue} ]; then
  scontrol requeue "$SLURM_JOB_ID" || sbatch --parsable {script} >> {jobs}
fi
exit "$status"
"""


def script(config: Config, folder: RunFolder, model: str | None, here: Path) -> str:
    """The text of a run's batch script.

    Args:
        config: Of the run.
        folder: Its folder, which all nodes see.
        model: The network of the user's own that the command line names, if it does.
        here: The folder that the run's relative paths are relative to.

    Raises:
        RunError: A path cannot stand in a script.
    """
    place = (here / folder.path).absolute()
    for path in (place, here):
        if not str(path).isprintable():
            raise RunError(f"{str(path)!r} cannot stand in a batch script. Choose another `--results-dir`, or folder.")
    words = [sys.executable, "-m", "issgd_cli", "head", "--folder", str(folder.path)]
    paths = os.environ.get("PYTHONPATH", "")
    return _SCRIPT.format(
        place=place,
        script=shlex.quote(str(place / script_of(folder).name)),
        jobs=shlex.quote(str(place / folder.jobs.name)),
        options="\n".join(f"#SBATCH {option}" for option in _options(config, place, here)),
        exports=f"export PYTHONPATH={shlex.quote(paths)}\n" if paths.isprintable() and paths else "",
        step=" ".join([*step_options(config), "--relative=0", "--kill-on-bad-exit=0"]),
        head=shlex.join([*words, *([] if model is None else ["--model", model])]),
        requeue=REQUEUE_STATUS,
    )


def step_options(config: Config) -> list[str]:
    """Of an `srun` that starts one actor, on one node, with its share of the job and no more."""
    slurm = config.cluster.slurm
    gpus = [f"--gpus-per-task={slurm.gpus_per_task}"] if slurm.gpus_per_task else []
    # No memory of its own: else the first step takes the job's on its node, and the others wait for it for ever.
    share = [f"--cpus-per-task={slurm.cpus_per_task}", *gpus, "--mem=0"]
    return ["--ntasks=1", "--nodes=1", "--exact", *share, "--export=ALL", "--input=none"]


def job_name(place: Path) -> str:
    """One for each run: of the jobs of one name a user's run one after the other, which no lock on a disk promises."""
    return f"{'/'.join(place.parts[-3:])}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"


def _options(config: Config, place: Path, here: Path) -> Iterator[str]:
    slurm = config.cluster.slurm
    yield f"--job-name={_quoted(job_name(place))}"
    yield f"--chdir={_quoted(str(here))}"
    yield f"--output={_quoted(str(place / 'logs').replace('%', '%%') + '/job-%j.log')}"
    yield "--open-mode=append"
    for name in ("partition", "account", "time", "nodes"):
        if value := getattr(slurm, name):
            yield f"--{name}={value}"
    yield f"--ntasks={config.worker.count + 1}"
    yield f"--cpus-per-task={slurm.cpus_per_task}"
    if slurm.gpus_per_task:
        yield f"--gpus-per-task={slurm.gpus_per_task}"
    yield f"--signal=B:USR2@{slurm.signal_seconds}"
    yield "--requeue"
    yield "--dependency=singleton"
    yield from slurm.sbatch


def _quoted(text: str) -> str:
    """As sbatch reads it in a line of a script: it knows quotes and backslashes, and no variables."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
