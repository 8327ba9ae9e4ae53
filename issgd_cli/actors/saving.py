"""What the master saves while it trains: checkpoints, and the points that the monitor audits later."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.learner import Learner
from issgd_cli.config.config import Config
from issgd_cli.database import Database, Document, Records, Split
from issgd_cli.database.records import Float32s
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.methods.method import Method, relearn
from issgd_cli.methods.multiple import Multiple
from issgd_cli.methods.smoothing import constant_in
from issgd_cli.registries import METHODS
from issgd_cli.runs.arrays import START_AGAIN, Arrays
from issgd_cli.runs.audits import Audit, save_audit
from issgd_cli.runs.checkpoints import Checkpoint, save_checkpoint, total_work
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.parameters import save_parameters
from issgd_cli.scores.cost import IN_PASSES

SPARE_VERSIONS = 100  # may be published while a checkpoint that is due waits for the database
RESERVED_VERSIONS = 1000  # a relaxed run checkpoints at least as often; a resumed one starts above them


@dataclass(frozen=True)
class Kept:
    """What a checkpoint keeps of the database; see Checkpoint."""

    proposal: Document
    work: dict[str, float]
    records: dict[Split, Records]


class Saving:
    """See the module.

    Attributes:
        reserved: In relaxed mode versions up to this one may be published before the next checkpoint; a resumed run
            goes on above it, so that no version ever names two parameter sets. Exact mode repeats the same bytes.
        moment: What the run's cluster adds to the next one.
    """

    def __init__(self, config: Config, database: Database, folder: RunFolder, version: int) -> None:
        """Of a run that goes on by publishing this version."""
        self.database, self.folder, self.config = database, folder, config
        # A simulated run's database is gone with it, so nobody has seen what it published after its checkpoint.
        self.reserves = config.master.mode == "relaxed" and config.cluster.kind != "simulated"
        # The work: workers' and peers' is known by hearsay.
        self.is_shared = METHODS.parts[config.proposal.method].by_scores or config.cluster.roles == "peers"
        self.reserved = version
        self.saved_at = database.seconds()
        self.keeping: Task[Kept] | None = None  # for the one that is due
        self.moment: Arrays = {}

    def may_checkpoint(self, version: int) -> Generator[Task[Any], None, bool]:
        """Whether one is due, and what it keeps of the database is here: training does not wait for it."""
        due = self.database.seconds() - self.saved_at >= self.config.master.checkpoint_every_seconds
        if not due and not (self.reserves and version + SPARE_VERSIONS >= self.reserved):
            return False
        if self.reserves and self.keeping is None:
            self.keeping = Task(self._keep(version))
            yield self.keeping
        return self.keeping is None or self.keeping.done

    def checkpoint(self, learner: Learner, method: Method, version: int, now: float, passes: float) -> None:
        """Saves all that `--resume` needs, as of the publication of this version; `now` by the database's clock.

        Args:
            learner, method, version, now: See above.
            passes: Of the run so far (scores/cost.py), as its master knows it; the monitor's count may be older.

        Raises:
            RunError: The disk is full. The last checkpoint stays.
        """
        self.saved_at = now
        self.reserved = version + (RESERVED_VERSIONS if self.reserves else 0)
        kept = self.keeping.result() if self.keeping is not None and self.keeping.done else self._kept()
        state = Checkpoint(
            step=learner.step,
            version=version,
            seconds=now,
            parameters=learner.parameters.cpu().numpy(),
            optimizer={name: vector.cpu().numpy() for name, vector in learner.optimizer.vectors.items()},
            moment=self.moment,
            learned=method.learned(),
            remembered=method.remembered.cpu().numpy(),
            **{**vars(kept), "work": kept.work if self.is_shared else {**kept.work, IN_PASSES: passes}},
        )
        self.keeping = None
        save_checkpoint(self.folder.checkpoint, state.renumbered(self.reserved - version))

    def audit_if_due(self, learner: Learner, method: Method, passes: float) -> None:
        """Saves an audit point at every so many steps; the last one is saved when training is over."""
        every, steps = self.config.monitor.audit_every_steps, self.config.master.steps
        if every is not None and learner.step % every == 0 and learner.step != steps:
            self.audit(learner, method, passes)

    def audit(self, learner: Learner, method: Method, passes: float) -> None:
        """Saves the parameters of now, the weights in use, and the norms before those that they were made of.

        Args:
            learner, method: Whose.
            passes: Of the run so far, as its master knows it.
        """
        if method.in_use is None:
            raise RunError("An audit was asked for before the first refresh.")
        point = Audit(
            step=learner.step,
            seconds=self.database.seconds(),
            parameters=learner.parameters.cpu().numpy(),
            weights=method.weights_in_use(),
            previous=method.in_use.previous,
            smoothing=constant_in(self.config.proposal.smoothing, method.in_use.smoothing),
            passes=None if self.is_shared else passes,
            epochs=method.epochs,
            learned=method.learned() if isinstance(method, Multiple) else {},
        )
        save_audit(self.folder.audits, point)

    def diverged(self, trouble: str, method: Method) -> RunError:
        """That training cannot go on, since its numbers are none any more; and from where it could.

        Args:
            trouble: How that shows.
            method: Whose weights may be the reason.
        """
        weights = method.weights_in_use()
        omega = weights[weights > 0]
        good = self.folder.checkpoint
        return RunError(
            f"{trouble} (largest importance weight possible: {omega.mean() / omega.min():.3g}). "
            f"{remedy(self.config)} "
            + (f"The last good checkpoint is {good}." if good.exists() else "There is no checkpoint yet.")
        )

    def parameters(self, learner: Learner) -> None:
        """Saves the final ones."""
        save_parameters(self.folder.parameters, learner.model)

    def _keep(self, version: int) -> Generator[Operation, None, Kept]:
        yield Operation("checkpoint", version - 1, bytes=self.database.layout().bytes())
        return self._kept()

    def _kept(self) -> Kept:
        proposal, work = self.database.get("proposal") or {}, self.database.get("work") or {}
        return Kept(proposal, total_work(work), self.database.records())


def remedy(config: Config) -> str:
    """What may help a run that diverged: smaller steps, and what bounds its method's importance weights, if anything.

    A smoothing that finds its own constant cannot be raised, and only methods that draw by scores read it.
    """
    method, bound = config.proposal.method, ""
    part = METHODS.parts[method]
    if part.by_scores and not isinstance(config.proposal.smoothing, str):
        bound = "proposal.smoothing"
    elif part.has_settings and "uniform" in part.settings().model_fields:
        bound = f"{method}.uniform"
    return "Lower `optimizer.learning_rate`" + (f" or raise `{bound}`." if bound else ".")


def recalled(method: Method, learned: Arrays, remembered: Float32s, checkpoint: Path) -> None:
    """Gives a method back what it had learned, and remembered.

    Args:
        method: Made anew.
        learned, remembered: What a checkpoint holds.
        checkpoint: Where it lies.

    Raises:
        DamagedError: No such method can have learned that.
    """
    try:
        if len(remembered) != method.remembers or (method.remembers and remembered.shape != method.remembered.shape):
            raise ValueError(
                f"what its method remembers is of shape {remembered.shape}, not {tuple(method.remembered.shape)}"
            )
        relearn(method, learned)
    except ValueError as error:
        raise DamagedError(checkpoint, error, START_AGAIN) from None
    if method.remembers:
        method.remembered.copy_(torch.from_numpy(remembered))


def room(name: str, method: Method) -> list[str]:
    """What a method of this name keeps beside parameters and optimiser, for people, a line; none of most methods."""
    gradients, numbers = method.remembered.shape
    if not gradients:
        return []
    size = 4 * gradients * numbers / 1e6
    return [
        f"{name} keeps {gradients} gradients of {numbers:,} numbers: {size:,.1f} MB of memory, and {2 * size:,.1f} MB "
        "of disk, with the last checkpoint and with the one before it"
    ]
