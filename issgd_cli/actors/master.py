"""The master: SGD on examples that a method draws (section 4).

It publishes its parameters, reads the table of norms, draws and trains on a few minibatches, and again. It knows
nothing of the workers; in exact mode it waits until every record carries the version that it has just published. In
relaxed mode publishing and reading are a task beside the training, so that neither 76 MB of parameters nor a database
that does not answer holds up a step.
"""

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.limits import Limits
from issgd_cli.actors.minibatch import minibatch
from issgd_cli.actors.publishing import Publishing
from issgd_cli.actors.saving import Saving, recalled, room
from issgd_cli.config.config import Config
from issgd_cli.database import Database, Published
from issgd_cli.datasets.examples import Examples
from issgd_cli.methods.method import Method, Refreshed
from issgd_cli.methods.table import Table
from issgd_cli.problem import Problem
from issgd_cli.registries import METHODS
from issgd_cli.runs.checkpoints import Checkpoint
from issgd_cli.runs.folder import RunFolder
from issgd_cli.scores.cost import IN_PASSES

POLL_SECONDS = 0.005


def taken(
    learner: Learner, method: Method, examples: Examples, size: int, version: int = 0
) -> Generator[Operation, None, Tensor]:
    """One step of SGD on a minibatch of about this size, told of before it is taken.

    Returns:
        Its weighted loss, still on the device.
    """
    found = yield from minibatch(learner, method, examples, size, version)
    method.learn(learner.step, found.drawn, found.seen, found.squared_norms)
    learner.descend(found.gradient, found.drawn.rate)
    return found.loss


def take_step(learner: Learner, method: Method, examples: Examples, size: int) -> Tensor:
    """`taken` at once, where nobody wants to be told; the weighted loss."""
    step = taken(learner, method, examples, size)
    while True:
        try:
            next(step)
        except StopIteration as end:
            loss: Tensor = end.value
            return loss


