"""How long an operation takes on the virtual clock: the presets of `[cluster.clock]`, and constants from a real run."""

from collections.abc import Callable
from typing import Literal

from issgd_cli.actors.actor import Operation
from issgd_cli.config.sections import PAPER_EXAMPLES, Clock
from issgd_cli.errors import RunError
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder

SCORING_SHARE = 0.63  # what scoring an example costs of what training on it does: FLOPs, and measured
LOOKING_SHARE = 1 / 3  # and what its forward pass alone does

# The database and its network serve everybody at once: each transfer has the whole bandwidth, however many there are.
# But for peers, who all want as much of it all the time: theirs stand in line, `on_link`.
Durations = Callable[[str, Operation], float]

# What timing a machine, or a real run, tells.
MEASURED = (
    "step_seconds",
    "examples_per_second",
    "publish_seconds",
    "refresh_seconds",
    "pull_seconds",
    "push_seconds",
    "checkpoint_seconds",
)

PRESETS = {
    # The paper's cluster, a Tesla K20 an actor. Appendix B.1 tells how fast it scores: 4 seconds keep 15% of 570,000
    # weights with 3 workers, so a sweep takes about 27 s, and a worker scores 7,100 training examples a second, 7,800
    # with the other splits' share. A master's step follows from the same operations a second: 128 / (0.63 * 7,800 / s)
    # = 26 ms. Of its network the paper says nothing; ours: 10 Gbit/s Ethernet, a millisecond of latency.
    "k20": Clock(
        preset="k20",
        step_seconds=128 / (SCORING_SHARE * 7800),
        examples_per_second=7800,
        latency_seconds=1e-3,
        bytes_per_second=1e9,
        checkpoint_seconds=0,
        # A descent reads and writes five numbers a parameter: 0.4 GB, at the K20's 150 GB/s.
        apply_seconds=2.5e-3,
    ),
    # One H200 an actor, on paper: 573,000 examples of the paper's model scored in 0.09 s in TF32; a step of 128 bound
    # by its 100 microseconds of memory traffic, launched as a CUDA graph. A Redis server on the same machine, measured:
    # 76 MB of parameters in 24 ms written, 38 to 80 ms read; a chunk's push in 0.23 ms.
    "h200": Clock(
        preset="h200",
        step_seconds=1e-4,
        examples_per_second=573_000 / 0.09,
        latency_seconds=2.3e-4,
        bytes_per_second=1.5e9,
        checkpoint_seconds=0,
        apply_seconds=8e-5,  # the same 0.4 GB, at 4.8 TB/s
    ),
}


def resolved(clock: Clock, examples: int, measure: Callable[[], Clock]) -> Clock:
    """The clock with every duration known: the preset's, its scoring rate scaled, under what is set explicitly.

    Args:
        clock: As configured.
        examples: N of the training split. Below 570,000 a preset's rate shrinks as N does: then a sweep takes the time
            and the steps that the paper's took, rather than 28 times fewer at 20,000 examples. Chunks are
            the experiment's to choose: 2048 * N / 570,000 examples are as many a sweep as the paper's.
        measure: Times this machine, for what the preset "measured" leaves to it.
    """
    if clock.preset == "measured":
        preset = clock if all(getattr(clock, name) is not None for name in MEASURED) else measure()
    else:
        preset = PRESETS[clock.preset]
        rate = (preset.examples_per_second or 0) * min(1.0, examples / PAPER_EXAMPLES)
        preset = preset.model_copy(update={"examples_per_second": rate})
    given = {name: value for name in Clock.model_fields if (value := getattr(clock, name)) is not None}
    return preset.model_copy(update=given)


