"""The simulated cluster: master, workers and monitor in one process, or server and peers, on a virtual clock.

The actors and what they compute are the local cluster's; only time and place are not real. A run depends on its
configuration alone, whatever the load of the machine: its trace is the same to the bit, seconds included.

A checkpoint only looks: a run goes on from it as it would have without, and a run that is stopped anywhere goes on from
its last one to the same bits (moment.py). Audits cost no virtual time: the monitor does them at each checkpoint.
"""

import contextlib
import threading
import time
from functools import partial

import torch

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.devices import computing, device_of
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.peer import Peer, Trainee
from issgd_cli.actors.server import Server
from issgd_cli.actors.worker import Scorer, Worker
from issgd_cli.clusters.cluster import WATCH_SECONDS, ActorError, Interrupted, Snapshot, Watch, actors
from issgd_cli.clusters.resuming import last_checkpoint, set_back
from issgd_cli.config.config import Config
from issgd_cli.config.sections import Clock
from issgd_cli.errors import IssgdError
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation import moment
from issgd_cli.simulation.clock import deaths, durations, on_link, resolved
from issgd_cli.simulation.estimate import measured
from issgd_cli.simulation.virtual import Life, VirtualTime


def run(config: Config, folder: RunFolder, problem: Problem, watch: Watch, stop: threading.Event) -> None:
    """The whole run; see `experiments.run.train`, which this is a part of.

    Raises:
        ActorError: An actor has failed.
        Interrupted: `stop` was set; the run can go on from its last checkpoint.
    """
    device = torch.device(device_of(config, "master", 0))
    with computing(config):
        clock = _clock(config, folder, problem, device)
        simulation = _Simulation(config, folder, problem, clock, device, _Onlooker(watch, stop))
        with contextlib.closing(simulation):
            simulation.run()


def _clock(config: Config, folder: RunFolder, problem: Problem, device: torch.device) -> Clock:
    """Every duration that the run has; settled when it starts, noted in its manifest, and kept when it is resumed."""
    noted = folder.read_manifest().get("clock")
    if noted is not None:
        return Clock.model_validate(noted)
    clock = resolved(config.cluster.clock, problem.data.sizes["train"], lambda: measured(config, problem, device))
    folder.update_manifest(clock=clock.model_dump(mode="json"))
    return clock


class _Onlooker:
    """Shows the run twice a real second, and listens for `stop`."""

    def __init__(self, watch: Watch, stop: threading.Event) -> None:
        self.watch, self.stop = watch, stop
        self.shown = self.started = time.monotonic()
        self.notices: list[str] = []
        self.first_seconds: float | None = None  # on the virtual clock, when this process took the run up

    def look(self, simulation: "_Simulation", last: bool = False) -> None:
        """Between two operations.

        Raises:
            Interrupted: The caller wants it to stop.
        """
        if self.stop.is_set() and not last:
            raise Interrupted
        if self.first_seconds is None:
            self.first_seconds = simulation.time.now
        now = time.monotonic()
        if now - self.shown >= WATCH_SECONDS or last:
            self.shown = now
            snapshot = simulation.snapshot()
            snapshot.notices[:0] = self.notices
            snapshot.pace = (snapshot.seconds - self.first_seconds) / max(1e-9, now - self.started)
            self.watch(snapshot)


class _Simulation:
    """A run, from its beginning or its last checkpoint to its end."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        problem: Problem,
        clock: Clock,
        device: torch.device,
        onlooker: _Onlooker,
    ) -> None:
        self.folder, self.onlooker, self.ends_by_work = folder, onlooker, config.master.work is not None
        checkpoint = last_checkpoint(folder, onlooker.notices)
        self.moment = {} if checkpoint is None else checkpoint.moment  # where it goes on from
        self.time = VirtualTime(
            config,
            durations(clock, config.proposal.source == "oracle", config.master.minibatch_size),
            0.0 if checkpoint is None else checkpoint.seconds,
            deaths(clock),
            partial(on_link, clock),
        )
        self.database = self.time.database
        set_back(self.database, folder, config, problem, checkpoint)
        if checkpoint is not None and self.moment:
            moment.cut_back(folder, checkpoint)
        parts = config, problem, self.database, folder, device, checkpoint
        self.monitor = Monitor(config, problem, self.database, folder, device)
        self.time.add("monitor", self.monitor)
        if config.cluster.roles == "peers":
            self.master: Master | Server = Server.of(*parts)
            self.workers: moment.Workers = self._training(config, problem, device)
        else:
            self.master, self.workers = Master.of(*parts), self._scoring(config, problem, device)
        for name, actor in zip(actors(config), (self.master, *self.workers), strict=True):
            self.time.add(name, actor)

    def _scoring(self, config: Config, problem: Problem, device: torch.device) -> list[Worker]:
        scorer = Scorer(config, problem, self.database.layout(), device)
        return [Worker(config, self.database, scorer) for _ in range(config.worker.count)]

    def _training(self, config: Config, problem: Problem, device: torch.device) -> list[Peer]:
        trainee = Trainee(config, problem, device)
        return [Peer(config, self.database, trainee, index) for index in range(config.peers.count)]

    def close(self) -> None:
        """Ends all lives as they are."""
        self.monitor.trace.close()
        self.monitor.events.close()

    def run(self) -> None:
        """To its end.

        Raises:
            ActorError: An actor has failed.
            Interrupted: See the onlooker.
            RunError: Everybody waits for somebody who is dead.
        """
        monitor, master = self.time.lives[:2]
        if self.moment:
            moment.restore(self.time, master, self.master, self.monitor, self.workers, self.folder, self.moment)
        while not (monitor.over and master.over):
            self.onlooker.look(self)
            self.time.turn(self._before)
        self._report()
        self.monitor.write_events()
        self.onlooker.look(self, last=True)

    def snapshot(self) -> Snapshot:
        """For the screen."""
        now, lives = self.time.now, self.time.lives
        healths = {True: "dead", False: "running"}
        return Snapshot(
            seconds=now,
            statuses={life.name: life.recorder.status(now, life.doing) for life in lives},
            processes={life.name: "finished" if life.over else healths[self.time.is_dead(life)] for life in lives},
        )

    def _before(self, life: Life, operation: Operation) -> None:
        """A sample counts all that has been done, and so does a master or server that ends by that; a checkpoint finds
        it counted and written, and all points audited."""
        if operation.name == "sample":
            self._report()
        elif operation.name in ("refresh", "apply") and self.ends_by_work:
            # So that its end depends on no sample, and no checkpoint.
            self._report()
            self.monitor.count_work()
        elif operation.name == "checkpoint":
            self._report()
            self.monitor.write_events()
            self.monitor.count_work()
            try:
                for _ in self.monitor.audits():
                    self.onlooker.look(self)
            except IssgdError as error:
                raise ActorError("monitor", str(error)) from error
            try:
                now = moment.taken(self.time, self.master, self.monitor, self.workers, self.folder)
                self.master.saving.moment = now
            except IssgdError as error:  # of the round beside its training
                raise ActorError(self.time.lives[1].name, str(error)) from error

    def _report(self) -> None:
        for life in self.time.lives:
            life.recorder.report(self.database, life.doing)