class Master:
    """See the module.

    Attributes:
        learner, method, examples: What a step is taken with.
        publishing, saving: How its parameters go out, and what goes to the disk.
        task: A round of publishing and reading, under way beside the training; None: there is none.
        published: What that round publishes.
        loss: The last block's mean weighted loss.
        limits: When it is over.
    """

    def __init__(
        self,
        config: Config,
        learner: Learner,
        method: Method,
        examples: Examples,
        database: Database,
        saving: Saving,
        version: int = 1,
        resumed_at: float | None = None,
    ) -> None:
        """A master that publishes this version next; `resumed_at`: seconds, of a run that goes on from a checkpoint."""
        self.config, self.database, self.saving = config, database, saving
        self.learner, self.method, self.examples = learner, method, examples
        self.publishing = Publishing(config, database, learner.parameters, version)
        self.resumed_at = resumed_at
        self.task: Task[Refreshed] | None = None
        self.published = Published(0, 0)
        self.loss = float("nan")
        self.limits = Limits(config, learner)

    @classmethod
    def of(
        cls,
        config: Config,
        problem: Problem,
        database: Database,
        folder: RunFolder,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> "Master":
        """The master of a run, from its beginning or a checkpoint; it learns on this device."""
        examples = problem.examples("train", device)
        method = METHODS[config.proposal.method](config, len(examples), device)
        if method.needs == "norms":
            problem.refuse_batch_statistics(f"proposal.method = '{config.proposal.method}'")
        learner = Learner(config, problem, device, checkpoint)
        method.remembered = torch.zeros((method.remembers, problem.trained_size), device=device)
        if checkpoint is not None:
            recalled(method, checkpoint.learned, checkpoint.remembered, folder.checkpoint)
        version, seconds = (1, None) if checkpoint is None else (checkpoint.version, checkpoint.seconds)
        saving = Saving(config, database, folder, version)
        master = cls(config, learner, method, examples, database, saving, version, seconds)
        master.limits.elsewhere = 0.0 if checkpoint is None else checkpoint.work.get(IN_PASSES, 0.0)
        return master

    def run(self) -> Generator[Operation | Task[Any]]:
        """Publish, refresh, train on some minibatches, for ever (figure 1, left)."""
        # Asked once a block, so that a limit in seconds never falls between training and the last audit. A run takes at
        # least one block; only one that was resumed after its last step has nothing left to train.
        over = self.resumed_at is not None and self.limits.are_over(self.resumed_at)
        while not over:
            yield from self._exchange()
            if self.learner.step == 0:
                self.saving.audit_if_due(self.learner, self.method, self.limits.passes)
            losses = []
            for _ in range(self.config.master.publish_every_steps):
                if self.task is not None and self.task.done:
                    self._adopt(self.task.result())
                parts = self.learner, self.method, self.examples, self.config.master.minibatch_size
                losses.append((yield from taken(*parts, self.publishing.version - 1)))
                self.saving.audit_if_due(self.learner, self.method, self.limits.passes)
                if self.limits.are_reached():
                    break
            of_block = torch.stack(losses)
            self.loss = float(of_block.mean())
            self._refuse_diverged(of_block)
            over = self.limits.are_over(self.database.seconds())
            if over or (yield from self.saving.may_checkpoint(self.publishing.version)):
                yield Operation("checkpoint", self.publishing.version - 1)
                now = self.database.seconds()
                over = over or self.limits.are_over(now)  # a limit in seconds may have been passed since
                if over:
                    self.saving.audit(self.learner, self.method, self.limits.passes)
                self.checkpoint(now)
        while self.task is not None and not self.task.done:
            yield Operation("wait", self.publishing.version - 1, seconds=POLL_SECONDS)
        if self.task is not None:
            self.task.result()  # raises what has gone wrong
        # In exact mode the last records are then of the final parameters.
        yield from self.publishing.publish(self._next())
        self.saving.parameters(self.learner)
        self.database.put("finished", {"step": self.learner.step, "version": self.publishing.version - 1})

    def _exchange(self) -> Generator[Operation | Task[Any]]:
        """Publishes and refreshes: one after the other in exact mode and at first, else beside the training.

        A round that is not over yet is not waited for: training goes on with the proposal at hand.
        """
        if self.config.master.mode == "exact" or self.method.in_use is None:
            self._adopt((yield from self._round(self._next())))
        elif self.task is None or self.task.done:
            if self.task is not None:
                self._adopt(self.task.result())
            self.task = Task(self._round(self._next()))
            yield self.task

    def _next(self) -> Published:
        """What is published next: the parameters of now."""
        self.published = self.publishing.next(self.learner.step)
        self.method.settle(self.published.version - 1, self.database.seconds())
        return self.published

    def _round(self, published: Published) -> Generator[Operation, None, Refreshed]:
        """Publishes, and makes of the table what the next minibatches are drawn from."""
        yield from self.publishing.publish(published)
        return (yield from self._refreshing(published))

    def _refreshing(self, published: Published) -> Generator[Operation, None, Refreshed]:
        # The previous norms, which audits need, are read too; they cost a virtual clock nothing unless the method does.
        is_free = self.config.cluster.kind == "simulated" and not self.method.reads_pairs
        size = 4 if is_free else 8
        yield Operation("refresh", published.version, bytes=size * self.database.layout().train)
        return self.refreshed(published)

    def refreshed(self, newest: Published) -> Refreshed:
        """Reads the table, asks the method what to draw from, and reports on it for the trace."""
        records = self.database.weights()
        self.limits.hear(self.database)
        table = Table.of(records, self.database.layout(), newest, self.database.seconds())
        found = self.method.refreshed(table)
        self.database.put("proposal", {"step": newest.step, "seconds": table.now, "values": dict(found.values)})
        return found

    def _adopt(self, refreshed: Refreshed) -> None:
        self.task = None
        self.method.adopt(refreshed)

    def checkpoint(self, now: float) -> None:
        """Saves all that `--resume` needs, as of the next publication; `now` by the database's clock.

        Raises:
            DataError: The data have changed since they were loaded, and with them what may have been trained on.
            RunError: What the learner holds is not finite, or the disk is full. The last checkpoint stays.
        """
        self.learner.problem.data.refuse_changed()
        self._refuse_diverged()
        self.saving.checkpoint(self.learner, self.method, self.publishing.version, now, self.limits.passes)

    def state(self) -> dict[str, Any]:
        """What a checkpoint does not hold of it, between two blocks: the method's, and the round under way."""
        state: dict[str, Any] = {"published": self.published, "passes": self.limits.passes}
        if self.task is None or self.task.done:
            return state | self.method.state(None if self.task is None else self.task.result())
        return state | {"outgoing": self.publishing.outgoing.numpy()} | self.method.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`, and from the checkpoint that it belongs to."""
        self.published = Published(*map(int, state["published"]))
        self.limits.elsewhere = float(state.get("passes", self.limits.elsewhere))
        self.method.restore(state)
        if "outgoing" in state:
            self.publishing.outgoing.copy_(torch.from_numpy(state["outgoing"]))
            is_published = self.database.newest() == self.published
            self.task = Task(self._refreshing(self.published) if is_published else self._round(self.published))

    def stop(self) -> None:
        """Interrupted: in relaxed mode a checkpoint fits anywhere; an exact run goes on from its last one."""
        whole = self.learner.trouble() is None  # the steps since the last look may have diverged
        if self.config.master.mode == "relaxed" and self.method.in_use is not None and whole:
            if self.limits.are_over(self.database.seconds()):
                # Nothing is left to train for the run that goes on from here.
                self.saving.audit(self.learner, self.method, self.limits.passes)
            self.checkpoint(self.database.seconds())

    def status(self) -> dict[str, Any]:
        """Step, own passes, the last block's mean weighted loss, and what room its method takes, where it is much."""
        loss = None if np.isnan(self.loss) else self.loss
        told = room(self.config.proposal.method, self.method)
        own = {"step": self.learner.step, "version": self.publishing.version - 1, "passes": self.learner.passes}
        return {**own, "loss": loss, "notices": told}

    def _refuse_diverged(self, losses: Tensor | None = None) -> None:
        """Stops the run where it has diverged, so that nothing is published or saved that holds a number that is none.

        Args:
            losses: Of the last block's steps: one look a block, since a look waits for the device.

        Raises:
            RunError: It has.
        """
        if (trouble := self.learner.trouble(losses)) is not None:
            raise self.saving.diverged(trouble, self.method)
