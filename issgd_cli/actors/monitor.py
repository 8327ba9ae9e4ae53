"""The monitor: reads the database, computes the trace, writes it. The only writer of trace.csv and events.csv.

While the master trains, it samples what the database holds, as the paper did: records at mixed parameter versions.
Once training is over it audits the points that the master has saved: everything anew at one parameter version, over
all examples, or a sample of them. Neither master nor workers pay for either.
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.auditing import exact_quantities, traces_of
from issgd_cli.actors.sampling import audit_sample, sampled_quantities
from issgd_cli.actors.several import own_quantities, restored
from issgd_cli.config.config import Config
from issgd_cli.config.sections import TRAINING
from issgd_cli.database import SPLITS, Database, Layout, Published, Records, Split
from issgd_cli.database.records import NO_ERROR, Event
from issgd_cli.equations import alain2015
from issgd_cli.errors import RunError
from issgd_cli.methods.blocks import steps_of_block
from issgd_cli.methods.smoothing import constant_in
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator
from issgd_cli.runs import traces
from issgd_cli.runs.audits import Audit, load_audit
from issgd_cli.runs.checkpoints import total_work
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import BLOCK_ENDS, Row, TraceWriter
from issgd_cli.scores.cost import IN_PASSES

MOST_LIVES = 1000  # of actors, whose work is counted one by one
POLL_SECONDS = {"exact": 0.005, "relaxed": 0.1}
WORK = ("work/examples_trained", "work/examples_scored", "work/bytes_sent")  # the last ends a sample's block
LOOKED_AT = "work/examples_looked_at"  # where a method does look


class Monitor:
    """See the module."""

    def __init__(
        self, config: Config, problem: Problem, database: Database, folder: RunFolder, device: torch.device
    ) -> None:
        """A monitor that goes on with the trace that the folder holds."""
        self.config, self.problem, self.database, self.folder, self.device = config, problem, database, folder, device
        self.examples = {split: problem.examples(split, device) for split in SPLITS}
        self.layout = database.layout()
        self.sample_of_audits = audit_sample(config.seed, config.monitor.audit_examples, self.layout)
        self.trace = TraceWriter(folder.trace, Row._fields, BLOCK_ENDS)
        self.events = TraceWriter(folder.events, Event._fields)
        written = traces.steps(folder.trace)
        self.proposal_step = max(written.get("proposal/entropy", ()), default=-1)
        self.audited_steps = written.get("audit/trace/in_use", set())
        # Life of an actor -> quantity -> count; `before`: what the checkpoint says that the run goes on from. Each life
        # has its own count, so that what a monitor before this one has counted is not counted twice.
        self.work: dict[str, dict[str, float]] = dict(database.get("work") or {})
        # The step of the last sample, of a monitor before this one too, so that `every_steps` counts on.
        self.sampled = max(written.get(WORK[-1], ()), default=None)
        self.sampled_at = -np.inf
        self.caught_up = False  # with the events that a monitor before this one may have written and not forgotten
        self.written: dict[str, str] = {}  # life of an actor -> the last batch of its events that is in the file
        self.latest: dict[str, float] = {}
        self.audits_left = 0

    def run(self) -> Generator[Operation]:
        """Sample until the master has finished, then audit."""
        exact = self.config.master.mode == "exact"
        while True:
            finished = self.database.get("finished") is not None  # looked at first: what follows sees the last records
            newest = self.database.newest()
            if newest is not None:
                if exact and self.database.behind(newest.version) == 0:
                    if self._due_at_barrier(newest):
                        yield Operation("sample", newest.version, bytes=self.layout.bytes())
                        self.sample(newest)
                    self.database.put("acknowledged", {"version": newest.version})
                elif not exact and self._due_by_time(newest, finished):
                    yield Operation("sample", newest.version, bytes=self.layout.bytes())
                    self.sample(newest)
            self.write_events()
            if finished:
                break
            yield Operation("wait", seconds=POLL_SECONDS[self.config.master.mode])
        yield from self.audits()
        self.trace.put_in_order()
        self.write_events()

    def sample(self, newest: Published) -> None:
        """One row of every quantity that the database's records give, and of the proposal in use."""
        rows = self._proposal_rows()
        records = self.database.records()
        now = self.database.seconds()
        told = (self.database.get("proposal") or {"values": {}})["values"].get("proposal/smoothing", 0.0)
        constant = constant_in(self.config.proposal.smoothing, told)
        values = {
            **quantities(records, self.layout, constant, self.config.monitor.extra_smoothings),
            **self.count_work(),
        }
        rows += [Row(newest.step, now, quantity, value) for quantity, value in values.items()]
        self._write(rows)
        self.sampled, self.sampled_at = newest.step, now

    def audits(self) -> Generator[Operation]:
        """Audits the points that the master has saved so far."""
        points = sorted(self.folder.audits.glob("step-*.npz"))
        for number, path in enumerate(points):
            self.audits_left = len(points) - number
            point = load_audit(path)
            # Else killed between writing and removing it; or a virtual clock's last step had been due one before it was
            # known to be the last.
            if point.step not in self.audited_steps:
                yield from self.audit(point)
                self.audited_steps.add(point.step)
            path.unlink()
        self.audits_left = 0

    def audit(self, point: Audit) -> Generator[Operation]:
        """Everything at the parameters of one audit point, and its rows: exactly, or on the run's sample."""
        model = self.problem.network(self.device)
        parameters = flatten_parameters(model)
        if (len(point.parameters), len(point.weights)) != (len(parameters), self.layout.train):
            raise RunError(
                f"The audit point of step {point.step} is of another run. Remove it from {self.folder.audits}."
            )
        parameters.copy_(torch.from_numpy(point.parameters))
        looked_at = self.problem.loss, model, self.examples
        smoothings = self.config.monitor.extra_smoothings
        if self.sample_of_audits is None:
            draws = generator(self.config.seed, "audit_draws", point.step)
            block = None
            if self.config.proposal.draws == "systematic":
                block = steps_of_block(self.config, self.layout.train) * self.config.master.minibatch_size
            values = yield from exact_quantities(*looked_at, point, smoothings, draws, block)
        else:  # none of systematic draws' own variance: it needs looks at all examples
            values = yield from sampled_quantities(*looked_at, self.sample_of_audits, point, smoothings)
        several = restored(self.config, point, self.device)
        if several is not None:
            rows = np.arange(self.layout.train) if self.sample_of_audits is None else self.sample_of_audits["train"]
            own = self.problem.loss, model, self.examples["train"], several, point.step, rows, values
            values |= yield from own_quantities(*own)
        self.problem.data.refuse_changed()  # nothing of other examples is written
        values["trace/in_use"] = values.pop("trace/in_use")  # ends the block
        known = {} if point.passes is None else {traces.IN_EXAMPLES: point.passes / TRAINING}
        known |= {} if point.epochs is None else {"epochs": point.epochs}
        values = {**known, **values}
        self._write([Row(point.step, point.seconds, f"audit/{name}", value) for name, value in values.items()])

    def write_events(self) -> None:
        """Moves the events that wait in the database into events.csv."""
        waiting = self.database.events()
        # An actor that could not know whether its last batch has arrived hands it over again.
        new = {batch: events for batch, events in waiting.items() if self.written.get(_owner(batch)) != batch}
        rows = [event for events in new.values() for event in events]
        self.events.append(rows if self.caught_up else self.events.missing(rows))
        self.written |= {_owner(batch): batch for batch in new}
        self.database.forget_events(list(waiting))
        self.caught_up = self.caught_up or not waiting

    def written_so_far(self) -> dict[str, float]:
        """When it has sampled last, and of which step the last proposal is that it has written."""
        return {"sampled_at": self.sampled_at, "proposal_step": self.proposal_step}

    def stop(self) -> None:
        """Interrupted: what is written is whole."""
        self.write_events()

    def status(self) -> dict[str, Any]:
        """The newest value of each quantity, and how many audits are left."""
        return {"latest": self.latest, "audits_left": self.audits_left}

    def _due_at_barrier(self, newest: Published) -> bool:
        if newest.step == self.sampled:
            return False
        if self.sampled is None or newest.step == self.config.master.steps:
            return True
        return newest.step - self.sampled >= self.config.monitor.every_steps

    def _due_by_time(self, newest: Published, finished: bool) -> bool:
        if finished:  # once more, unless a monitor before this one has done that
            return newest.step != self.sampled
        return self.database.seconds() - self.sampled_at >= self.config.monitor.every_seconds

    def _proposal_rows(self) -> list[Row]:
        """The master's newest report of the distribution that it draws from, unless it is written already."""
        report = self.database.get("proposal")
        if report is None or report["step"] <= self.proposal_step:
            return []
        self.proposal_step = report["step"]
        values = sorted(report["values"].items(), key=lambda value: value[0] == "proposal/entropy")  # ends the block
        return [Row(report["step"], report["seconds"], name, value) for name, value in values]

    def count_work(self) -> dict[str, float]:
        """What all actors have done so far, those of killed and restarted ones included; leaves it for a checkpoint."""
        statuses = self.database.statuses()
        living = {f"{actor}:{status['process']}": status for actor, status in statuses.items()}
        for life, status in living.items():
            examples = status["examples"]
            some = {LOOKED_AT: examples["look"]} if "look" in examples else {}
            some |= {IN_PASSES: status["passes"]} if "passes" in status else {}
            counts = (examples.get("train", 0), examples.get("score", 0), status["bytes"])
            self.work[life] = some | dict(zip(WORK, counts, strict=True))
        if len(self.work) > MOST_LIVES:
            # One that another life of the same actor has followed reports no more. (One that is only not heard of may.)
            over = [life for life in self.work if life not in living and _owner(life) in statuses]
            self.work["before"] = total_work({life: self.work.pop(life, {}) for life in ("before", *over)})
        self.database.put("work", dict(self.work))
        totals = total_work(self.work)
        some = {LOOKED_AT: totals[LOOKED_AT]} if LOOKED_AT in totals else {}
        some |= {traces.IN_EXAMPLES: totals[IN_PASSES] / TRAINING} if IN_PASSES in totals else {}
        return some | {name: totals.get(name, 0) for name in WORK}

    def _write(self, rows: list[Row]) -> None:
        self.trace.append([row._replace(value=float(row.value)) for row in rows])
        self.latest |= {row.quantity: float(row.value) for row in rows}


