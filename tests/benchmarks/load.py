"""How many workers one server holds: the real server, workers that only talk to it, and a master that publishes.

A worker is issgd's own, with its claims, pulls and pushes, but that scoring a chunk takes it a given time and no
computing. Its connections are real; workers are threads of a few processes, all on this machine, and so are in each
other's way: rates are what one server gives at least. A pull crosses the connection whole, and is then held once for
all workers of a process, since 256 of the paper's parameter sets would be 19 GB.

    python -m tests.benchmarks.load --workers 1,8,64,256 --seconds 40
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.worker import Worker
from issgd_cli.database import Chunk, Published
from issgd_cli.database.records import ChunkScores
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import serving
from issgd_cli.files import write_text
from tests.benchmarks import stage
from tests.benchmarks.report import machine, number, slug
from tests.benchmarks.scale import FULL, QUICK, Scale

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "clusters"
PROCESSES = 8  # at most: more only wait for the cores
PATIENCE = 600.0  # seconds until all have the parameters; who has died is not waited for ever
PULLS = 2  # at a time in a process; the others wait, as they do for a network
COLUMNS = (
    "workers",
    "s a chunk",
    "chunks/s",
    "MB/s in",
    "MB/s out",
    "push p50, ms",
    "push p99, ms",
    "pull p50, s",
    "refresh, ms",
    "publish, ms",
    "server, cores",
)


@dataclass(frozen=True)
class Load:
    """What was measured at a number of workers; quantiles over all of them, None where nothing happened.

    Attributes:
        workers: Connections that score.
        pace: Seconds that scoring a chunk takes one; 0: as fast as the server answers.
        chunks: A second, by all.
        megabytes_in, megabytes_out: A second, by the server's own count.
        push_p50, push_p99: Milliseconds from a push to its answer.
        pull_p50: Seconds until a worker has the newest parameters.
        refresh, publish: Medians, milliseconds: the master reads all weights, and writes all parameters.
        server: Its processor time a second.
    """

    workers: int
    pace: float
    chunks: float
    megabytes_in: float
    megabytes_out: float
    push_p50: float | None
    push_p99: float | None
    pull_p50: float | None
    refresh: float | None
    publish: float | None
    server: float

    def cells(self) -> list[str]:
        """Of `COLUMNS`."""
        return ["-" if value is None else number(value) for value in asdict(self).values()]


class Talker(RedisDatabase):
    """A worker's connection, timed."""

    held: dict[int, tuple[Published, NDArray[np.float32]]] = {}  # noqa: RUF012 - the newest, once for this process
    pulling = threading.Semaphore(PULLS)

    def __init__(self, url: str) -> None:
        """To the bench's run."""
        super().__init__(url, "bench")
        self.pushes: list[float] = []
        self.pulls: list[float] = []

    def push(self, chunk: Chunk, version: int, scores: ChunkScores) -> bool:
        start = time.perf_counter()
        done = super().push(chunk, version, scores)
        self.pushes.append(time.perf_counter() - start)
        return done

    def parameters(self) -> tuple[Published, NDArray[np.float32]] | None:
        start = time.perf_counter()
        with self.pulling:
            found = super().parameters()
        self.pulls.append(time.perf_counter() - start)
        if found is None:
            return None
        version = found[0].version
        for old in [known for known in self.held if known < version - 1]:
            self.held.pop(old, None)
        return self.held.setdefault(version, found)


