"""One run, on whatever cluster its configuration names: its folder, its lock, its manifest, and how it ended."""

import contextlib
import threading

from issgd_cli.clusters import alone, job, local, on_ray
from issgd_cli.clusters.cluster import ActorError, Interrupted, Watch
from issgd_cli.clusters.resuming import dataset_of, refuse_other_data
from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.files import telling
from issgd_cli.problem import Problem
from issgd_cli.runs import folder as runs
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation import cluster as simulated


def train(
    config: Config,
    folder: RunFolder,
    *,
    command: list[str],
    resume: bool = False,
    watch: Watch = lambda snapshot: None,
    stop: threading.Event | None = None,
    labels: dict[str, str] | None = None,
    jobs: int = 1,
) -> None:
    """One run, from its beginning or its checkpoint to its end.

    Args:
        config: Of the run.
        folder: Where it is written.
        command: What to note in the manifest as the command line.
        resume: Go on with an unfinished run.
        watch: Called about twice a second.
        stop: Set by the caller to interrupt the run; it then ends within seconds, as interrupted.
        labels: More for the manifest: the experiment's setting, method and dataset.
        jobs: How many runs share this machine, and so its cores.

    Raises:
        RunError: The folder is in use or not resumable, an actor failed, or the run was interrupted.
        IssgdError: The dataset or the database is not there.
    """
    if (
        config.master.mode == "exact"
        and config.worker.count == 0
        and not (config.database.url or config.database.listen)
    ):
        raise ConfigError(
            "Exact mode waits for workers, worker.count is 0, and without --database or --listen none can join."
        )
    data = dataset_of(config)
    problem = Problem(config, data)
    stop = stop or threading.Event()
    patience = job.LOCK_SECONDS if config.cluster.kind == "slurm" else runs.LOOK_SECONDS
    with runs.locked(folder.path, "another issgd", patience):
        if config.cluster.kind == "slurm":
            job.arrived(folder)
        refuse_other_data(folder, data)
        runs.begin(folder, config, command, resume)
        folder.update_manifest(
            dataset={
                "name": config.data.name,
                "fingerprint": data.fingerprint,
                **data.sizes,
                "files": data.stamps,  # when they were last changed
            },
            cluster=config.cluster.kind,
            **(labels or {}),
        )
        try:
            with telling():
                if config.cluster.kind == "simulated":
                    simulated.run(config, folder, problem, watch, stop)
                elif config.cluster.kind == "alone":
                    alone.run(config, folder, problem, watch, stop)
                elif config.cluster.kind == "slurm":
                    job.run(config, folder, problem, watch, stop)
                elif config.cluster.kind == "ray":
                    on_ray.run(config, folder, problem, watch, stop)
                else:
                    local.run(config, folder, problem, watch, stop, jobs)
        except Interrupted:
            runs.end(folder, "interrupted", {"actor": "launcher", "reason": "interrupted"})
            raise RunError(f"Interrupted. Go on with `--resume`; the trace so far is in {folder.trace}.") from None
        except BaseException as error:
            actor = error.actor if isinstance(error, ActorError) else "launcher"
            with contextlib.suppress(RunError):  # the disk may be full
                runs.end(folder, "failed", {"actor": actor, "reason": str(error) or type(error).__name__})
            raise
        runs.end(folder, "finished")
