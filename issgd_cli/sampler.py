"""Minibatches by importance for a torch DataLoader: a batch sampler that learns from the norms of one's own loop.

A DataLoader's workers load ahead of the loop, so a minibatch is drawn before the loop has told what it learned from the
ones before it. Its importance factors are therefore those of its own draw, whatever the norms have become meanwhile,
and the estimate stays unbiased.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from issgd_cli.errors import ConfigError, WeightError
from issgd_cli.methods.proposal import Proposal, proposal, usable_norms
from issgd_cli.methods.smoothing import smoothing as smoothing_rule
from issgd_cli.randomness import generator

State = dict[str, int | Tensor]

# Building a proposal costs a walk over all N, so it is built so often in an epoch unless told otherwise.
REFRESHES = 16


class Minibatch(NamedTuple):
    """What was drawn for a step.

    Attributes:
        step: Its number, from 0 over all epochs.
        indices: Of its examples in the dataset, int64, shape (B,).
        factors: What each one's loss counts for in the mean over the minibatch, float64, shape (B,): mean(omega) /
            omega[index], of the proposal that it was drawn from.
    """

    step: int
    indices: Tensor
    factors: Tensor


class ImportanceSampler(Sampler[list[int]]):
    """The `batch_sampler` of a DataLoader, and each minibatch's factors beside what the DataLoader loads.

        sampler = ImportanceSampler(len(dataset), batch_size=32)
        loader = DataLoader(dataset, batch_sampler=sampler, num_workers=4)
        for (inputs, targets), drawn in sampler.along(loader):
            ...
            sampler.update(drawn, norms)

    A pass gives ceil(N / B) minibatches, each of B examples that are drawn with replacement, in float64, in proportion
    to their smoothed norms: uniformly before a tenth of all norms is known; an example whose norm is unknown counts as
    the mean. Given the model and the norms at the draw, the expected gradient of mean(factors * losses) is the mean
    gradient over the dataset.

    A pass begins a new epoch, and forgets what workers had loaded ahead in one that was left by `break`. The first pass
    after `load_state_dict` goes on with the epoch that was under way.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        *,
        smoothing: float | str = "variance-optimal",
        refresh_every: int | None = None,
        seed: int = 0,
    ) -> None:
        """Of examples none of whose norms is known yet.

        Args:
            examples: N, the length of the dataset.
            batch_size: B.
            smoothing: What is added to each norm: a constant, "variance-optimal" or "entropy:0.9"; as
                `proposal.smoothing` of a configuration. Where it is little, an example whose norm was small and has
                grown since comes with a factor of hundreds, and may throw the training off.
            refresh_every: Steps between two looks at the norms; None: a sixteenth of an epoch.
            seed: Non-negative. Draws depend on it, on the step and on the norms; no global generator is touched.

        Raises:
            ConfigError: An option cannot be used here.
        """
        _require_whole("examples", examples, 1)
        _require_whole("batch_size", batch_size, 1)
        _require_whole("refresh_every", 1 if refresh_every is None else refresh_every, 1)
        _require_whole("seed", seed, 0)
        if smoothing == "second-moment":
            raise ConfigError("smoothing = 'second-moment' is for runs of issgd train: use 'variance-optimal'.")
        self.seed, self.batch_size, self.smoothing = seed, batch_size, smoothing_rule(smoothing)
        self.refresh_every = refresh_every or max(1, -(-examples // batch_size) // REFRESHES)
        self._proposal = Proposal.uniform(examples)
        self._norms, self._previous = np.full(examples, np.nan), np.full(examples, np.nan)  # NaN: unknown
        self._steps = self._position = 0  # handed out: over all epochs, and of the epoch under way (0 between two)
        self._ahead: deque[Minibatch] = deque()  # drawn and not handed out
        self._goes_on = self._is_along = False

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return -(-len(self._norms) // self.batch_size)

    def along(self, loader: DataLoader[Any]) -> Iterator[tuple[Any, Minibatch]]:
        """An epoch, or the rest of it, of pairs: what the DataLoader gives, and what was drawn for it.

        Raises:
            ConfigError: The DataLoader does not take its minibatches from this sampler, in their order.
        """
        if loader.batch_sampler is not self:
            raise ConfigError("This DataLoader draws otherwise: make it with batch_sampler=... of this sampler.")
        if not getattr(loader, "in_order", True):
            raise ConfigError("Minibatches get their factors in the order of their draws: take out in_order=False.")
        if not self._goes_on:
            self._position = 0
            self._ahead.clear()
        self._goes_on = False
        self._is_along = True
        try:
            passing = iter(loader)
        finally:
            self._is_along = False
        for examples in passing:
            yield examples, self._hand_out()
        self._position = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Indices of what the epoch has left, for the DataLoader of `along`."""
        return self._rest(self._is_along)

    def _rest(self, is_along: bool) -> Iterator[list[int]]:
        if not is_along:  # not in __iter__: an error there is lost in what a DataLoader of workers says of it
            raise ConfigError("Without their factors minibatches are biased: loop over sampler.along(loader).")
        for drawn in list(self._ahead):
            yield drawn.indices.tolist()
        while self._position + len(self._ahead) < len(self):
            self._ahead.append(self._draw(self._steps + len(self._ahead)))
            yield self._ahead[-1].indices.tolist()

    def _draw(self, step: int) -> Minibatch:
        if step % self.refresh_every == 0:
            self._refresh()
        return Minibatch(step, *self._proposal.draw(generator(self.seed, "draws", step), self.batch_size))

    def _refresh(self) -> None:
        known, twice = np.isfinite(self._norms), np.isfinite(self._previous)
        if known.any():
            constant = self.smoothing(self._norms[known], self._previous[twice], self._norms[twice])
            self._proposal = proposal(self._norms, known, constant, "fill")

    def _hand_out(self) -> Minibatch:
        self._steps, self._position = self._steps + 1, self._position + 1
        return self._ahead.popleft()

    def update(self, drawn: Minibatch, norms: Tensor) -> None:
        """Takes in the gradient norms of a minibatch's examples, shape (B,), for the draws to come.

        Raises:
            WeightError: A norm is negative, NaN or infinite, or there are not as many as examples.
        """
        indices, values = drawn.indices.numpy(), norms.detach().double().cpu().numpy()
        if values.shape != indices.shape:
            raise WeightError(f"The {len(indices)} examples of step {drawn.step} have norms of shape {values.shape}.")
        values = usable_norms(values, np.ones(len(indices), bool))
        self._previous[indices] = self._norms[indices]
        self._norms[indices] = values

    @property
    def steps(self) -> int:
        """How many minibatches were handed out, over all epochs."""
        return self._steps

    @property
    def weights(self) -> Tensor:
        """What the next draw is in proportion to until the norms are looked at again, float64, shape (N,)."""
        return torch.from_numpy(self._proposal.weights.copy())

    def state_dict(self) -> State:
        """What `load_state_dict` goes on from, numbers and tensors.

        Of minibatches, those that the loop was given are behind it; what workers have loaded ahead is drawn already,
        and comes first. Ask between `update` and the next minibatch.
        """
        none = torch.zeros(0, self.batch_size)
        return {
            **self._identity(),
            "steps": self._steps,
            "position": self._position,
            "norms": torch.from_numpy(self._norms.copy()),
            "previous": torch.from_numpy(self._previous.copy()),
            "weights": self.weights,
            "ahead_indices": torch.stack([each.indices for each in self._ahead]) if self._ahead else none.long(),
            "ahead_factors": torch.stack([each.factors for each in self._ahead]) if self._ahead else none.double(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict()`, to the bit: with as many workers and the same options as then.

        Raises:
            ConfigError: The state is of another dataset's length, batch size or seed.
        """
        own = self._identity()
        if other := [f"{name} {state.get(name)} for {own[name]}" for name in own if state.get(name) != own[name]]:
            raise ConfigError(f"The state is of another sampler: {', '.join(other)}. Make it as it was then.")
        self._steps, self._position = int(state["steps"]), int(state["position"])
        self._norms, self._previous = (state[name].cpu().numpy().copy() for name in ("norms", "previous"))
        self._proposal = Proposal.of(state["weights"].cpu().numpy())
        drawn = zip(state["ahead_indices"].cpu(), state["ahead_factors"].cpu(), strict=True)
        self._ahead = deque(Minibatch(self._steps + later, *each) for later, each in enumerate(drawn))
        self._goes_on = True

    def _identity(self) -> dict[str, int]:
        return {"examples": len(self._norms), "batch_size": self.batch_size, "seed": self.seed}


def _require_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} ({value!r}) must be a whole number of {least} at least.")