def durations(clock: Clock, oracle: bool = False, minibatch_size: int = 128) -> Durations:
    """Seconds that an operation of an actor (by its name) takes.

    Sampling and auditing cost nothing: nobody waits for the monitor. A wait takes what it says.

    Args:
        clock: A resolved one.
        oracle: All but training costs nothing either, so that the weights are fresh (section 4.1).
        minibatch_size: Of a step, which takes as long whatever is drawn; looking at examples goes by their number.
    """
    free = {"sample", "audit"} | ({"publish", "refresh", "pull", "score", "push", "checkpoint"} if oracle else set())
    slow = {f"{role}-{index}": factor for index, factor in clock.slow.items() for role in ("worker", "peer")}
    constants = {
        "train": clock.step_seconds,
        "score": clock.score_seconds,
        "publish": clock.publish_seconds,
        "refresh": clock.refresh_seconds,
        "pull": clock.pull_seconds,
        "push": clock.push_seconds,
        "checkpoint": clock.checkpoint_seconds or 0.0,
        "apply": clock.apply_seconds or 0.0,
    }
    latency, bandwidth, rate = clock.latency_seconds or 0.0, clock.bytes_per_second, clock.examples_per_second

    def seconds(actor: str, operation: Operation) -> float:
        name = operation.name
        if name in free:
            return 0.0
        if name == "wait":
            return operation.seconds
        if name == "look":
            return (clock.step_seconds or 0.0) * LOOKING_SHARE * operation.examples / minibatch_size
        constant = constants[name]
        if constant is None:
            if name == "score":
                constant = operation.examples / rate if rate else 0.0
            else:
                constant = latency + (operation.bytes / bandwidth if bandwidth else 0.0)
        return constant * slow.get(actor, 1.0)

    return seconds


def on_link(clock: Clock, operation: Operation) -> float:
    """Seconds for which what a peer pulls or pushes has the server's link for itself; 0 where that takes a constant.

    Latency is not among them, nor what makes a peer slow.
    """
    if {"pull": clock.pull_seconds, "push": clock.push_seconds}.get(operation.name, 0.0) is not None:
        return 0.0
    return operation.bytes / clock.bytes_per_second if clock.bytes_per_second else 0.0


def deaths(clock: Clock) -> dict[str, float]:
    """Actor -> the second at which it stops for ever."""
    return {f"{role}-{index}": second for index, second in clock.dies.items() for role in ("worker", "peer")}


def from_run(folder: RunFolder, statistic: Literal["mean", "median"] = "mean") -> Clock:
    """Constants that a real run took, from its events and the work in its trace.

    Actors that share cores disturb each other now and then: the mean keeps how far a run comes in a second, the median
    says how long an undisturbed operation takes. Scoring comes as seconds a chunk, which is what a simulation uses, and
    as a rate: leave `score_seconds` out of the clock for chunks of another size.

    Args:
        folder: Of a run that has finished.
        statistic: Of the events of a kind.

    Raises:
        RunError: Something was never done in the run.
    """
    events, trace, config = traces.read_events(folder.events), traces.read(folder.trace), folder.read_config()
    if missing := {"train", "score", "publish", "refresh", "pull", "push"} - set(events.event):
        raise RunError(f"{folder.path} has no {', '.join(sorted(missing))} among its events to take the time of.")
    events["seconds"] = events.end - events.start
    found = {
        f"{name}_seconds": float(events.seconds[events.event == name].agg(statistic))
        # A chunk's scoring is an event of its own, and exact. The rate is not: the trace's work is what the workers
        # have told of it, up to half a second before; that is 5% of a run of five seconds.
        for name in ("publish", "refresh", "pull", "score", "push", "checkpoint")
        if (events.event == name).any()
    }
    # The steps of a block are one event, or a few where the events were handed over meanwhile; its version is theirs.
    blocks = events[events.event == "train"].groupby("version").seconds.sum()
    scores = events[events.event == "score"]
    if statistic == "mean":
        found["step_seconds"] = float(blocks.sum() / trace.step.max())
        last = trace[trace.quantity == "work/examples_scored"].iloc[-1]
        found["examples_per_second"] = float(last.value / scores.seconds[scores.end <= last.seconds].sum())
    else:  # most blocks and chunks are whole ones
        found["step_seconds"] = float(blocks.median() / config.master.publish_every_steps)
        found["examples_per_second"] = float(config.worker.chunk_size / scores.seconds.median())
    return Clock.model_validate({"preset": "measured", "checkpoint_seconds": 0.0, **found})
