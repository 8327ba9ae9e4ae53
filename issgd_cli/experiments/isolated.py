"""A run in a process of its own: several simulated ones at a time would share one interpreter, and torch's threads."""

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from issgd_cli.clusters.cluster import Snapshot, Watch
from issgd_cli.clusters.processes import process_environment
from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.errors import IssgdError, RunError
from issgd_cli.experiments import run as training
from issgd_cli.networks import naming
from issgd_cli.runs.folder import RunFolder

POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0  # to come to the end of an operation, and to write how the run ended


def train(
    config: Config,
    folder: RunFolder,
    *,
    command: list[str],
    resume: bool,
    watch: Watch,
    stop: threading.Event,
    labels: dict[str, str],
    jobs: int,
) -> None:
    """As `experiments.run.train`, in a process that ends with this one.

    Raises:
        RunError: Whatever has ended the run before its time.
    """
    os.environ.update(process_environment())  # a child inherits it; glibc and Python read it when a process starts
    context = _context()
    ours, theirs = context.Pipe()
    plain = {"command": command, "resume": resume, "labels": labels, "jobs": jobs}
    arguments = (theirs, config.model_dump(mode="json"), str(folder.path), plain, naming.named(config.model.network))
    process = context.Process(target=_child, args=arguments, name=str(folder.path))
    process.start()
    theirs.close()  # so that the end of the child's is the end of the connection
    told = False
    try:
        while True:
            if stop.is_set() and not told:
                ours.send("stop")
                told = True
            if not ours.poll(POLL_SECONDS):
                continue
            message = ours.recv()
            if isinstance(message, Snapshot):
                watch(message)
            elif message is None:
                return
            else:
                raise RunError(message)
    except (EOFError, OSError):
        process.join(GRACE_SECONDS)
        raise RunError(f"The run's process ended with status {process.exitcode}.") from None
    finally:
        ours.close()  # for a child that still works: stop
        process.join(GRACE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


def _context() -> Any:
    """How its process starts: as a fork of one that has loaded torch, once for all runs; where nothing forks, anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _child(
    connection: Connection, config: dict[str, Any], folder: str, plain: dict[str, Any], model: str | None
) -> None:
    """Runs, sends a snapshot now and then, and in the end None, or what went wrong.

    `model`: the network of the user's own that the parent's command line names, if it does.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # those at the terminal are for the parent, who tells us
        signal.signal(number, signal.SIG_IGN)
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()

    def watch(snapshot: Snapshot) -> None:
        with contextlib.suppress(OSError):  # the parent is gone: `_listen` knows
            connection.send(snapshot)

    failure = None
    try:
        if model is not None:
            naming.name(model)
        training.train(resolve(config, "the parent process"), RunFolder(Path(folder)), watch=watch, stop=stop, **plain)
    except IssgdError as error:
        failure = str(error)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        connection.send(failure)


def _listen(connection: Connection, stop: threading.Event) -> None:
    """Whatever comes, a word or the end of the connection, it means stop."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    stop.set()
