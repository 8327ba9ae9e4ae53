"""One run's configuration: all sections, what must agree among them, and the hash that names the run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, create_model, model_validator
from pydantic.fields import FieldInfo

from issgd_cli.config.sections import (
    Cluster,
    Data,
    Database,
    Master,
    Model,
    Monitor,
    Optimizer,
    ProposalSection,
    Worker,
)
from issgd_cli.config.values import Section, Whole, like
from issgd_cli.registries import ALL, METHODS

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
    monitor: Monitor = Monitor()
    cluster: Cluster = Cluster()
    database: Database = Database()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, values: dict[str, Any]) -> dict[str, Any]:
        """ISSGD's as the original ran it, for four hours; those that the method lists, and the oracle, over them."""
        proposal = values.get("proposal")
        given = proposal if isinstance(proposal, Mapping) else {}
        method = METHODS.parts.get(str(given.get("method")))
        of_method = {} if method is None else method.defaults
        defaults: dict[str, dict[str, Any]] = {
            "master": {"publish_every_steps": 32, **of_method.get("master", {})},
            "worker": {"count": 3, **of_method.get("worker", {})},
        }
        if given.get("source") == "oracle":
            defaults["master"] = {"mode": "exact", "publish_every_steps": 1}
        resolved = dict(values)
        for name, default in defaults.items():
            if isinstance(section := values.get(name, {}), Mapping):  # anything else is refused by its name, later
                resolved[name] = {**default, **section}
        master = resolved["master"]
        if isinstance(master, Mapping) and master.get("steps") is None and master.get("seconds") is None:
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
        schedule = self.optimizer.schedule
        if schedule.kind == "cosine" and schedule.over_steps is None and self.master.steps is None:
            raise ValueError(
                "optimizer.schedule.kind = 'cosine' must know where it ends: set optimizer.schedule.over_steps, or "
                "master.steps"
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
        if simulated and (self.database.url or self.database.listen):
            raise ValueError(
                "the simulated cluster has its own database, in memory; leave out database.url and .listen"
            )
        if self.database.url and self.database.listen:
            raise ValueError("database.listen is for a server of our own; leave it out, or database.url")
        self._check_workers_of_the_clock()
        return self

    def _check_workers_of_the_clock(self) -> None:
        clock, count = self.cluster.clock, self.worker.count
        if unknown := [worker for worker in (*clock.slow, *clock.dies) if worker >= count]:
            raise ValueError(f"cluster.clock names worker {unknown[0]}, but worker.count is {count}, from 0 on")
        if self.master.mode == "exact" and count > 0 and len(clock.dies) == count:
            raise ValueError("in exact mode the master waits for workers, and cluster.clock.dies lists all of them")

    def own(self, kind: type[S]) -> S:
        """The settings of a method, a network or a loss, from the section of its name."""
        return next(value for value in vars(self).values() if isinstance(value, kind))

    def hash(self) -> str:
        """Eight hex digits of what defines the run's results: no seed, name, path, database, device, restarts.

        Values that are their keys' defaults are left out too, so that a key added later renames no earlier run.
        """
        values = self.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"seed": True, "name": True, "database": True, "data": {"dir"}, "cluster": {"devices", "restarts"}},
        )
        given = {name: section for name, section in values.items() if section != {}}
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def schema(values: Mapping[str, Any]) -> type[Config]:
    """What values are read by: Config, and a section for each part with settings of its own that they name or set."""
    named: dict[str, Any] = {}
    for registry in ALL:
        section, _, key = registry.key.partition(".")
        chosen = values.get(section)
        for name, part in registry.parts.items():
            if part.has_settings and (name in values or (isinstance(chosen, Mapping) and chosen.get(key) == name)):
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
