"""Minibatches by importance for a training loop of one's own: a torch DataLoader that learns from the loop's norms.

Its workers load ahead of the loop, so a minibatch is drawn before the loop has told what it learned from the ones
before it. Its importance factors are therefore those of its own draw, whatever the norms have become meanwhile, and
the estimate stays unbiased.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from issgd_cli.errors import ConfigError, WeightError
from issgd_cli.methods.proposal import Proposal, proposal, usable_norms
from issgd_cli.methods.smoothing import smoothing as smoothing_rule
from issgd_cli.randomness import generator

State = dict[str, int | Tensor]

# Building a proposal costs a walk over all N, so it is built so often in an epoch unless told otherwise.
REFRESHES = 16
OURS = ("sampler", "batch_sampler", "shuffle", "drop_last")


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


class ImportanceLoader:
    """What `DataLoader(dataset, batch_size, shuffle=True)` is to plain SGD.

    A pass over it gives ceil(N / B) pairs (what the dataset's collated examples are, Minibatch), each of B examples
    that are drawn with replacement, in float64, in proportion to their smoothed norms: uniformly before a tenth of all
    norms is known; an example whose norm is unknown counts as the mean. Given the model and the norms at the draw, the
    expected gradient of mean(factors * losses) is the mean gradient over the dataset.

    A pass begins a new epoch, and forgets what workers had loaded ahead in one that was left by `break`. The first pass
    after `load_state_dict` goes on with the epoch that was under way.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int,
        *,
        smoothing: float | str = "variance-optimal",
        refresh_every: int | None = None,
        seed: int = 0,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        **options: Any,
    ) -> None:
        """Of N examples, none of whose norms is known yet.

        Args:
            dataset: With a length, and an example for each index below it.
            batch_size: B.
            smoothing: What is added to each norm: a constant, "variance-optimal" or "entropy:0.9"; as
                `proposal.smoothing` of a configuration. Where it is little, an example whose norm was small and has
                grown since comes with a factor of hundreds, and may throw the training off.
            refresh_every: Steps between two looks at the norms; None: a sixteenth of an epoch.
            seed: Non-negative. Draws depend on it, on the step and on the norms; no global generator is touched.
            collate_fn: As of a DataLoader.
            options: All other options of a DataLoader: num_workers, pin_memory, persistent_workers and so on.

        Raises:
            ConfigError: An option cannot be used here.
        """
        if clash := [name for name in OURS if name in options]:
            raise ConfigError(f"ImportanceLoader draws its minibatches itself: take out {', '.join(clash)}.")
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) == 0:
            raise ConfigError(
                f"{type(dataset).__name__} has no examples that could be drawn by their index: use a dataset with "
                "__getitem__ and a positive __len__, not a stream."
            )
        _require_whole("batch_size", batch_size, 1)
        _require_whole("refresh_every", 1 if refresh_every is None else refresh_every, 1)
        _require_whole("seed", seed, 0)
        if smoothing == "second-moment":
            raise ConfigError("smoothing = 'second-moment' is for runs of issgd train: use 'variance-optimal'.")
        self.dataset = dataset
        self._draws = _Draws(len(dataset), batch_size, smoothing, refresh_every, seed)
        # With a generator of its own, a DataLoader leaves the global one alone.
        self._seeds = options.setdefault("generator", torch.Generator())
        source = _Minibatches(dataset, collate_fn)
        self._loader = DataLoader(source, batch_size=None, sampler=self._draws, collate_fn=_as_it_is, **options)

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return len(self._draws)

    def __iter__(self) -> Iterator[tuple[Any, Minibatch]]:
        """An epoch, or the rest of it: see the class."""
        self._draws.begin()
        self._seeds.manual_seed(int(generator(self._draws.seed, "loader_workers", self._draws.steps).integers(2**63)))
        for step, examples in self._loader:
            yield examples, self._draws.hand_out(step)
        self._draws.end()

    def update(self, drawn: Minibatch, norms: Tensor) -> None:
        """Takes in the gradient norms of a minibatch's examples, shape (B,), for the draws to come.

        Raises:
            WeightError: A norm is negative, NaN or infinite, or there are not as many as examples.
        """
        self._draws.learn(drawn, norms)

    @property
    def weights(self) -> Tensor:
        """What the next draw is in proportion to until the norms are looked at again, float64, shape (N,)."""
        return torch.from_numpy(self._draws.proposal.weights.copy())

    def state_dict(self) -> State:
        """What `load_state_dict` goes on from, numbers and tensors.

        Of minibatches, those that the loop was given are behind it; what workers have loaded ahead is drawn already,
        and comes first. Ask between `update` and the next minibatch.
        """
        return self._draws.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict()`: to the bit, with as many workers and the same options as then.

        Raises:
            ConfigError: The state is of another dataset's length, batch size or seed.
        """
        self._draws.restore(state)


def _require_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} ({value!r}) must be a whole number of {least} at least.")


class _Draws:
    """Which examples come when: a sampler for a DataLoader, which draws ahead, and what was handed out of these.

    Attributes:
        seed: See ImportanceLoader.
        proposal: In force.
        steps: One more than the last step whose minibatch the loop was given.
        position: How many it was given in the epoch under way; 0 between epochs.
        ahead: Those that are drawn and not handed out, by their step, in order.
    """

    def __init__(self, examples: int, size: int, smoothing: float | str, refresh_every: int | None, seed: int) -> None:
        self.seed, self.size, self.smoothing = seed, size, smoothing_rule(smoothing)
        self.refresh_every = refresh_every or max(1, -(-examples // size) // REFRESHES)
        self.proposal = Proposal.uniform(examples)
        self.norms, self.previous = np.full(examples, np.nan), np.full(examples, np.nan)  # NaN: unknown
        self.steps = self.position = 0
        self.ahead: dict[int, Minibatch] = {}
        self.goes_on = False

    def __len__(self) -> int:
        return -(-len(self.norms) // self.size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Steps and indices of what the epoch has left."""
        yield from [(drawn.step, drawn.indices.tolist()) for drawn in self.ahead.values()]
        while self.position + len(self.ahead) < len(self):
            drawn = self._draw(max([self.steps, *(step + 1 for step in self.ahead)]))
            self.ahead[drawn.step] = drawn
            yield drawn.step, drawn.indices.tolist()

    def _draw(self, step: int) -> Minibatch:
        if step % self.refresh_every == 0:
            self._refresh()
        return Minibatch(step, *self.proposal.draw(generator(self.seed, "draws", step), self.size))

    def _refresh(self) -> None:
        known, twice = np.isfinite(self.norms), np.isfinite(self.previous)
        if known.any():
            constant = self.smoothing(self.norms[known], self.previous[twice], self.norms[twice])
            self.proposal = proposal(self.norms, known, constant, "fill")

    def begin(self) -> None:
        """A new epoch, unless it was told to go on with one."""
        if not self.goes_on:
            self.position, self.ahead = 0, {}
        self.goes_on = False

    def hand_out(self, step: int) -> Minibatch:
        """What was drawn for the step, whose examples the loop is given now."""
        self.steps, self.position = max(self.steps, step + 1), self.position + 1
        return self.ahead.pop(step)

    def end(self) -> None:
        """Between epochs."""
        self.position = 0

    def learn(self, drawn: Minibatch, norms: Tensor) -> None:
        indices, values = drawn.indices.numpy(), norms.detach().double().cpu().numpy()
        if values.shape != indices.shape:
            raise WeightError(f"The {len(indices)} examples of step {drawn.step} have norms of shape {values.shape}.")
        values = usable_norms(values, np.ones(len(indices), bool))
        self.previous[indices] = self.norms[indices]
        self.norms[indices] = values

    def state(self) -> State:
        ahead = list(self.ahead.values())
        none = torch.zeros(0, self.size)
        return {
            **self._identity(),
            "steps": self.steps,
            "position": self.position,
            "norms": torch.from_numpy(self.norms.copy()),
            "previous": torch.from_numpy(self.previous.copy()),
            "weights": torch.from_numpy(self.proposal.weights.copy()),
            "ahead_steps": torch.tensor([drawn.step for drawn in ahead], dtype=torch.int64),
            "ahead_indices": torch.stack([drawn.indices for drawn in ahead]) if ahead else none.long(),
            "ahead_factors": torch.stack([drawn.factors for drawn in ahead]) if ahead else none.double(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        own = self._identity()
        if other := [f"{name} {state.get(name)} for {own[name]}" for name in own if state.get(name) != own[name]]:
            raise ConfigError(f"The state is of another loader: {', '.join(other)}. Make the loader as it was then.")
        self.steps, self.position = int(state["steps"]), int(state["position"])
        self.norms, self.previous = (state[name].cpu().numpy().copy() for name in ("norms", "previous"))
        self.proposal = Proposal.of(state["weights"].cpu().numpy())
        columns = (state[f"ahead_{name}"].cpu() for name in ("steps", "indices", "factors"))
        drawn = [Minibatch(int(step), *rest) for step, *rest in zip(*columns, strict=True)]
        self.ahead = {each.step: each for each in drawn}
        self.goes_on = True

    def _identity(self) -> dict[str, int]:
        return {"examples": len(self.norms), "batch_size": self.size, "seed": self.seed}


class _Minibatches(Dataset[tuple[int, Any]]):
    """The minibatch of a step, with the step: workers may give minibatches back in any order."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, key: tuple[int, list[int]]) -> tuple[int, Any]:
        step, indices = key
        if hasattr(self.dataset, "__getitems__"):  # some load many at once faster; torch asks them so, too
            return step, self.collate(self.dataset.__getitems__(indices))
        return step, self.collate([self.dataset[index] for index in indices])


def _as_it_is(loaded: Any) -> Any:
    return loaded
