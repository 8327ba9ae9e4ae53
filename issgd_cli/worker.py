"""A worker: keeps the table of gradient norms fresh (section 4.2). It spends its life pulling, scoring, pushing."""

from collections.abc import Generator
from itertools import cycle
from typing import Any

import numpy as np
import torch

from issgd_cli.config import Config
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Database, Split
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.examples import Examples
from issgd_cli.gradient_norms import score
from issgd_cli.models.mlp import flatten_parameters, mlp
from issgd_cli.operations import Operation

POLL_SECONDS = 0.01
FIRST_LEASE_SECONDS = 15.0  # how long a chunk is ours before we know how long one takes us
LEAST_LEASE_SECONDS = 2.0


class Worker:
    """See the module. It owns nothing: whatever it leaves unfinished is offered to others."""

    def __init__(self, config: Config, data: Prepared, database: Database, device: torch.device) -> None:
        """A worker without parameters."""
        self.config, self.database = config, database
        self.layout = database.layout()
        self.examples = {split: Examples(data, data.splits[split], device) for split in SPLITS}
        self.model = mlp(data.features, config.model.hidden, data.classes).to(device)
        self.parameters = flatten_parameters(self.model)
        self.version = 0
        self.lease = FIRST_LEASE_SECONDS

    def run(self) -> Generator[Operation]:
        """Pull the newest parameters, score some chunks, for ever (figure 1, right)."""
        turns = cycle(turns_of_splits(self.config.worker.shares))
        while self.database.get("finished") is None and self.database.get("stop") is None:
            yield from self._pull()
            for _ in range(self.config.worker.pull_every_chunks):
                chunk = self.database.claim(self.version, next(turns), self.lease)
                if chunk is None:  # all is scored at this version, or there is none yet
                    yield Operation("wait", self.version, seconds=POLL_SECONDS)
                    break
                yield from self._score(chunk)

    def _pull(self) -> Generator[Operation]:
        newest = self.database.newest()
        if newest is None or newest.version == self.version:
            return
        yield Operation("pull", newest.version, bytes=4 * self.parameters.numel())
        if found := self.database.parameters():
            published, parameters = found
            self.parameters.copy_(torch.from_numpy(parameters))
            self.version = published.version

    def _score(self, chunk: Chunk) -> Generator[Operation]:
        started = self.database.seconds()
        span = self.layout.span(chunk.split, chunk.number)
        yield Operation("score", self.version, examples=span.stop - span.start)
        scores = self.score(chunk)
        yield Operation("push", self.version, bytes=sum(array.nbytes for array in scores[:3]))
        self.database.push(chunk, self.version, scores)
        self.lease = max(LEAST_LEASE_SECONDS, 4 * (self.database.seconds() - started))

    def score(self, chunk: Chunk) -> ChunkScores:
        """Losses, errors and gradient norms of a chunk at this worker's parameters."""
        inputs, labels = self.examples[chunk.split][self.layout.span(chunk.split, chunk.number)]
        with_gradient = chunk.split == "train" and self._gives_gradient(chunk.number)
        scores = score(self.model, inputs, labels, with_gradient)
        norm2 = None
        if scores.gradient is not None:
            norm2 = float(scores.gradient.square().sum(dtype=torch.float64)) / len(labels) ** 2
        return ChunkScores(
            scores.norms.cpu().numpy(),
            scores.losses.cpu().numpy(),
            scores.errors.cpu().numpy().astype(np.uint8),
            norm2,
        )

    def _gives_gradient(self, chunk: int) -> bool:
        """One chunk in twenty, another at each version, also gives ||g_B||^2; of fewer chunks, one at each version."""
        every = min(self.config.worker.gradient_every_chunks, self.layout.chunks("train"))
        return chunk % every == self.version % every

    def stop(self) -> None:
        """Nothing to save."""

    def status(self) -> dict[str, Any]:
        """The version it works at."""
        return {"version": self.version}


def turns_of_splits(shares: tuple[int, int, int]) -> list[Split]:
    """Whose turn it is in one round, the rarer splits spread evenly among the others.

    Args:
        shares: train : valid : test, for instance (20, 1, 1).
    """
    places = [
        ((number + 0.5) / share, split) for split, share in zip(SPLITS, shares, strict=True) for number in range(share)
    ]
    return [split for _, split in sorted(places)]
