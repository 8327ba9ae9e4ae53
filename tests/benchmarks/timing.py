"""Interleaved, paired timing: candidates take turns in one process, so that a machine's moods touch them all alike."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

REPEATS = 15
CALLS = {"cuda": 10, "cpu": 1}  # between two looks at the clock: like training it lets a GPU fall behind the program


class Quartiles(NamedTuple):
    """First quartile, median and third quartile."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Quartiles":
        """Of some measurements, shape (n,)."""
        lower, median, upper = np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75]).tolist()
        return cls(lower, median, upper)

    @classmethod
    def exactly(cls, value: float) -> "Quartiles":
        """Of something that is computed or measured once."""
        return cls(value, value, value)

    def times(self, factor: float) -> "Quartiles":
        """In another unit."""
        return Quartiles(*(factor * value for value in self))


@dataclass(frozen=True)
class Timings:
    """How long each candidate took in each round: seconds, shape (rounds,)."""

    rounds: Mapping[str, NDArray[np.float64]]

    def seconds(self, name: str) -> Quartiles:
        """Of one candidate."""
        return Quartiles.of(self.rounds[name])

    def ratios(self, name: str, reference: str) -> Quartiles:
        """Of a candidate's seconds to the reference's in the same round."""
        return Quartiles.of(self.rounds[name] / self.rounds[reference])

    def fastest(self, *names: str) -> str:
        """Which of these has the smallest median."""
        return min(names, key=lambda name: self.seconds(name).median)

    def summed(self, **sums: Mapping[str, float]) -> "Timings":
        """The same and, by these names, weighted sums of candidates: a step and 1/32 of what every 32nd step adds."""
        added = {
            name: sum((weight * self.rounds[part] for part, weight in parts.items()), np.zeros(1))
            for name, parts in sums.items()
        }
        return Timings({**self.rounds, **added})


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int = REPEATS,
    warm_up: int = 2,
    device: torch.device | str = "cpu",
    calls: int = 1,
) -> Timings:
    """Times the candidates in turn, on one torch thread and with the garbage collector at rest.

    The order is drawn anew in every round (from a fixed seed): none always finds the caches as the same other left
    them.

    Args:
        candidates: What to call, by name.
        repeats: Rounds that count.
        warm_up: Rounds before them that don't.
        device: Which calls are waited for, where they return before it is done.
        calls: Of a candidate in its turn; all seconds are of one call.
    """
    synchronize: Callable[[], None] = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = np.random.default_rng(0)
    with quiet():
        for round_ in range(-warm_up, repeats):
            for name in order.permutation(list(candidates)):
                synchronize()
                start = time.perf_counter()
                for _ in range(calls):
                    candidates[name]()
                synchronize()
                elapsed = (time.perf_counter() - start) / calls
                if round_ >= 0:
                    seconds[name].append(elapsed)
    return Timings({name: np.array(values) for name, values in seconds.items()})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, torch has one thread, and the garbage collector rests."""
    threads, collects = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collects:
            gc.enable()
