"""The sections of a configuration: their keys, with defaults and limits."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from issgd_cli.config.values import (
    Arguments,
    Decay,
    Duration,
    Fraction,
    Index,
    Number,
    Positive,
    Rate,
    Seconds,
    Section,
    Share,
    Smoothing,
    Text,
    Whole,
    Widths,
    like,
    one_of,
)
from issgd_cli.registries import LOSSES, METHODS, NETWORKS, OPTIMIZERS

PAPER_EXAMPLES = 570_000  # N, section 5.1; 574,168 in the original code
ORIGINAL_CHUNK = 2048  # examples, in the original code


class Data(Section):
    """What is learned."""

    name: Text = "svhn"  # as `issgd prepare` knows it, or of an own .npz, stem-hash or path
    dir: Text = "data"
    validation_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    split_seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 42
    train_size: Positive | None = None  # the first so many of the stored, shuffled training examples
    label_noise: Fraction = 0.0  # of the training labels: so many are changed to others (datasets/alterations.py)
    imbalance: Annotated[Number, Field(ge=1, le=1e9)] = 1.0  # largest over smallest class of the training examples
    augment: tuple[Literal["crop", "flip"], ...] = ()  # of the master's minibatches, in this order


class Model(Section):
    """The network, and what it minimises. Other networks than the multi-layer perceptron have sections of their own."""

    network: Annotated[str, one_of(NETWORKS, or_place=True)] = "mlp"  # or package.module:function
    arguments: Arguments = Field(default={})  # of a function of the user's own
    loss: Annotated[str, one_of(LOSSES)] = "cross-entropy"
    # Of the multi-layer perceptron.
    hidden: Widths = (2048, 2048, 2048, 2048)
    initial_weight_std: Annotated[Number, Field(gt=0)] | None = (
        None  # None: 0.01, more below width 2048 (networks/mlp.py)
    )


class Schedule(Section):
    """How the learning rate changes from step to step."""

    kind: Literal["constant", "steps", "cosine"] = "constant"
    warmup_steps: Annotated[Whole, Field(ge=0, lt=2**53)] = 0  # rising linearly, before or over any of these
    milestones: tuple[Positive, ...] = ()  # of steps: after so many the rate falls
    factor: Share = 0.1  # of steps: to so much of what it was
    over_steps: Positive | None = None  # of cosine: from the whole rate to the last; None: master.steps
    final_fraction: Fraction = 0.0  # of cosine: what is left in the end


class Optimizer(Section):
    """How the master descends."""

    kind: Annotated[str, one_of(OPTIMIZERS)] = "sgd"
    learning_rate: Annotated[Number, Field(gt=0)] = 0.01  # 0.001 with adam and adamw
    momentum: Decay = 0.95  # of sgd
    nesterov: bool = True  # of sgd
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # of adam and adamw
    epsilon: Rate = 1e-8  # of adam and adamw
    weight_decay: Annotated[Number, Field(ge=0, allow_inf_nan=False)] = 0.0  # 0.01 with adamw
    schedule: Schedule = Schedule()


class ProposalSection(Section):
    """The distribution that the master draws from."""

    method: Annotated[str, one_of(METHODS)] = "issgd"
    # oracle: fresh weights before every step, at no virtual cost (section 4.1); shuffled: those of others (4.2)
    source: Literal["workers", "oracle", "shuffled"] = "workers"
    # A constant, "variance-optimal", "entropy:0.9" (a fraction of log N), or "second-moment", which adds nothing but
    # draws by the norms that are to be expected now (methods/drift.py).
    smoothing: Smoothing = 10.0
    staleness_limit_seconds: Seconds | None = None
    staleness_limit_versions: Positive | None = None
    limit_mode: Literal["drop", "fill"] = "drop"
    minimum_usable_fraction: Fraction = 0.1
    # systematic: a block of draws at once, each example as often as it should come, but for one (methods/blocks.py)
    draws: Literal["independent", "systematic"] = "independent"
    block: Share = 1.0  # epochs that it is long


TRAINING = 3  # passes through the network of an example that is trained on: see scores/cost.py


class Master(Section):
    """The actor that trains. At least one of steps, seconds and work ends the run."""

    mode: Literal["relaxed", "exact"] = "relaxed"
    minibatch_size: Positive = 128
    steps: Positive | None = None
    seconds: Seconds | None = None
    # All that a method needs of all actors, in examples that are trained on (scores/cost.py); ends a run within a step,
    # or within a block where workers do a part of it.
    work: Rate | None = None
    publish_every_steps: Positive
    checkpoint_every_seconds: Seconds = 60.0
    reuse_own_norms: bool = False

    @property
    def most_passes(self) -> float | None:
        """The passes that `work` is."""
        return None if self.work is None else self.work * TRAINING

    @property
    def most_steps(self) -> int | None:
        """How many a run has, of `work` those of whole minibatches alone. None: only seconds end it.

        One whose steps do less has more for its work: `infobatch`, whose epochs may end with a short minibatch, and
        `looking`, whose looks may cost less than a plain step.
        """
        by_work = None if self.work is None else math.ceil(self.work / self.minibatch_size)
        return min((limit for limit in (self.steps, by_work) if limit is not None), default=None)


class Worker(Section):
    """The actors that keep recomputing norms."""

    count: Annotated[Whole, Field(ge=0, le=10_000)]
    chunk_size: Positive = ORIGINAL_CHUNK
    pull_every_chunks: Positive = 10
    shares: tuple[Positive, Positive, Positive] = (20, 1, 1)  # train : valid : test
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_every_chunks: Positive = 20


class Monitor(Section):
    """The actor that writes the trace."""

    every_seconds: Seconds = 2.0
    every_steps: Positive = 1
    audit_every_steps: Positive | None = None
    # Audits are on so many random examples of each split, the same ones all run long, with standard errors; None: all.
    audit_examples: Annotated[Whole, Field(ge=2)] | None = None
    extra_smoothings: tuple[Annotated[Number, Field(ge=0)], ...] = (0.0, 1.0, 10.0)


class Clock(Section):
    """How long everything takes on the virtual clock of the simulated cluster: a preset, and what replaces it.

    The preset's examples_per_second are scaled by N / 570,000 where the training split is smaller, so that a sweep
    takes as many steps as the paper's; give chunks of 2048 * N / 570,000 examples with it.
    """

    preset: Literal["k20", "h200", "measured"] = "k20"  # simulation/clock.py says where their values come from
    step_seconds: Seconds | None = None  # one minibatch
    examples_per_second: Rate | None = None  # a worker's scoring; never scaled
    # Publishing, refreshing, pulling and pushing take the latency, and their bytes at this rate; for which what peers
    # pull or push stands in line.
    latency_seconds: Duration | None = None
    bytes_per_second: Rate | None = None
    # Constants that replace the model of one operation.
    publish_seconds: Duration | None = None
    refresh_seconds: Duration | None = None
    pull_seconds: Duration | None = None
    score_seconds: Duration | None = None  # one chunk
    push_seconds: Duration | None = None
    checkpoint_seconds: Duration | None = None
    apply_seconds: Duration | None = None  # a gradient, by the parameter server
    slow: dict[Index, Rate] = Field(default={})  # worker, or peer -> how many times longer everything takes it
    dies: dict[Index, Duration] = Field(default={})  # likewise -> the second at which it stops for ever


_Name = Annotated[str, like(r"[A-Za-z0-9_.,:@+-]{0,200}", "must be a name as Slurm knows it, or empty")]

_Option = Annotated[str, like(r"-[^\x00-\x1f\x7f]{1,1000}", "must be options of sbatch, for instance --mem-per-cpu=4G")]


class Slurm(Section):
    """What a run's job asks Slurm for; empty: what the site gives unasked."""

    partition: _Name = ""
    account: _Name = ""
    time: Annotated[
        str, like(r"[0-9]+(:[0-9]{2}){0,2}|[0-9]+-[0-9]+(:[0-9]{2}){0,2}|", "must be as 30, 4:00:00 or 2-12:00:00")
    ] = ""
    nodes: Positive | None = None  # None: as many as the tasks take
    # One for the head (server, master and monitor), and one for each worker.
    cpus_per_task: Positive = 2
    gpus_per_task: Annotated[Whole, Field(ge=0, le=64)] = 0
    # So long before its end the job saves a checkpoint, and queues again.
    signal_seconds: Annotated[Whole, Field(ge=10, le=65535)] = 120
    # More, as `--mem-per-cpu=4G`; a line of the batch script each.
    sbatch: tuple[_Option, ...] = ()


