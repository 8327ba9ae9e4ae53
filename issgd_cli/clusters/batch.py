"""Batch scripts, of a run or of several: what Slurm is asked for; how a head starts, is warned, and queues again.

A user may read it, change it, and submit it by hand. It holds no secret: the head makes the passwords.
"""

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from issgd_cli.clusters.jobs import script_of
from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.runs.folder import RunFolder

OURS = ("job-name", "dependency", "array", "signal")  # what keeps two jobs from one run, and lets one go on
_SHORT = re.compile("-[HhkOQsVvW]*[Jda]")  # of these, as sbatch knows them: after others that take no value
REQUEUE_STATUS = 140  # 128 + USR2, of a head that was warned of its job's end

_SCRIPT = """\
#!/bin/bash
# {what}
# Submitted by issgd. By hand: env -u ISSGD_DATABASE sbatch {script}
# A run goes on where it stands, and nothing is done where it is finished.
{options}

{run}
unset ISSGD_DATABASE  # the job's server is its own
{exports}
# The head: database server, master and monitor. It starts each worker by an srun of its own.
srun {step} \\
  {head} --folder "$run" &
head=$!

# Slurm warns of the time's end, and of preemption where the site lets it: the head saves a checkpoint, and ends.
trap 'kill -s USR2 "$head"' USR2
trap 'kill -s TERM "$head"' TERM
while wait "$head"; status=$?; kill -0 "$head" 2> /dev/null; do :; done

if [ "$status" = {requeue} ]; then
  scontrol requeue "$SLURM_JOB_ID" || {{ job=$({again}) && echo "{job}" >> "$run/jobs"; }}
fi
exit "$status"
"""

_RUNS = """\
runs=(
{runs}
)
run=${{runs[SLURM_ARRAY_TASK_ID]}}
exec >> "$run/logs/job-$SLURM_JOB_ID.log" 2>&1
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
    path = place / script_of(folder).name
    return _filled(
        config,
        model,
        (here, place),
        what=f"The run in {place}",
        script=shlex.quote(str(path)),
        options=_options(config, job_name(place), here, f"{_literal(place / 'logs')}/job-%j.log"),
        run=f"run={shlex.quote(str(folder.path))}",
        again=f"sbatch --parsable {shlex.quote(str(path))}",
        job="${job%%;*}",
    )


def array(
    config: Config, folders: Sequence[RunFolder], path: Path, at_a_time: int | None, model: str | None, here: Path
) -> str:
    """The text of a batch script for several runs that ask for the same: an array, a job for each.

    Args:
        config: Of one of them; the others' have the same `request`.
        folders: Theirs.
        path: Where the script will be, in the experiment's folder.
        at_a_time: How many of the jobs may run; None: as many as Slurm lets.
        model: See `script`.
        here: The folder that relative paths are relative to.

    Raises:
        RunError: A path cannot stand in a script.
    """
    place = (here / path).absolute()
    limit = "" if at_a_time is None else f"%{at_a_time}"
    runs = "\n".join(f"  {shlex.quote(str(folder.path))}" for folder in folders)
    return _filled(
        config,
        model,
        (here, place, *(folder.path for folder in folders)),
        what=f"{len(folders)} runs, each a job of an array",
        script=shlex.quote(str(place)),
        # Jobs of one array wait for none of their own, but for those of an earlier one of the same name.
        options=[
            *_options(config, _array_name(place.parent, config), here, "/dev/null"),  # each writes into its run's logs
            f"--array=0-{len(folders) - 1}{limit}",
        ],
        run=_RUNS.format(runs=runs),
        again=f'sbatch --parsable --array="$SLURM_ARRAY_TASK_ID" {shlex.quote(str(place))}',
        job="${job%%;*}_$SLURM_ARRAY_TASK_ID",
    )


def request(config: Config) -> tuple[str, ...]:
    """What a run's job asks Slurm for; runs that ask for the same can be jobs of one array."""
    return tuple(_options(config, "", Path(), ""))


def refuse_unfit(config: Config) -> None:
    """Keeps out what a job could not go on by.

    Raises:
        ConfigError: It would be warned of its end as it starts, or lines of the user's own stand in the place of ours.
    """
    slurm = config.cluster.slurm
    seconds = seconds_of(slurm.time)
    if seconds is not None and seconds < 2 * slurm.signal_seconds:
        raise ConfigError(
            f"cluster.slurm.time = {slurm.time!r} is {seconds:,} seconds, and must be at least twice cluster.slurm."
            f"signal_seconds = {slurm.signal_seconds}: else the job does nothing but save and queue again."
        )
    for line in slurm.sbatch:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"cluster.slurm.sbatch holds {line!r}: {error}.") from None
        for word in words:
            long = word.startswith("--") and word[2:].partition("=")[0]
            if _SHORT.match(word) or (long and any(name.startswith(long) for name in OURS)):
                raise ConfigError(f"cluster.slurm.sbatch holds {line!r}: {', '.join(OURS)} are issgd's own.")


def seconds_of(text: str) -> int | None:
    """A time limit as Slurm reads it, 30, 30:00, 4:00:00, 2-12 or 2-12:00:00; None where there is none: empty, or 0."""
    if not text:
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:  # days, then hours first
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:  # minutes alone, or with seconds
        hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return (int(days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds or None


def _filled(config: Config, model: str | None, paths: Iterable[Path], *, options: Iterable[str], **texts: str) -> str:
    """The script of these texts, each a value of `_SCRIPT`'s."""
    for path in paths:
        if not str(path).isprintable():
            raise RunError(f"{str(path)!r} cannot stand in a batch script. Choose another `--results-dir`, or folder.")
    named = [] if model is None else ["--model", model]
    inherited = os.environ.get("PYTHONPATH", "")
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH {option}" for option in options),
        exports=f"export PYTHONPATH={shlex.quote(inherited)}\n" if inherited.isprintable() and inherited else "",
        step=" ".join([*step_options(config), "--relative=0", "--kill-on-bad-exit=0"]),
        head=shlex.join([sys.executable, "-m", "issgd_cli", "head", *named]),
        requeue=REQUEUE_STATUS,
        **texts,
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


def _array_name(place: Path, config: Config) -> str:
    """One for each experiment and request."""
    asked = hashlib.sha256("\n".join([str(place), *request(config)]).encode()).hexdigest()[:8]
    return f"{place.name}-{asked}"


def _options(config: Config, name: str, here: Path, output: str) -> Iterator[str]:
    """What stands behind #SBATCH; `output` as sbatch reads it, with its own %j."""
    slurm = config.cluster.slurm
    yield f"--job-name={_quoted(name)}"
    yield f"--chdir={_quoted(str(here))}"
    yield f"--output={_quoted(output)}"
    yield "--open-mode=append"
    for key in ("partition", "account", "time", "nodes"):
        if value := getattr(slurm, key):
            yield f"--{key}={value}"
    yield f"--ntasks={config.worker.count + 1}"
    yield f"--cpus-per-task={slurm.cpus_per_task}"
    if slurm.gpus_per_task:
        yield f"--gpus-per-task={slurm.gpus_per_task}"
    yield f"--signal=B:USR2@{slurm.signal_seconds}"
    yield "--requeue"
    yield "--dependency=singleton"
    yield from slurm.sbatch


def _literal(path: Path) -> str:
    """In a pattern of sbatch's, where % begins what it fills in."""
    return str(path).replace("%", "%%")


def _quoted(text: str) -> str:
    """As sbatch reads it in a line of a script: it knows quotes and backslashes, and no variables."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
