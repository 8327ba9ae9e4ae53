"""A torch DataLoader by importance, in one call: what a loop over a shuffled DataLoader changes to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from issgd_cli.errors import ConfigError
from issgd_cli.randomness import generator
from issgd_cli.sampler import ImportanceSampler, Minibatch, State

OURS = ("sampler", "batch_sampler", "shuffle", "drop_last")


class ImportanceLoader:
    """What `DataLoader(dataset, batch_size, shuffle=True)` is to plain SGD: a DataLoader and its ImportanceSampler.

    A pass over it is an epoch of pairs (what the dataset's collated examples are, Minibatch): see ImportanceSampler.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int,
        *,
        smoothing: float | str = "variance-optimal",
        refresh_every: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Of N examples, none of whose norms is known yet.

        Args:
            dataset: With a length, and an example for each index below it.
            batch_size: B.
            smoothing: See ImportanceSampler, as for the two that follow.
            refresh_every: See there.
            seed: See there. Workers' own generators depend on it, too.
            options: All other options of a DataLoader: num_workers, collate_fn, pin_memory and so on.

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
        self.dataset = dataset
        self.sampler = ImportanceSampler(
            len(dataset), batch_size, smoothing=smoothing, refresh_every=refresh_every, seed=seed
        )
        # With a generator of its own, a DataLoader leaves the global one alone.
        self._seeds = options["generator"] = options.get("generator") or torch.Generator()
        source: Any = dataset  # a sequence is as good as a Dataset to torch, and not to its annotations
        self._loader: DataLoader[Any] = DataLoader(source, batch_sampler=self.sampler, **options)

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Any, Minibatch]]:
        """An epoch, or the rest of it: see the class."""
        key = generator(self.sampler.seed, "loader_workers", self.sampler.steps)
        self._seeds.manual_seed(int(key.integers(2**63)))
        return self.sampler.along(self._loader)

    def update(self, drawn: Minibatch, norms: Tensor) -> None:
        """See ImportanceSampler.update."""
        self.sampler.update(drawn, norms)

    @property
    def weights(self) -> Tensor:
        """See ImportanceSampler.weights."""
        return self.sampler.weights

    def state_dict(self) -> State:
        """See ImportanceSampler.state_dict."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ImportanceSampler.load_state_dict."""
        self.sampler.load_state_dict(state)