def measured(scale: Scale, workers: int, pace: float, seconds: float, publish_seconds: float) -> Load:
    """One row of the table."""
    layout, context = stage.layout(scale), get_context("spawn")
    size = sum(parameter.numel() for parameter in stage.network(scale).parameters())
    flat = np.random.default_rng(0).normal(size=size).astype(np.float32)
    count = min(workers, PROCESSES)
    with tempfile.TemporaryDirectory(prefix="issgd-load-") as place, serving(Path(place) / "log") as server:
        database, raw = RedisDatabase(server.url, "bench"), redis.Redis.from_url(server.url)
        database.begin(layout, 0.0, stage.all_records(layout))
        database.publish(Published(stage.NEXT_VERSION, 0), flat)
        with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
            barrier = manager.Barrier(count + 1)
            shares = [workers // count + (index < workers % count) for index in range(count)]
            running = [pool.submit(_talk, barrier, scale, server.worker_url, share, pace, seconds) for share in shares]
            barrier.wait(PATIENCE)
            start, before = time.perf_counter(), _traffic(raw, server.process.pid)
            refreshes, publishes = _master(database, flat, seconds, publish_seconds)
            elapsed, after = time.perf_counter() - start, _traffic(raw, server.process.pid)
            found = [one.result() for one in running]
        database.close()
        raw.close()
    pushes = [push for one, _ in found for push in one]
    pulls = [pull for _, one in found for pull in one]
    received, sent, busy = ((new - old) / elapsed for old, new in zip(before, after, strict=True))
    return Load(
        workers,
        pace,
        len(pushes) / elapsed,
        received / 1e6,
        sent / 1e6,
        _quantile(pushes, 0.5, 1e3),
        _quantile(pushes, 0.99, 1e3),
        _quantile(pulls, 0.5, 1.0),
        _quantile(refreshes, 0.5, 1e3),
        _quantile(publishes, 0.5, 1e3),
        busy,
    )


def _master(
    database: RedisDatabase, flat: NDArray[np.float32], seconds: float, publish_seconds: float
) -> tuple[list[float], list[float]]:
    """Publishes, and reads the weights, every `publish_seconds`; how long each took, seconds."""
    refreshes, publishes, version, start = [], [], stage.NEXT_VERSION, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        version += 1
        database.publish(Published(version, 0), flat)
        publishes.append(time.perf_counter() - now)
        middle = time.perf_counter()
        database.weights()
        refreshes.append(time.perf_counter() - middle)
        time.sleep(max(0.0, min(publish_seconds - (time.perf_counter() - now), start + seconds - time.perf_counter())))
    return refreshes, publishes


def _talk(
    barrier: Barrier, scale: Scale, url: str, workers: int, pace: float, seconds: float
) -> tuple[list[float], list[float]]:
    """So many workers, each a thread of this process; the seconds that their pushes and pulls took."""
    talkers = [Talker(url) for _ in range(workers)]
    config, size = stage.config(scale), sum(parameter.numel() for parameter in stage.network(scale).parameters())
    with ThreadPoolExecutor(workers) as pool:
        lives = [Worker(config, talker, _scorer(talker, size)).run() for talker in talkers]
        for begun in [pool.submit(_begin, life) for life in lives]:
            begun.result()
        for talker in talkers:
            talker.pulls.clear()
        barrier.wait(PATIENCE)
        end = time.perf_counter() + seconds
        for done in [pool.submit(_live, life, pace, end) for life in lives]:
            done.result()
    for talker in talkers:
        talker.close()
    return [push for one in talkers for push in one.pushes], [pull for one in talkers for pull in one.pulls]


def _begin(life: Generator[Operation]) -> None:
    """Up to its first chunk, or till there is none: it has the parameters."""
    while next(life).name not in ("score", "wait"):
        pass


def _live(life: Generator[Operation], pace: float, end: float) -> None:
    for operation in life:
        if time.perf_counter() >= end:
            return
        time.sleep(pace if operation.name == "score" else operation.seconds or 0.0)


def _scorer(database: RedisDatabase, size: int) -> Any:
    """Knows all scores beforehand."""
    layout, random = database.layout(), np.random.default_rng(0)

    def score(chunk: Chunk, version: int) -> ChunkScores:
        span = layout.span(chunk.split, chunk.number)
        count = span.stop - span.start
        return ChunkScores(norms[:count], norms[:count], errors[:count], None)

    norms = random.lognormal(0, 1.5, layout.chunk_size).astype(np.float32)
    errors = random.integers(0, 2, layout.chunk_size, dtype=np.uint8)
    return SimpleNamespace(
        parameters=SimpleNamespace(numel=lambda: size),
        load=lambda version, parameters: None,
        passes=lambda chunk: 0.0,
        score=score,
        problem=SimpleNamespace(data=SimpleNamespace(refuse_changed=lambda: None)),
    )


def _traffic(raw: "redis.Redis", pid: int) -> tuple[float, float, float]:
    """Bytes that the server has received and sent, and its processor time, seconds."""
    told: Any = raw.info("stats")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return told["total_net_input_bytes"], told["total_net_output_bytes"], ticks / os.sysconf("SC_CLK_TCK")


def _quantile(values: Sequence[float], at: float, unit: float) -> float | None:
    return float(np.quantile(values, at)) * unit if values else None


def table(loads: Sequence[Load]) -> str:
    """In Markdown."""
    rows = [list(COLUMNS), ["---:"] * len(COLUMNS), *(load.cells() for load in loads)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes <results>/load-<machine>.{json,md}."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.load", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--workers", default="1,8,64,256", help="how many; several with commas")
    parser.add_argument("--paces", default="0,0.1", help="seconds that a chunk takes a worker; several with commas")
    parser.add_argument("--seconds", type=float, default=40.0, help="that each row is measured for")
    parser.add_argument("--publish-seconds", type=float, default=1.0, help="between two versions of the parameters")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args(arguments)
    scale, loads = QUICK if options.quick else FULL, list[Load]()
    for pace in map(float, options.paces.split(",")):
        for workers in map(int, options.workers.split(",")):
            loads.append(measured(scale, workers, pace, options.seconds, options.publish_seconds))
            print(table(loads[-1:]) if len(loads) == 1 else table(loads[-1:]).splitlines()[-1], flush=True)
    about = {**machine(), "load_average": os.getloadavg()[0], "seconds": options.seconds}
    about |= {"publish_seconds": options.publish_seconds, "examples": scale.examples, "chunk_size": scale.chunk_size}
    options.results.mkdir(parents=True, exist_ok=True)
    stem = options.results / f"load-{slug(about)}"
    write_text(stem.with_suffix(".json"), json.dumps({"about": about, "rows": [*map(asdict, loads)]}, indent=2) + "\n")
    write_text(
        stem.with_suffix(".md"),
        f"# One server, many workers\n\n{about['cpu']}, {about['cores']} cores; N = {scale.examples:,}, chunks of "
        f"{scale.chunk_size:,}, {number(_parameter_bytes(scale) / 1e6)} MB of parameters published every "
        f"{options.publish_seconds:g} s; each row {options.seconds:g} s. Server, master and workers share the cores. "
        f"`python -m tests.benchmarks.load` makes it.\n\n{table(loads)}\n",
    )
    print(f"{stem}.json, {stem}.md")


def _parameter_bytes(scale: Scale) -> int:
    return 4 * sum(parameter.numel() for parameter in stage.network(scale).parameters())


if __name__ == "__main__":
    main()
