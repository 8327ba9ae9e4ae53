"""The master: SGD on examples drawn by importance (section 4).

It publishes its parameters, reads the table of norms, draws and trains on a few minibatches, and again. It knows
nothing of the workers; in exact mode it waits until every record carries the version that it has just published.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim.sgd import sgd  # not the class: it loads torch's compiler, which takes longer than a short run

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.exchange import Exchange, OwnNorms, Refreshed
from issgd_cli.config.config import Config
from issgd_cli.database import Database, Document, Published, Records, Split
from issgd_cli.errors import RunError
from issgd_cli.methods.proposal import Proposal
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator
from issgd_cli.runs.arrays import Arrays
from issgd_cli.runs.audits import Audit, save_audit
from issgd_cli.runs.checkpoints import Checkpoint, save_checkpoint, total_work
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.parameters import save_parameters
from issgd_cli.scores import score

POLL_SECONDS = 0.005
SPARE_VERSIONS = 100  # may be published while a checkpoint that is due waits for the database
RESERVED_VERSIONS = 1000  # a relaxed run checkpoints at least as often; a resumed one starts above them


@dataclass(frozen=True)
class Kept:
    """What a checkpoint keeps of the database; see Checkpoint."""

    proposal: Document
    work: dict[str, float]
    records: dict[Split, Records]


class Master:
    """See the module. Drawing uniformly (method sgd) is the paper's baseline; all else is the same."""

    def __init__(
        self,
        config: Config,
        problem: Problem,
        database: Database,
        folder: RunFolder,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """A master at step 0, or where `checkpoint` left off."""
        self.config, self.problem, self.database, self.folder = config, problem, database, folder
        self.examples = problem.examples("train", device)
        self.model = problem.initial_network(config.seed, device)
        self.parameters = flatten_parameters(self.model)
        self.outgoing = torch.empty(self.parameters.shape, pin_memory=device.type == "cuda")  # what is being published
        # torch's own first step would start from zeros, too: its buffer becomes a copy of the gradient.
        self.momentum = torch.zeros_like(self.parameters)
        self.tensors: list[torch.Tensor] = [*self.model.parameters()]  # views of `parameters`
        sizes = [tensor.numel() for tensor in self.tensors]
        self.buffers: list[torch.Tensor | None] = [  # of `momentum`
            part.view_as(tensor) for part, tensor in zip(torch.split(self.momentum, sizes), self.tensors, strict=True)
        ]
        self.step, self.version = 0, 1  # the version that is published next
        self.resumed_at = None if checkpoint is None else checkpoint.seconds
        if checkpoint is not None:
            self.step, self.version = checkpoint.step, checkpoint.version
            self.parameters.copy_(torch.from_numpy(checkpoint.parameters))
            self.momentum.copy_(torch.from_numpy(checkpoint.momentum))
        # A simulated run's database is gone with it, so nobody has seen what it published after its checkpoint.
        self.reserves_versions = config.master.mode == "relaxed" and config.cluster.kind == "local"
        self.reserved_version = self.version
        self.checkpointed_at = database.seconds()
        reuse = config.master.reuse_own_norms and config.proposal.method == "issgd"
        self.exchange = Exchange(config, database, device, OwnNorms.none(len(self.examples)) if reuse else None)
        self.own_norms: list[tuple[torch.Tensor, torch.Tensor]] = []  # (indices, norms) of the minibatches since
        self.own_norms_since = 0.0
        self.task: Task[Refreshed] | None = None  # a round of the exchange, under way beside the training
        self.published = Published(0, 0)  # what that round publishes
        self.refreshed: Refreshed | None = None
        self._adopt(None)
        self.keeping: Task[Kept] | None = None  # for the checkpoint that is due
        self.moment: Arrays = {}  # what its cluster adds to a checkpoint
        self.loss = float("nan")

    def run(self) -> Generator[Operation | Task[Any]]:
        """Publish, refresh, train on some minibatches, for ever (figure 1, left)."""
        # Asked once a block, so that a limit in seconds never falls between training and the last audit. A run takes at
        # least one block; only one that was resumed after its last step has nothing left to train.
        over = self.resumed_at is not None and self._over(self.resumed_at)
        while not over:
            yield from self._exchange()
            if self.step == 0:
                self._audit_if_due()
            losses = []
            for _ in range(self.config.master.publish_every_steps):
                if self.step == self.config.master.steps:
                    break
                if self.task is not None and self.task.done:
                    self._adopt(self.task.result())
                yield Operation("train", self.version - 1, examples=self.config.master.minibatch_size)
                losses.append(self.train())
                self._audit_if_due()
            self._check(torch.stack(losses))
            over = self._over(self.database.seconds())
            if over or (yield from self._may_checkpoint()):
                yield Operation("checkpoint", self.version - 1)
                now = self.database.seconds()
                over = over or self._over(now)  # a limit in seconds may have been passed since
                if over:
                    self._save_audit()
                self.checkpoint(now)
        while self.task is not None and not self.task.done:
            yield Operation("wait", self.version - 1, seconds=POLL_SECONDS)
        if self.task is not None:
            self.task.result()  # raises what has gone wrong
        # In exact mode the last records are then of the final parameters.
        yield from self.exchange.publish(*self._next_version())
        save_parameters(self.folder.parameters, self.model)
        self.database.put("finished", {"step": self.step, "version": self.version - 1})

    def train(self) -> torch.Tensor:
        """One step of importance-sampled SGD; returns the minibatch's weighted loss, still on the device."""
        size = self.config.master.minibatch_size
        indices, factors = self.proposal.draw(generator(self.config.seed, "draws", self.step), size)
        indices, factors = indices.to(self.examples.device), factors.float().to(self.examples.device)
        inputs, labels = self.examples[indices]
        if self.exchange.own is None:
            loss = (factors * self.problem.loss(self.model(inputs), labels)).mean()  # section 4.1
            gradients = torch.autograd.grad(loss, self.tensors)
        else:  # the same, and the minibatch's norms taken along
            scores = score(self.problem.loss, self.model, inputs, labels, with_gradient=True, factors=factors / size)
            loss = (factors * scores.losses).mean()
            assert scores.gradients is not None
            gradients = scores.gradients
            self.own_norms.append((indices, scores.norms))
        self._descend(gradients)
        self.step += 1
        return loss.detach()

    def refresh(self) -> None:
        """Reads the table and makes the proposal that the next minibatches are drawn from."""
        self._adopt(self.exchange.refresh(Published(self.version - 1, self.step)))

    def _exchange(self) -> Generator[Operation | Task[Any]]:
        """Publishes and refreshes: one after the other in exact mode and at first, else beside the training.

        A round that is not over yet is not waited for: training goes on with the proposal at hand.
        """
        if self.config.master.mode == "exact" or self.refreshed is None:
            self._adopt((yield from self.exchange.round(*self._next_version())))
        elif self.task is None or self.task.done:
            if self.task is not None:
                self._adopt(self.task.result())
            self.task = Task(self.exchange.round(*self._next_version()))
            yield self.task

    def _next_version(self) -> tuple[Published, np.ndarray[Any, Any]]:
        """What is published next: a copy of the parameters, since training goes on. Hands over the own norms, too."""
        self.published = Published(self.version, self.step)
        self.version += 1
        self.outgoing.copy_(self.parameters)
        if self.exchange.own is not None:
            for indices, norms in self.own_norms:
                self.exchange.own.keep(
                    indices.cpu().numpy(), norms.cpu().numpy(), self.published.version - 1, self.own_norms_since
                )
            self.own_norms, self.own_norms_since = [], self.database.seconds()
        return self.published, self.outgoing.numpy()

    def _adopt(self, refreshed: Refreshed | None) -> None:
        """Draws from this proposal from now on; from the uniform one before the first."""
        self.task, self.refreshed = None, refreshed
        if refreshed is None:
            self.proposal = Proposal.uniform(len(self.examples)).on(self.examples.device)
        else:
            self.proposal = refreshed.proposal

    def checkpoint(self, now: float) -> None:
        """Saves all that `--resume` needs, as of the next publication; `now` by the database's clock.

        Raises:
            DataError: The data have changed since they were loaded, and with them what may have been trained on.
            RunError: Parameters or momentum are not finite, or the disk is full. The last checkpoint stays.
        """
        self.problem.data.refuse_changed()
        self._refuse_nonfinite()
        self.checkpointed_at = now
        # In relaxed mode versions up to the reserved one may be published before the next checkpoint; a resumed run
        # goes on above it, so that no version ever names two parameter sets. Exact mode repeats the same bytes.
        self.reserved_version = self.version + (RESERVED_VERSIONS if self.reserves_versions else 0)
        state = Checkpoint(
            step=self.step,
            version=self.version,
            seconds=self.checkpointed_at,
            parameters=self.parameters.cpu().numpy(),
            momentum=self.momentum.cpu().numpy(),
            moment=self.moment,
            **vars(self.keeping.result() if self.keeping is not None and self.keeping.done else self._kept()),
        )
        self.keeping = None
        save_checkpoint(self.folder.checkpoint, state.renumbered(self.reserved_version - self.version))

    def _may_checkpoint(self) -> Generator[Task[Any], None, bool]:
        """Whether a checkpoint is due, and what it keeps of the database is here: training does not wait for it."""
        if not self._checkpoint_is_due():
            return False
        if self.reserves_versions and self.keeping is None:
            self.keeping = Task(self._keep())
            yield self.keeping
        return self.keeping is None or self.keeping.done

    def _keep(self) -> Generator[Operation, None, Kept]:
        yield Operation("checkpoint", self.version - 1, bytes=self.exchange.layout.bytes())
        return self._kept()

    def _kept(self) -> Kept:
        proposal, work = self.database.get("proposal") or {}, self.database.get("work") or {}
        return Kept(proposal, total_work(work), self.database.records())

    def state(self) -> dict[str, Any]:
        """What a checkpoint does not hold of it, between two blocks: proposal, own norms, the round under way."""
        state: dict[str, Any] = {"published": self.published, "own_norms_since": self.own_norms_since}
        is_done = self.task is not None and self.task.done
        in_use = self.task.result() if self.task is not None and is_done else self.refreshed
        if in_use is not None:
            state["in_use"] = in_use.state()
        if self.task is not None and not is_done:
            state["outgoing"] = self.outgoing.numpy()
        if self.exchange.own is not None:
            state["own_norms"] = vars(self.exchange.own)
        if self.own_norms:
            state["drawn"], state["drawn_norms"] = (
                torch.cat(parts).cpu().numpy() for parts in zip(*self.own_norms, strict=True)
            )
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`, and from the checkpoint that it belongs to."""
        device = self.examples.device
        self.published, self.own_norms_since = Published(*map(int, state["published"])), float(state["own_norms_since"])
        if "in_use" in state:
            self._adopt(Refreshed.restored(state["in_use"], device))
        if "outgoing" in state:
            self.outgoing.copy_(torch.from_numpy(state["outgoing"]))
            is_published = self.database.newest() == self.published
            self.task = Task(
                self.exchange.refreshing(self.published)
                if is_published
                else self.exchange.round(self.published, self.outgoing.numpy())
            )
        if "own_norms" in state:
            self.exchange.own = OwnNorms(**state["own_norms"])
        if "drawn" in state:
            drawn, norms = (torch.from_numpy(state[name]).to(device) for name in ("drawn", "drawn_norms"))
            self.own_norms = [(drawn, norms)]

    def stop(self) -> None:
        """Interrupted: in relaxed mode a checkpoint fits anywhere; an exact run goes on from its last one."""
        whole = self._nonfinite() is None  # the steps since the last look may have diverged
        if self.config.master.mode == "relaxed" and self.refreshed is not None and whole:
            if self._over(self.database.seconds()):
                self._save_audit()  # nothing is left to train for the run that goes on from here
            self.checkpoint(self.database.seconds())

    def status(self) -> dict[str, Any]:
        """Step, and the last block's mean weighted loss."""
        return {"step": self.step, "version": self.version - 1, "loss": None if np.isnan(self.loss) else self.loss}

    def _over(self, seconds: float) -> bool:
        """Whether training is, at this time: by steps, or by seconds but in exact mode, which depends on no clock."""
        limits = self.config.master
        late = limits.mode == "relaxed" and limits.seconds is not None and seconds >= limits.seconds
        return self.step == limits.steps or late

    def _checkpoint_is_due(self) -> bool:
        due = self.database.seconds() - self.checkpointed_at >= self.config.master.checkpoint_every_seconds
        return due or (self.reserves_versions and self.version + SPARE_VERSIONS >= self.reserved_version)

    def _audit_if_due(self) -> None:
        every = self.config.monitor.audit_every_steps
        if every is not None and self.step % every == 0 and self.step != self.config.master.steps:
            self._save_audit()

    def _save_audit(self) -> None:
        """Parameters of now and the weights in use, for the monitor to audit later."""
        if self.refreshed is None:
            raise RunError("An audit was asked for before the first refresh.")
        save_audit(
            self.folder.audits,
            Audit(
                step=self.step,
                seconds=self.database.seconds(),
                parameters=self.parameters.cpu().numpy(),
                weights=self.proposal.weights,
                table=self.refreshed.norms,
                smoothing=self.refreshed.smoothing,
            ),
        )

    def _check(self, losses: torch.Tensor) -> None:
        """Stops the run where it has diverged: one look a block, since a look waits for the device.

        Nothing that is published or saved after it holds a number that is none.
        """
        self.loss = float(losses.mean())
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            raise self._diverged(f"The loss is not finite at step {self.step - len(losses) + int(bad[0]) + 1}")
        self._refuse_nonfinite()  # a loss is of the parameters before its step, which may be the one that overflows

    def _refuse_nonfinite(self) -> None:
        if name := self._nonfinite():
            raise self._diverged(f"The {name} are not finite after step {self.step}")

    def _nonfinite(self) -> str | None:
        """Which of the two vectors that a checkpoint holds is not all finite, if any."""
        for name, vector in (("parameters", self.parameters), ("momentum buffers", self.momentum)):
            # A NaN anywhere makes both NaN. The least and the largest take no memory, and a tenth of isfinite's time.
            if not torch.isfinite(torch.stack(torch.aminmax(vector))).all():
                return name
        return None

    def _diverged(self, what: str) -> RunError:
        omega = self.proposal.weights[self.proposal.weights > 0]
        largest = omega.mean() / omega.min()
        good = self.folder.checkpoint
        return RunError(
            f"{what} (largest importance weight possible: {largest:.3g}). Lower `optimizer.learning_rate` or raise "
            "`proposal.smoothing`. "
            + (f"The last good checkpoint is {good}." if good.exists() else "There is no checkpoint yet.")
        )

    @torch.no_grad()
    def _descend(self, gradients: tuple[torch.Tensor, ...]) -> None:
        """One step of torch.optim.SGD, in place."""
        settings = self.config.optimizer
        sgd(
            self.tensors,
            list(gradients),
            self.buffers,
            fused=self.parameters.device.type in ("cpu", "cuda"),
            weight_decay=0.0,
            momentum=settings.momentum,
            lr=settings.learning_rate,
            dampening=0.0,
            nesterov=settings.nesterov and settings.momentum > 0,
            maximize=False,
        )
