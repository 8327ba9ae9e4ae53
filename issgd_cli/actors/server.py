"""The parameter server: descends by the gradients that peers hand over (section 6).

Asynchronous, it applies each as it comes, of whatever parameters it is (ASGD), unless it is older than a limit; then it
publishes. Synchronous, it waits for one of each peer, all of the parameters of now, and takes a step by their mean:
plain SGD with a minibatch as large as all of theirs. It trusts no peer: a gradient that cannot be one is refused.

It stands where the database does. So what it reads and publishes there travels through no network: traffic is what
peers pull and push.
"""

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.gradient_ages import GradientAges
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.limits import Limits
from issgd_cli.actors.receiving import Descent, Receiving
from issgd_cli.actors.saving import Saving
from issgd_cli.config.config import Config
from issgd_cli.database import Database, Published
from issgd_cli.methods.method import Method
from issgd_cli.methods.table import Table
from issgd_cli.optimizers.views import views
from issgd_cli.problem import Problem
from issgd_cli.registries import METHODS
from issgd_cli.runs.checkpoints import Checkpoint
from issgd_cli.runs.folder import RunFolder
from issgd_cli.scores.cost import IN_PASSES

POLL_SECONDS = 0.002
REPORT_EVERY_STEPS = 16


class Server:
    """See the module.

    Attributes:
        learner: What descends.
        method: What peers draw by: for reports and audits, which show what one that looked just now would draw from.
        published: The newest parameters; version 0: none of this life yet.
        version: Of the next publication.
        receiving: What it makes of gradients.
        limits: When it is over; the work is the peers'.
    """

    def __init__(
        self,
        config: Config,
        learner: Learner,
        method: Method,
        database: Database,
        saving: Saving,
        version: int = 1,
        resumed_at: float | None = None,
    ) -> None:
        """A server that publishes this version next; `resumed_at`: seconds, of a run that goes on from a checkpoint."""
        self.config, self.learner, self.method = config, learner, method
        self.database, self.saving, self.version, self.resumed_at = database, saving, version, resumed_at
        self.published = Published(0, 0)
        told = database.get("proposal") or {"values": {}}  # a checkpoint's
        self.receiving = Receiving(config.peers, len(learner.trained), GradientAges.of(told["values"]), version)
        self.limits = Limits(config, learner)
        self.loss: float | None = None
        self.task: Task[Any] | None = None  # none ever: it does nothing beside its work

    @classmethod
    def of(
        cls,
        config: Config,
        problem: Problem,
        database: Database,
        folder: RunFolder,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> "Server":
        """The server of a run, from its beginning or a checkpoint; it descends on this device."""
        problem.refuse_batch_statistics("cluster.roles = 'peers'")
        learner = Learner(config, problem, device, checkpoint)
        method = METHODS[config.proposal.method](config, problem.data.sizes["train"], device)
        version, seconds = (1, None) if checkpoint is None else (checkpoint.version, checkpoint.seconds)
        server = cls(config, learner, method, database, Saving(config, database, folder, version), version, seconds)
        server.limits.elsewhere = 0.0 if checkpoint is None else checkpoint.work.get(IN_PASSES, 0.0)
        return server

    def run(self) -> Generator[Operation | Task[Any]]:
        """Receive, descend, publish, for ever."""
        over = self.resumed_at is not None and self.limits.are_over(self.resumed_at)
        if self.published.version == 0:
            self._publish()
            self._look()
            if self.learner.step == 0:
                self.saving.audit_if_due(self.learner, self.method, self.limits.passes)
        while not over:
            stepped = False
            if (found := self.database.contribution(len(self.learner.trained))) is not None:
                yield Operation("apply", found.version)
                if self.config.master.most_passes is not None:
                    self.limits.hear(self.database)
                now = self.database.seconds()
                if (descent := self.receiving.descent(found, self.published.version, now)) is not None:
                    self._step(descent)
                    stepped = True
                self.database.take(found)  # now: its peer goes on with what was made of it
            over = self.limits.are_over(self.database.seconds())
            if not stepped and not over:  # between two steps a synchronous one has begun, which no checkpoint holds
                if found is None:
                    yield Operation("wait", self.published.version, seconds=POLL_SECONDS)
                continue
            if over or (yield from self.saving.may_checkpoint(self.version)):
                yield Operation("checkpoint", self.published.version)
                now = self.database.seconds()
                over = over or self.limits.are_over(now)  # a limit in seconds may have been passed since
                if over:
                    self._look()
                    self.saving.audit(self.learner, self.method, self.limits.passes)
                self.checkpoint(now)
            while self._is_out_of_versions():
                yield Operation("wait", self.published.version, seconds=POLL_SECONDS)
        if self.published.step != self.learner.step:
            self._publish()
        self.saving.parameters(self.learner)
        self.database.put("finished", {"step": self.learner.step, "version": self.published.version})

    def _publish(self) -> None:
        """The parameters of now.

        Raises:
            RunError: They are not all finite.
        """
        if (trouble := self.learner.trouble()) is not None:
            raise self.saving.diverged(trouble, self.method)
        self.published = Published(self.version, self.learner.step)
        self.version += 1
        self.database.publish(self.published, self.learner.parameters.cpu().numpy())

    def _step(self, descent: Descent) -> None:
        flat = torch.from_numpy(descent.gradient).to(self.learner.parameters.device)
        self.learner.descend(views(flat, self.learner.tensors))
        self.loss = descent.loss
        if self.learner.step % self.config.master.publish_every_steps == 0:
            self._publish()
        every = self.config.monitor.audit_every_steps
        if self.learner.step % REPORT_EVERY_STEPS == 0 or (every is not None and self.learner.step % every == 0):
            self._look()
            self.saving.audit_if_due(self.learner, self.method, self.limits.passes)

    def _look(self) -> None:
        """What a peer that looked now would draw from; reports on it, and on the gradients' ages, for the trace."""
        records, now = self.database.weights(), self.database.seconds()
        self.limits.hear(self.database)
        found = self.method.refreshed(Table.of(records, self.database.layout(), self.published, now))
        self.method.adopt(found)
        values = {**found.values, **self.receiving.ages.values()}
        self.database.put("proposal", {"step": self.learner.step, "seconds": now, "values": values})

    def _is_out_of_versions(self) -> bool:
        """Whether all that a checkpoint has reserved are used up, and the next one is still on its way.

        A run that goes on from the last one publishes `reserved` next: so it is no longer to be used here.
        """
        saving = self.saving
        waits = saving.keeping is not None and not saving.keeping.done
        return saving.reserves and self.version + 1 >= saving.reserved and waits

    def checkpoint(self, now: float) -> None:
        """Saves all that `--resume` needs, as of the next publication; `now` by the database's clock.

        Raises:
            DataError: The data have changed since they were loaded.
            RunError: What the learner holds is not finite, or the disk is full. The last checkpoint stays.
        """
        self.learner.problem.data.refuse_changed()
        if (trouble := self.learner.trouble()) is not None:
            raise self.saving.diverged(trouble, self.method)
        self.saving.checkpoint(self.learner, self.method, self.version, now, self.limits.passes)

    def state(self) -> dict[str, Any]:
        """What a checkpoint does not hold of it, between two steps."""
        return {"published": self.published, "receiving": self.receiving.state(), "passes": self.limits.passes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`, and from the checkpoint that it belongs to."""
        self.published = Published(*map(int, state["published"]))
        self.receiving.restore(state["receiving"])
        self.limits.elsewhere = float(state["passes"])

    def stop(self) -> None:
        """Interrupted: a checkpoint fits anywhere between two steps; gradients under way are lost."""
        if self.published.version > 0 and self.learner.trouble() is None:
            now = self.database.seconds()
            self._look()  # so that the checkpoint holds the gradients' ages up to now
            if self.limits.are_over(now):
                self.saving.audit(
                    self.learner, self.method, self.limits.passes
                )  # nothing is left to train for who goes on from here
            self.checkpoint(now)

    def status(self) -> dict[str, Any]:
        """Step, the last gradient's weighted loss, and what was refused."""
        loss = self.loss if self.loss is not None and np.isfinite(self.loss) else None
        own = {"step": self.learner.step, "version": self.published.version}
        return {**own, "loss": loss, "notices": self.receiving.notices}
