"""One run's configuration: all sections, what must agree among them, and the hash that names the run."""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import Field, create_model, model_validator
from pydantic.fields import FieldInfo

from issgd_cli.config import peers
from issgd_cli.config.peers import Peers
from issgd_cli.config.sections import (
    Cluster,
    Data,
    Database,
    Master,
    Model,
    Monitor,
    Optimizer,
    ProposalSection,
    Schedule,
    Worker,
)
from issgd_cli.config.values import Section, Whole, like
from issgd_cli.registries import ALL, METHODS, NETWORKS, Defaults

S = TypeVar("S", bound=Section)


class Config(Section):
    """One run, every value resolved."""

    # Names a folder, and never one that leads out of the results.
    name: Annotated[
        str,
        like(
            r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}",
            "must begin with one of a-z, A-Z and 0-9, and go on with these, dots, hyphens, underscores and spaces, "
            "at most 100 in all, for instance paper-a",
        ),
    ] = "train"
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    proposal: ProposalSection = ProposalSection()
    master: Master
    worker: Worker
    peers: Peers = Peers()
    monitor: Monitor = Monitor()
    cluster: Cluster = Cluster()
    database: Database = Database()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_what_is_named(cls, values: dict[str, Any]) -> dict[str, Any]:
        """ISSGD's as the original ran it, for four hours; over them those of what is named, and the oracle's."""
        layers: list[Defaults] = [{"master": {"publish_every_steps": 32}, "worker": {"count": 3}}]
        layers += [part.defaults for registry in ALL if (part := registry.parts.get(str(_given(values, registry.key))))]
        if _given(values, "proposal.source") == "oracle":
            layers.append({"master": {"mode": "exact", "publish_every_steps": 1}})
        if _given(values, "cluster.kind") == "alone":
            layers.append({"worker": {"count": 0}})
        if _given(values, "cluster.roles") == "peers":
            layers.append(peers.DEFAULTS)
        resolved = dict(values)
        for name in {name: None for layer in layers for name in layer}:
            if isinstance(section := values.get(name, {}), Mapping):  # anything else is refused by its name, later
                resolved[name] = {}
                for layer in (*layers, {name: section}):
                    resolved[name] |= layer.get(name, {})
        master = resolved["master"]
        limits = ("steps", "seconds", "work")
        if isinstance(master, Mapping) and all(master.get(limit) is None for limit in limits):
            resolved["master"] = {**master, "seconds": 4 * 3600.0}
        return resolved

    @model_validator(mode="after")
    def _agreements(self) -> "Config":
        if self.master.mode == "exact":
            if self.proposal.staleness_limit_seconds is not None:
                raise ValueError(
                    "proposal.staleness_limit_seconds does not apply in exact mode, whose traces must not depend on "
                    "the clock; use proposal.staleness_limit_versions"
                )
            if self.master.steps is None:
                raise ValueError("exact mode ends by master.steps, not by the clock; set master.steps")
            if self.master.work is not None:
                raise ValueError("exact mode ends by master.steps, not by what is told of work; leave out master.work")
        self._check_schedule()
        if self.proposal.draws != "independent" and not METHODS.parts[self.proposal.method].by_proposal:
            able = ", ".join(repr(name) for name, part in METHODS.parts.items() if part.by_proposal)
            raise ValueError(
                f"proposal.draws = '{self.proposal.draws}' is for methods that draw from one proposal, {able}, and "
                f"proposal.method is '{self.proposal.method}'; leave it out, or for uniform draws set "
                "proposal.method = 'reshuffled'"
            )
        if self.model.arguments and self.model.network in NETWORKS:
            raise ValueError(
                f"model.arguments are for a function of your own, package.module:function, and model.network is "
                f"'{self.model.network}', whose settings are in the section [{self.model.network}]"
            )
        if self.worker.precision == "bfloat16" and self.model.network != "mlp":
            raise ValueError(
                f"worker.precision = 'bfloat16' is for model.network = 'mlp' alone, which is "
                f"'{self.model.network}'; leave it out"
            )
        if self.master.reuse_own_norms and self.proposal.limit_mode == "drop":
            raise ValueError(
                "master.reuse_own_norms needs proposal.limit_mode = 'fill': with 'drop' the examples that the master "
                "itself has just drawn would count as fresh, and those are the ones with large norms"
            )
        if self.master.reuse_own_norms and self.master.mode == "exact":
            raise ValueError(
                "master.reuse_own_norms is of no use in exact mode, where all norms are newer at each barrier"
            )
        simulated = self.cluster.kind == "simulated"
        self._check_alone()
        peers.refuse_disagreement(self)
        if self.proposal.source == "oracle":
            if not simulated:
                raise ValueError(
                    "proposal.source = 'oracle' needs cluster.kind = 'simulated', where scoring costs no time"
                )
            if self.master.mode != "exact" or self.master.publish_every_steps != 1:
                raise ValueError(
                    "proposal.source = 'oracle' means fresh weights before every step: set master.mode = 'exact' and "
                    "master.publish_every_steps = 1, or leave both out"
                )
        if self.cluster.kind in ("simulated", "alone") and (self.database.url or self.database.listen):
            raise ValueError(
                f"cluster.kind = '{self.cluster.kind}' has its own database, in memory; leave out database.url and "
                ".listen"
            )
        if self.cluster.kind in ("slurm", "ray") and self.database.url:
            raise ValueError(
                f"a run of cluster.kind = '{self.cluster.kind}' starts a database server of its own beside the master; "
                "leave out database.url"
            )
        if self.database.url and self.database.listen:
            raise ValueError("database.listen is for a server of our own; leave it out, or database.url")
        self._check_workers_of_the_clock()
        return self

    def _check_alone(self) -> None:
        if self.cluster.kind != "alone":
            return
        if METHODS.parts[self.proposal.method].by_scores:
            free = [repr(name) for name, part in METHODS.parts.items() if not part.by_scores]
            raise ValueError(
                f"proposal.method = '{self.proposal.method}' draws by what workers score, and cluster.kind = 'alone' "
                f"has none; set it to {', '.join(free[:-1])} or {free[-1]}"
            )
        if self.worker.count > 0:
            raise ValueError("cluster.kind = 'alone' has no workers; leave out worker.count")
        if self.master.mode == "exact":
            raise ValueError("exact mode waits for workers, and cluster.kind = 'alone' has none; leave it out")

    def _check_schedule(self) -> None:
        schedule = self.optimizer.schedule
        owners = {"milestones": "steps", "factor": "steps", "over_steps": "cosine", "final_fraction": "cosine"}
        for key, kind in owners.items():
            if schedule.kind != kind and getattr(schedule, key) != Schedule.model_fields[key].default:
                raise ValueError(
                    f"optimizer.schedule.{key} belongs to optimizer.schedule.kind = '{kind}', which is "
                    f"'{schedule.kind}'; set both or neither"
                )
        later = all(low < high for low, high in pairwise(schedule.milestones))
        if schedule.kind == "steps" and not (schedule.milestones and later):
            raise ValueError(
                "optimizer.schedule.milestones must be steps, each later than the one before, for instance [1000, 2000]"
            )
        if schedule.kind == "cosine":
            end = schedule.over_steps or self.master.steps
            if end is None:
                raise ValueError(
                    "optimizer.schedule.kind = 'cosine' must know where it ends: set optimizer.schedule.over_steps, or "
                    "master.steps"
                )
            if schedule.warmup_steps >= end:
                raise ValueError(
                    f"optimizer.schedule.warmup_steps, {schedule.warmup_steps:,}, must be fewer than the {end:,} steps "
                    "of the cosine"
                )

    def _check_workers_of_the_clock(self) -> None:
        clock, role = self.cluster.clock, "worker"
        count = self.worker.count
        if self.cluster.roles == "peers":
            role, count = "peer", self.peers.count
        if unknown := [index for index in (*clock.slow, *clock.dies) if index >= count]:
            key = "worker.count" if role == "worker" else "peers.count"
            raise ValueError(f"cluster.clock names {role} {unknown[0]}, but {key} is {count}, from 0 on")
        if self.master.mode == "exact" and count > 0 and len(clock.dies) == count:
            raise ValueError("in exact mode the master waits for workers, and cluster.clock.dies lists all of them")

    def own(self, kind: type[S]) -> S:
        """The settings of a method, a network or a loss, from the section of its name."""
        return next(value for value in vars(self).values() if type(value) is kind)

    def hash(self) -> str:
        """Eight hex digits of what defines the run's results: no seed, name, path, database, device, restarts.

        Values that are their keys' defaults are left out too, so that a key added later renames no earlier run. Real
        processes are real processes: a run on Slurm or Ray is called what it is called on this machine.
        """
        where = {"devices", "restarts", "slurm", "ray"} | ({"kind"} if self.cluster.kind in ("slurm", "ray") else set())
        values = self.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"seed": True, "name": True, "database": True, "data": {"dir"}, "cluster": where},
        )
        given = {name: section for name, section in values.items() if section != {}}
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def _given(values: Mapping[str, Any], key: str) -> Any:
    """What plain values say of `section.key`; None where they don't."""
    section, _, name = key.partition(".")
    given = values.get(section)
    return given.get(name) if isinstance(given, Mapping) else None


def schema(values: Mapping[str, Any]) -> type[Config]:
    """What values are read by: Config, and a section for each part with settings of its own that they name or set."""
    named: dict[str, Any] = {}
    for registry in ALL:
        for name, part in registry.parts.items():
            if part.has_settings and (name in values or _given(values, registry.key) == name):
                named[name] = (part.settings(), part.settings()())
    return create_model("Config", __base__=Config, **named) if named else Config


def fields(section: type[Section] = Config, path: str = "") -> dict[str, FieldInfo]:
    """Every key, `section.key` or a top one, and what pydantic knows of it."""
    found: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found |= fields(inner, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = field
    return found