def _owner(name: str) -> str:
    """The actor of a life, the life of a batch of events."""
    return name.rpartition(":")[0]


def quantities(
    records: dict[Split, Records], layout: Layout, smoothing_constant: float | None, extra_smoothings: tuple[float, ...]
) -> dict[str, float]:
    """What the database's newest records say, at mixed parameter versions, as the paper's monitoring did.

    Left out while their records are missing: means of a split before anything of it is scored, and of errors where
    the loss knows none, traces before the first ||g_B||^2, eq. 9 until every example has a norm at two versions.

    Args:
        records: Of the three splits.
        layout: How they fall into chunks.
        smoothing_constant: The one in use, for eq. 9.
        extra_smoothings: Others, for `trace/stale+c`.
    """
    values: dict[str, float] = {}
    for split in SPLITS:
        scored = layout.spread(split, records[split].versions > 0).astype(bool)
        if scored.any():
            values[f"loss/{split}"] = float(records[split].losses[scored].mean(dtype=np.float64))
            errors = records[split].errors[scored]
            if not (errors == NO_ERROR).any():
                values[f"error/{split}"] = float(errors.mean(dtype=np.float64))
    train = records["train"]
    measured = train.gradient_versions > 0
    if not measured.any():
        return values
    scored = layout.spread("train", train.versions > 0).astype(bool)
    squared_norms = np.square(train.norms[scored].astype(np.float64))
    bound = alain2015.gradient_norm2_bound(train.gradient_norms2[measured])
    values["gradient_norm2/bound"] = bound
    if scored.all():
        values["gradient_norm2/unbiased"] = alain2015.gradient_norm2_unbiased(
            train.gradient_norms2[measured],
            layout.sizes("train")[measured],
            float(squared_norms.mean()),
            layout.train,
        )
    previous = train.previous_norms if (train.previous_versions > 0).all() else None
    return values | traces_of(squared_norms, previous, bound, smoothing_constant, extra_smoothings)
