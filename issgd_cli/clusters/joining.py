"""One actor in a process of its own, on this machine or another: joins a run by the database, and works."""

import contextlib
import os
import secrets
import socket
import threading
import time
import zlib
from pathlib import Path
from typing import Literal

import torch

from issgd_cli import datasets
from issgd_cli.actors.actor import HANDS, Actor
from issgd_cli.actors.devices import computing, device_of
from issgd_cli.actors.execution import Execution
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.peer import Peer
from issgd_cli.actors.server import Server
from issgd_cli.actors.worker import Worker
from issgd_cli.config.validation import resolve
from issgd_cli.database import Document, Layout
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import DatabaseError, DataError, GoneError, RunError
from issgd_cli.networks import naming
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder, locked

Kind = Literal["master", "worker", "monitor", "server", "peer"]

POLL_SECONDS = 0.5
RETURN_SECONDS = 600.0  # how long a worker waits for a run that has left the database: it may be set back, or resumed


def join(
    kind: Kind, url: str, run: str, data_dir: Path, folder: Path | None, index: int | None, device: str | None
) -> None:
    """Runs one actor until the run is over, or a signal says stop.

    Args:
        kind: Which actor.
        url: Of the database.
        run: The run's name in the database.
        data_dir: Where the prepared dataset is on this machine.
        folder: The run's folder; master, server and monitor need it.
        index: Which of the launcher's workers or peers; None: one that a user started, named after its machine.
        device: Where to compute; None: what the configuration deals to this actor.

    Raises:
        IssgdError: The run is unknown, the dataset is another, or the actor failed.
    """
    launcher = os.environ.get("ISSGD_LAUNCHER")  # absent where a user started this actor
    if launcher is not None:
        threading.Thread(target=_leave_with, args=(int(launcher),), daemon=True).start()
    knows_the_run = launcher is not None
    while True:
        database = RedisDatabase(url, run)
        try:
            if not knows_the_run:
                database.ping()
            description = database.get("description")
            if description is None:
                raise GoneError(f"The database holds no run {run}. Start it with `issgd train --database ...` first.")
            knows_the_run = True
            _take_part(kind, database, run, description, data_dir, folder, index, device)
            return
        except GoneError:
            if kind not in HANDS or not knows_the_run:
                raise
            if not _comes_back(url, run):
                return
        finally:
            database.close()


def _leave_with(launcher: int) -> None:
    """Ends this process when whoever started it is gone: nobody else would. All files are written whole or not."""
    while os.getppid() == launcher:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _comes_back(url: str, run: str) -> bool:
    """Waits until the run is in the database again; False where it leaves word that it has ended.

    Raises:
        GoneError: It has stayed away.
    """
    minutes = RETURN_SECONDS / 60
    with contextlib.suppress(OSError):  # a log on a full disk
        print(f"The run has left the database. Waiting for it to come back, {minutes:.0f} minutes at most.", flush=True)
    deadline = time.monotonic() + RETURN_SECONDS
    with contextlib.closing(RedisDatabase(url, run, patient=False)) as database:
        while time.monotonic() < deadline:
            with contextlib.suppress(DatabaseError):  # the server may be starting
                if database.get("stop") is not None:
                    return False
                if database.get("description") is not None:
                    return True
            time.sleep(POLL_SECONDS)
    raise GoneError(f"The run has not come back within {minutes:.0f} minutes. Join again when it does.")


def _take_part(
    kind: Kind,
    database: RedisDatabase,
    run: str,
    description: Document,
    data_dir: Path,
    folder: Path | None,
    index: int | None,
    device: str | None,
) -> None:
    config = resolve(description["config"], "the run's description in the database")
    naming.refuse_unnamed(config.model.network)  # before anything else: the database is not to say what is imported
    with computing(config):
        data = datasets.load(
            config.data.name,
            data_dir,
            config.data.train_size,
            label_noise=config.data.label_noise,
            imbalance=config.data.imbalance,
        )
        if data.fingerprint != description["dataset"]:
            raise DataError(
                f"{config.data.name} in {data_dir} is not the dataset of run {run} (fingerprint "
                f"{data.fingerprint[:16]}, not {description['dataset'][:16]}). Prepare it with the same source, size "
                "and seed."
            )
        problem = Problem(config, data)
        if problem.fingerprint != description["model"]:
            raise RunError(f"This issgd builds another model than the one that run {run} trains. Use the same version.")
        layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
        if database.layout() != layout:
            raise DatabaseError(f"The database's records of run {run} are of other sizes than {config.data.name} has.")
        if kind not in (config.cluster.trainer, "monitor", "peer" if config.cluster.roles == "peers" else "worker"):
            raise RunError(f"Run {run} has no {kind}: its cluster.roles are '{config.cluster.roles}'.")
        if kind == "peer" and index is None and config.peers.mode == "synchronous":
            raise RunError(
                f"Run {run} takes no more peers: with peers.mode = 'synchronous' a step is of one gradient of each of "
                f"its own {config.peers.count}. Join an asynchronous run, or start one with more peers.count."
            )
        place = torch.device(device or device_of(config, kind, index or 0))
        if kind in HANDS:
            name = f"{kind}-{socket.gethostname()}-{os.getpid()}" if index is None else f"{kind}-{index}"
            if kind == "worker":
                hand: Actor = Worker.of(config, problem, database, place)
            else:
                number = database.enlist(_number_of(name), secrets.token_hex(8)) if index is None else index
                hand = Peer.of(config, problem, database, place, number)
            Execution(name, hand, database).run()
            return
        if folder is None:
            raise RunError(f"The {kind} needs --folder, the run's folder.")
        there = RunFolder(folder)
        # One that a killed launcher has left behind may still be at work: nobody writes the same files beside it.
        with locked(there.logs if kind == "monitor" else there.checkpoint.parent, f"another {kind}"):
            if kind == "monitor":
                actor: Actor = Monitor(config, problem, database, there, place)
            else:
                checkpoint = load_checkpoint(there.checkpoint) if description["resumed"] else None
                made = Server.of if kind == "server" else Master.of
                actor = made(config, problem, database, there, place, checkpoint)
            Execution(kind, actor, database).run()


def _number_of(name: str) -> int:
    """Which a peer that a user started would have: far above the launcher's own, so that it draws what none of them
    draws; another, where one of the same name has it."""
    return 2**20 + zlib.crc32(name.encode()) % 2**20
