"""The master: SGD on examples drawn by importance (section 4).

It publishes its parameters, reads the table of norms, draws and trains on a few minibatches, and again. It knows
nothing of the workers; in exact mode it waits until every record carries the version that it has just published.
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from issgd_cli import equations
from issgd_cli.checkpoints import Audit, Checkpoint, save_audit, save_checkpoint, save_parameters
from issgd_cli.config import Config
from issgd_cli.database import Database, Published, Weights
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.examples import Examples
from issgd_cli.models.losses import cross_entropy
from issgd_cli.models.mlp import flatten_parameters, initialise, mlp
from issgd_cli.operations import Operation
from issgd_cli.randomness import generator
from issgd_cli.runs import RunFolder
from issgd_cli.sampling import Proposal, proposal, usable_norms
from issgd_cli.smoothing import smoothing

BARRIER_POLL_SECONDS = 0.005
RESERVED_VERSIONS = 1000  # a relaxed run checkpoints at least as often; a resumed one starts above them


class Master:
    """See the module. Drawing uniformly (method sgd) is the paper's baseline; all else is the same."""

    def __init__(
        self,
        config: Config,
        data: Prepared,
        database: Database,
        folder: RunFolder,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """A master at step 0, or where `checkpoint` left off."""
        self.config, self.database, self.folder = config, database, folder
        self.examples = Examples(data, data.splits["train"], device)
        self.layout = database.layout()
        model = mlp(data.features, config.model.hidden, data.classes)
        initialise(model, config.seed, config.model.initial_weight_std)
        self.model = model.to(device)
        self.parameters = flatten_parameters(self.model)
        self.momentum = torch.zeros_like(self.parameters)
        self.optimizer = self._optimizer(device)
        self.smoothing = smoothing(config.proposal.smoothing)
        self.reads_pairs = config.proposal.smoothing == "variance-optimal"
        self.step, self.version = 0, 1  # the version that is published next
        self.resumed_at = None if checkpoint is None else checkpoint.seconds
        if checkpoint is not None:
            self.step, self.version = checkpoint.step, checkpoint.version
            self.parameters.copy_(torch.from_numpy(checkpoint.parameters))
            self.momentum.copy_(torch.from_numpy(checkpoint.momentum))
        self.reserved_version = self.version
        self.checkpointed_at = database.seconds()
        self.proposal = Proposal.uniform(len(self.examples))
        self.weights: Weights | None = None
        self.smoothing_constant = 0.0
        self.loss = float("nan")

    def run(self) -> Generator[Operation]:
        """Publish, refresh, train on some minibatches, for ever (figure 1, left)."""
        # Asked once a block, so that a limit in seconds never falls between training and the last audit. A run takes at
        # least one block; only one that was resumed after its last step has nothing left to train.
        over = self.resumed_at is not None and self._over(self.resumed_at)
        while not over:
            yield from self._publish()
            yield Operation("refresh", self.version - 1, bytes=(8 if self.reads_pairs else 4) * len(self.examples))
            self.refresh()
            if self.step == 0:
                self._audit_if_due()
            losses = []
            for _ in range(self.config.master.publish_every_steps):
                if self.step == self.config.master.steps:
                    break
                yield Operation("train", self.version - 1, examples=self.config.master.minibatch_size)
                losses.append(self.train())
                self._audit_if_due()
            self._check(torch.stack(losses))
            over = self._over(self.database.seconds())
            if over:
                self._save_audit()
            if over or self._checkpoint_is_due():
                yield Operation("checkpoint", self.version - 1)
                self.checkpoint()
        yield from self._publish()  # in exact mode the last records are then of the final parameters
        save_parameters(self.folder.parameters, self.model)
        self.database.put("finished", {"step": self.step, "version": self.version - 1})

    def train(self) -> torch.Tensor:
        """One step of importance-sampled SGD; returns the minibatch's weighted loss, still on the device."""
        draws = generator(self.config.seed, "draws", self.step)
        indices, weights = self.proposal.draw(draws, self.config.master.minibatch_size)
        inputs, labels = self.examples[indices]
        factors = torch.from_numpy(weights).to(inputs)  # (M,), mean(omega) / omega[i], section 4.1
        loss = (factors * cross_entropy(self.model(inputs), labels)).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def refresh(self) -> None:
        """Reads the table and makes the proposal that the next minibatches are drawn from."""
        settings = self.config.proposal
        table = self.database.weights(previous=self.reads_pairs)
        now, newest = self.database.seconds(), self.version - 1
        fresh = table.versions > 0
        if settings.staleness_limit_seconds is not None:
            fresh &= now - table.seconds <= settings.staleness_limit_seconds
        if settings.staleness_limit_versions is not None:
            fresh &= newest - table.versions <= settings.staleness_limit_versions
        usable = self.layout.spread("train", fresh).astype(bool)  # (N,)
        old = new = usable_norms(table.norms, np.zeros_like(usable))  # no pairs
        if table.previous_norms is not None:
            paired = self.layout.spread("train", fresh & (table.previous_versions > 0)).astype(bool)
            old, new = usable_norms(table.previous_norms, paired), usable_norms(table.norms, paired)
        if usable.any():
            self.smoothing_constant = self.smoothing(usable_norms(table.norms, usable), old, new)
        if settings.method == "sgd":
            self.proposal = Proposal.uniform(len(self.examples))
        else:
            self.proposal = proposal(
                table.norms, usable, self.smoothing_constant, settings.limit_mode, settings.minimum_usable_fraction
            )
        self.weights = table
        self._report_proposal(usable, fresh, table, now, newest)

    def checkpoint(self) -> None:
        """Saves all that `--resume` needs, as of the next publication."""
        self.checkpointed_at = self.database.seconds()
        # In relaxed mode versions up to the reserved one may be published before the next checkpoint; a resumed run
        # goes on above it, so that no version ever names two parameter sets. Exact mode repeats the same bytes.
        exact = self.config.master.mode == "exact"
        self.reserved_version = self.version if exact else self.version + RESERVED_VERSIONS
        state = Checkpoint(
            step=self.step,
            version=self.version,
            seconds=self.checkpointed_at,
            parameters=self.parameters.cpu().numpy(),
            momentum=self.momentum.cpu().numpy(),
            proposal=self.database.get("proposal") or {},
            records=self.database.records(),
        )
        save_checkpoint(self.folder.checkpoint, state.renumbered(self.reserved_version - self.version))

    def stop(self) -> None:
        """Interrupted: in relaxed mode a checkpoint fits anywhere; an exact run goes on from its last one."""
        whole = bool(torch.isfinite(self.parameters).all())  # the steps since the last look may have diverged
        if self.config.master.mode == "relaxed" and self.weights is not None and whole:
            if self._over(self.database.seconds()):
                self._save_audit()  # nothing is left to train for the run that goes on from here
            self.checkpoint()

    def status(self) -> dict[str, Any]:
        """Step, and the last block's mean weighted loss."""
        return {"step": self.step, "version": self.version - 1, "loss": None if np.isnan(self.loss) else self.loss}

    def _publish(self) -> Generator[Operation]:
        yield Operation("publish", self.version, bytes=4 * self.parameters.numel())
        published = Published(self.version, self.step)
        self.database.publish(published, self.parameters.cpu().numpy())
        self.version += 1
        if self.config.master.mode == "exact":
            while not self._all_have(published):
                yield Operation("wait", published.version, seconds=BARRIER_POLL_SECONDS)

    def _all_have(self, published: Published) -> bool:
        """The barrier of figure 1: every record carries this version, and the monitor has sampled them."""
        acknowledged = self.database.get("acknowledged") or {"version": 0}
        return acknowledged["version"] >= published.version and self.database.behind(published.version) == 0

    def _over(self, seconds: float) -> bool:
        """Whether training is, at this time: by steps, or by seconds but in exact mode, which depends on no clock."""
        limits = self.config.master
        late = limits.mode == "relaxed" and limits.seconds is not None and seconds >= limits.seconds
        return self.step == limits.steps or late

    def _checkpoint_is_due(self) -> bool:
        due = self.database.seconds() - self.checkpointed_at >= self.config.master.checkpoint_every_seconds
        return due or (self.config.master.mode == "relaxed" and self.version + 1 >= self.reserved_version)

    def _audit_if_due(self) -> None:
        every = self.config.monitor.audit_every_steps
        if every is not None and self.step % every == 0 and self.step != self.config.master.steps:
            self._save_audit()

    def _save_audit(self) -> None:
        """Parameters of now and the weights that the last step was drawn from, for the monitor to audit later."""
        if self.weights is None:
            raise RunError("An audit was asked for before the first refresh.")
        scored = self.layout.spread("train", self.weights.versions > 0)
        save_audit(
            self.folder.audits,
            Audit(
                step=self.step,
                seconds=self.database.seconds(),
                parameters=self.parameters.cpu().numpy(),
                weights=self.proposal.weights,
                table=np.where(scored, self.weights.norms, np.float32("nan")),
                smoothing=self.smoothing_constant,
            ),
        )

    def _check(self, losses: torch.Tensor) -> None:
        """Stops the run where the loss is no number: one look a block, since a look waits for the device."""
        self.loss = float(losses.mean())
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            first = self.step - len(losses) + int(bad[0]) + 1
            omega = self.proposal.weights[self.proposal.weights > 0]
            largest = omega.mean() / omega.min()
            good = self.folder.checkpoint
            raise RunError(
                f"The loss is not finite at step {first} (largest importance weight possible: {largest:.3g}). Lower "
                "`optimizer.learning_rate` or raise `proposal.smoothing`. "
                + (f"The last good parameters are in {good}." if good.exists() else "There is no checkpoint yet.")
            )

    def _report_proposal(
        self, usable: np.ndarray[Any, Any], fresh: np.ndarray[Any, Any], table: Weights, now: float, newest: int
    ) -> None:
        sizes = self.layout.sizes("train")[fresh]
        values = {
            "proposal/entropy": equations.entropy(self.proposal.weights),
            "proposal/effective_sample_size": equations.effective_sample_size(self.proposal.weights),
            "proposal/kept_fraction": float(usable.mean()),
            "proposal/smoothing": self.smoothing_constant,
            "proposal/floored": float(self.proposal.floored),
            "proposal/fallback": float(self.proposal.fallback),
        }
        if len(sizes):
            ages = now - table.seconds[fresh]
            values |= {
                "staleness/mean_seconds": float(np.average(ages, weights=sizes)),
                "staleness/max_seconds": float(ages.max()),
                "staleness/mean_versions": float(np.average(newest - table.versions[fresh], weights=sizes)),
            }
        self.database.put("proposal", {"step": self.step, "seconds": now, "values": values})

    def _optimizer(self, device: torch.device) -> torch.optim.Optimizer:
        """SGD whose momentum buffers are views of `self.momentum`, so that a checkpoint copies one vector."""
        settings = self.config.optimizer
        optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            fused=device.type in ("cpu", "cuda"),
        )
        offset = 0
        for parameter in self.model.parameters():
            # Zeros are what torch's own first step would start from: its buffer becomes a copy of the gradient.
            buffer = self.momentum[offset : offset + parameter.numel()].view_as(parameter)
            optimizer.state[parameter]["momentum_buffer"] = buffer
            offset += parameter.numel()
        return optimizer
