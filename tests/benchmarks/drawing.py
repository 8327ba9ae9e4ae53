"""The master's draws: a minibatch of 128 of N, with what 32 of them need to be prepared spread over the 32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from issgd_cli.methods.proposal import Proposal
from issgd_cli.randomness import generator
from tests.benchmarks import stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles, interleaved

PATH = "master: drawing a minibatch"
EXACTNESS = "draws: exactness"
OURS = "issgd"
BAR_MS = 0.1
PER_REFRESH = 32
TORCH_LIMIT = 2**24  # torch.multinomial refuses more weights


def rows(scale: Scale) -> list[Row]:
    """Draws of the scale's N and of its largest."""
    return [row for examples in (scale.examples, scale.many[-1]) for row in _of(scale, examples)]


def _of(scale: Scale, examples: int) -> list[Row]:
    omega = stage.norms_of(stage.layout(scale, examples)) + 1.0
    size = scale.batches[0]
    timings = interleaved(_candidates(omega, size), scale.repeats)
    found = [
        Row(
            PATH,
            name,
            f"{size} of {examples:,}",
            timings.seconds(name).times(1e3 / PER_REFRESH),
            "ms",
            bar=BAR_MS if name == OURS and examples == scale.examples else None,
            note="" if name == OURS else f"{PER_REFRESH} minibatches at once, which suits it best",
        )
        for name in timings.rounds
    ]
    return [*found, *_exactness(omega)]


def _candidates(omega: np.ndarray[Any, np.dtype[np.float64]], size: int) -> dict[str, Callable[[], Any]]:
    as_float32 = torch.from_numpy(omega).float()
    random, torch_random = np.random.default_rng(0), torch.Generator().manual_seed(0)
    weights: Any = torch.from_numpy(omega)  # a list, which the sampler asks for, would be turned into this again
    count = PER_REFRESH * size

    def ours() -> None:
        draws = Proposal.of(omega)
        for step in range(PER_REFRESH):
            draws.draw(generator(0, "draws", step), size)

    def sampler() -> None:
        list(torch.utils.data.WeightedRandomSampler(weights, count, generator=torch_random))

    return {
        OURS: ours,
        "torch.multinomial": lambda: torch.multinomial(as_float32, count, replacement=True, generator=torch_random),
        "numpy choice(p)": lambda: random.choice(len(omega), count, p=omega / omega.sum()),
        "WeightedRandomSampler": sampler,
    }


def _exactness(omega: np.ndarray[Any, np.dtype[np.float64]]) -> list[Row]:
    """By how much the probabilities that are really drawn with are off, and how many are zero, in both precisions."""
    found = []
    for name, dtype in ((OURS, np.float64), ("float32 cumulative sums", np.float32)):
        cumulative = Proposal.of(omega).searched[0].numpy() if dtype is np.float64 else np.cumsum(omega.astype(dtype))
        drawn = np.diff(cumulative.astype(np.float64), prepend=0.0)
        drawn /= drawn.sum()
        off = float(np.abs(drawn / (omega / omega.sum()) - 1).max())
        size = f"N = {len(omega):,}"
        found += [
            Row(EXACTNESS, name, size, Quartiles.exactly(off), "largest relative error of a probability"),
            Row(EXACTNESS, name, size, Quartiles.exactly(int((drawn <= 0).sum())), "examples never drawn"),
        ]
    return found