class Ray(Section):
    """What a run's workers ask Ray for."""

    # Of a cluster that is there: auto, or HOST:PORT; empty: a new one of this machine.
    address: Annotated[
        str, like(r"auto|([\w.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}|", "must be auto, HOST:PORT or empty")
    ] = ""
    cpus_per_worker: Annotated[float, Field(ge=0, le=1024)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0, le=1024)] = 0.0


class Cluster(Section):
    """Where the actors run."""

    # alone: no workers, no database server, one process; slurm: a job; ray: workers as Ray's actors
    kind: Literal["local", "simulated", "alone", "slurm", "ray"] = "local"
    # workers: and a master that trains; peers: who all train, and a parameter server (section 6 of the paper)
    roles: Literal["workers", "peers"] = "workers"
    # Dealt out in turn: master, then workers, then the monitor. All are at the first on the simulated cluster.
    devices: Annotated[tuple[Text, ...], Field(min_length=1)] = ("auto",)
    # Of torch, an actor. None: 1 in exact mode and on the simulated cluster, else the cores shared out.
    threads: Annotated[Whole, Field(gt=0, le=1024)] | None = None
    # Of float32 products, torch's words: "high" is TF32 where the hardware has it, "medium" bfloat16.
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    # How often in a row one is started again: a worker or the monitor that has lived for less than a minute; the master
    # or the server without a new checkpoint in between.
    restarts: Annotated[Whole, Field(ge=0)] = 5
    clock: Clock = Clock()  # of the simulated cluster
    slurm: Slurm = Slurm()
    ray: Ray = Ray()

    @property
    def trainer(self) -> str:
        """The name of the actor that descends, and of whom a run has one."""
        return "server" if self.roles == "peers" else "master"


