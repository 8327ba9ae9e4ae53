"""The local cluster: a Redis server, a master, workers and a monitor, each a process of this machine."""

import threading

from issgd_cli.clusters.cluster import Watch
from issgd_cli.clusters.processes import Processes
from issgd_cli.clusters.service import opened
from issgd_cli.clusters.supervisor import Supervisor
from issgd_cli.config.config import Config
from issgd_cli.networks import naming
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder


def run(
    config: Config, folder: RunFolder, problem: Problem, watch: Watch, stop: threading.Event, jobs: int = 1
) -> None:
    """The whole run, its actors in processes; see `experiments.run.train`, which this is a part of.

    Raises:
        ActorError: An actor or the server has ended before its time.
        Interrupted: `stop` was set.
        IssgdError: The database is not there.
    """
    with opened(config, folder) as service:
        launcher = Processes(service.run_name, folder, config.data.dir, jobs, naming.named(config.model.network))
        Supervisor(config, folder, problem, service, launcher, watch, stop).run()
