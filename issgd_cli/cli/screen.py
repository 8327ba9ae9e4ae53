"""What a user watches: a live screen in a terminal, plain lines elsewhere."""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from issgd_cli.clusters.cluster import Snapshot, Watch
    from issgd_cli.config.config import Config
    from issgd_cli.runs.folder import RunFolder

LINE_SECONDS = 5.0
AGES = "staleness/gradients/"  # where peers have some
MOST_ACTORS = 16  # more do not fit on a screen


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A function (what, done, total) that draws a bar for each `what`; total 0 is a notice, printed as a line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_progress()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if total == 0:
                bars.console.print(what, highlight=False, markup=False)
                return
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def _plain_progress() -> Callable[[str, int, int], None]:
    said: dict[str, float] = {}

    def progress(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if total == 0 or done >= total or now - said.get(what, now) >= LINE_SECONDS:
            typer.echo(what if total == 0 else f"{what}: {done:,} of {total:,}", err=True)
            said[what] = now
        said.setdefault(what, now)

    return progress


class Rates:
    """Examples per second of each actor, from one snapshot to the next."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def update(self, snapshot: "Snapshot") -> dict[str, float]:
        """Actor -> examples trained, scored or audited per second, over its last report's interval."""
        for actor, status in snapshot.statuses.items():
            seconds, examples = status["seconds"], sum(status["examples"].values())
            before = self._last.get(actor)
            if before is not None and seconds > before[0]:
                fresh = max(0, examples - before[1]) / (seconds - before[0])
                old = self._rates.get(actor, fresh)
                self._rates[actor] = 0.7 * old + 0.3 * fresh
            if before is None or seconds > before[0]:
                self._last[actor] = seconds, examples
        return self._rates


@contextlib.contextmanager
def watching(config: "Config", folder: "RunFolder") -> Iterator["Watch"]:
    """A `watch` for `experiments.run.train`: the screen in a terminal, a line every few seconds elsewhere."""
    console = Console()
    rates = Rates()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            yield lambda snapshot: live.update(screen(config, folder, snapshot, rates.update(snapshot)))
        return
    said = {"at": 0.0, "notices": 0.0}

    def watch(snapshot: "Snapshot") -> None:
        for notice in snapshot.notices[int(said["notices"]) :]:
            typer.echo(notice)
        said["notices"] = len(snapshot.notices)
        current = rates.update(snapshot)
        if time.monotonic() - said["at"] >= LINE_SECONDS and config.cluster.trainer in snapshot.statuses:
            said["at"] = time.monotonic()
            typer.echo(line(config, snapshot, current))

    yield watch


def fraction_done(config: "Config", snapshot: "Snapshot") -> float:
    """Of the training, by steps, seconds or work, whichever is further; 1 while the monitor audits."""
    if snapshot.processes.get(config.cluster.trainer) == "finished":
        return 1.0
    limits = config.master
    step = snapshot.statuses.get(config.cluster.trainer, {}).get("step", 0)
    by_steps = step / limits.steps if limits.steps else 0.0
    by_time = snapshot.seconds / limits.seconds if limits.seconds else 0.0
    passes = sum(status.get("passes", 0.0) for status in snapshot.statuses.values())
    by_work = passes / limits.most_passes if limits.most_passes else 0.0
    return min(1.0, max(by_steps, by_time, by_work))


def time_left(config: "Config", snapshot: "Snapshot") -> str:
    """For people; empty while it is too early to say."""
    done = fraction_done(config, snapshot)
    if done >= 1.0:
        left = snapshot.statuses.get("monitor", {}).get("audits_left", 0)
        return f"auditing, {left} left" if left else "ending"
    if done <= 0.005 or not snapshot.pace:
        return ""
    return f"{duration(snapshot.seconds * (1 - done) / done / snapshot.pace)} left"


def duration(seconds: float) -> str:
    """For people: 45 s, 3 min 20 s, 4 h 0 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def unit(config: "Config") -> str:
    """Of the run's clock."""
    return "virtual s" if config.cluster.kind == "simulated" else "s"


def who(config: "Config") -> str:
    """How those who do a run's work go about it, and how many they are."""
    if config.cluster.roles == "peers":
        return f"{config.peers.mode}, {config.peers.count} peers"
    return f"{config.master.mode}, {config.worker.count} workers"


def root(value: float | None) -> str:
    """Square root of a trace for people; a negative one (the bound exceeds it) is said to be so."""
    if value is None:
        return "-"
    return f"{value**0.5:.3g}" if value >= 0 else "neg."


def line(config: "Config", snapshot: "Snapshot", rates: dict[str, float]) -> str:
    """All that matters in one line."""
    latest = snapshot.statuses.get("monitor", {}).get("latest", {})
    master = snapshot.statuses[config.cluster.trainer]
    scored = sum(rate for actor, rate in rates.items() if actor.startswith("worker"))
    parts = [f"{snapshot.seconds:6.0f} {unit(config)}", f"step {master['step']:,}"]
    if (left := time_left(config, snapshot)) != "":
        parts.append(left)
    if "loss/train" in latest:
        parts.append(f"loss {latest['loss/train']:.4f}")
    elif master.get("loss") is not None:  # where nobody scores, nobody knows more
        parts.append(f"last minibatch's loss {master['loss']:.4f}")
    if "error/valid" in latest:
        parts.append(f"valid error {latest['error/valid']:.4f}")
    if f"{AGES}mean_versions" in latest:
        parts.append(f"gradients {latest[f'{AGES}mean_versions']:.1f} versions old")
    if "trace/ideal" in latest:
        names = ("ideal", "stale", "uniform")
        parts.append("sqrt Tr " + " / ".join(root(latest.get(f"trace/{name}")) for name in names))
    kept = latest.get("proposal/kept_fraction")
    if kept is not None and (kept > 0 or config.cluster.kind != "alone"):  # where nobody scores, nothing is usable
        parts.append(f"kept {kept:.0%}")
    if snapshot.away:
        parts.append(f"DATABASE SILENT for {snapshot.away:.0f} s")
    trained = sum(rate for actor, rate in rates.items() if actor == "master" or actor.startswith("peer"))
    parts.append(f"{trained:,.0f} trained/s, {scored:,.0f} scored/s")
    return "  ".join(parts)


def screen(config: "Config", folder: "RunFolder", snapshot: "Snapshot", rates: dict[str, float]) -> Group:
    """The whole screen."""
    latest = snapshot.statuses.get("monitor", {}).get("latest", {})

    def show(name: str, form: str = ".4f") -> str:
        return format(latest[name], form) if name in latest else "-"

    master = snapshot.statuses.get(config.cluster.trainer, {})
    title = Text.assemble(
        (f"{config.proposal.method} on {config.data.name}", "bold"),
        f"  seed {config.seed}, {who(config)}   {folder.path}",
    )
    if config.cluster.kind == "simulated":
        title.append(
            f"\nsimulated: all seconds are of a virtual clock ({config.cluster.clock.preset}), "
            f"{snapshot.pace:.3g} of them in a real one",
            style="dim",
        )
    progress = Table.grid(padding=(0, 2))
    progress.add_row(
        ProgressBar(total=1.0, completed=fraction_done(config, snapshot), width=40),
        f"step {master.get('step', 0):,}" + (f" of {config.master.steps:,}" if config.master.steps else ""),
        f"{snapshot.seconds:.0f} {unit(config)}",
        time_left(config, snapshot),
    )
    losses = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("", "train", "valid", "test"):
        losses.add_column(column, justify="right")
    knows_none = "loss/train" in latest and "error/train" not in latest
    for kind in ("loss",) if knows_none else ("loss", "error"):
        losses.add_row(kind, *(show(f"{kind}/{split}") for split in ("train", "valid", "test")))
    if "loss/train" not in latest and master.get("loss") is not None:
        losses.add_row("last minibatch's", f"{master['loss']:.4f}", "", "")
    traces = "   ".join(f"{name} {root(latest.get(f'trace/{name}'))}" for name in ("ideal", "stale", "uniform"))
    weights = "   ".join(
        (
            f"age {show('staleness/mean_seconds', '.1f')} s, {show('staleness/mean_versions', '.1f')} versions",
            f"kept {show('proposal/kept_fraction', '.0%')}",
            f"smoothing +{show('proposal/smoothing', '.3g')}",
        )
    )
    if f"{AGES}mean_versions" in latest:
        mean, largest = (show(f"{AGES}{which}_versions", ".1f") for which in ("mean", "max"))
        weights += f"\ngradients        age {mean} versions   largest {largest}"
    actors = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("actor", "health", "doing", "version", "examples/s"):
        actors.add_column(column, justify="right" if column in ("version", "examples/s") else "left")
    joined = {actor: "joined" for actor in snapshot.statuses if actor not in snapshot.processes}
    everybody = snapshot.processes | joined
    for actor, health in itertools.islice(everybody.items(), MOST_ACTORS):
        status = snapshot.statuses.get(actor, {})
        colour = {"running": "green", "finished": "green", "joined": "green", "restarting": "yellow"}.get(health, "red")
        silent = snapshot.seconds - status.get("seconds", snapshot.seconds)
        note = f" (silent for {silent:.0f} s)" if silent > 10 and health == "running" else ""
        rate = f"{rates[actor]:,.0f}" if rates.get(actor) and actor != "monitor" else ""
        actors.add_row(
            actor,
            Text(health + note, style=colour),
            status.get("doing", "starting"),
            str(status.get("version", "")),
            rate,
        )
    if len(everybody) > MOST_ACTORS:
        healths = Counter(list(everybody.values())[MOST_ACTORS:])
        actors.add_row("others", ", ".join(f"{count} {health}" for health, count in healths.items()))
    notices = [Text(notice, style="yellow") for notice in snapshot.notices[-3:]]
    if snapshot.away:
        notices.append(Text(f"The database has not answered for {snapshot.away:.0f} s.", style="bold red"))
    variance = Text(f"sqrt Tr(Sigma)   {traces}\nweights in use   {weights}")
    return Group(title, progress, "", losses, "", variance, "", actors, *notices)