class Database(Section):
    """The database's address; empty: a server of our own."""

    url: Annotated[str, Field(repr=False)] = ""  # may hold a password
    # HOST:PORT where a server of our own listens for workers on other machines; empty: on no address.
    listen: Annotated[
        str,
        like(
            r"([\w.*-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}|",
            "must be HOST:PORT, for instance 0.0.0.0:6379 or [::1]:6379, or empty",
        ),
    ] = ""


class StalenessMap(Section):
    """An experiment's [map]: over which clusters and smoothings the proposal's variance is mapped."""

    workers: Annotated[tuple[Annotated[Whole, Field(ge=0)], ...], Field(min_length=1)]
    publish_every_steps: Annotated[tuple[Positive, ...], Field(min_length=1)]
    smoothings: Annotated[tuple[Smoothing, ...], Field(min_length=1)]
    steps: Positive  # of the trajectory
    audit_every_steps: Positive
    audit_from_step: Annotated[Whole, Field(ge=0)] = (
        0  # earlier ones, before all is scored once, say little of staleness
    )

    @model_validator(mode="after")
    def _agreements(self) -> "StalenessMap":
        if self.audit_from_step > self.steps:
            raise ValueError("audit_from_step lies behind the last of the steps")
        if "second-moment" in self.smoothings:
            raise ValueError("smoothings cannot hold 'second-moment', which adds no constant; leave it out")
        shortest = min(self.publish_every_steps)
        if any(steps % shortest for steps in (*self.publish_every_steps, self.audit_every_steps)):
            raise ValueError("publish_every_steps and audit_every_steps must be multiples of the shortest interval")
        return self
