"""Whether what costs more brings more. Variances alone can't tell: noise may not be what holds a loss up."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from issgd_cli.equations.alain2015 import Float64s

PLAIN = 4  # epochs in a row that a trial is held against
HELD_UP = 0.75  # of the epoch's before: a loss that falls faster is held up by nothing
# Of what was to be expected; ours, as are the others. How often chance is taken for success, in 1,500 simulated runs
# of 26 epochs whose looks are worth their work and no more, one loss in twenty a spike of three times it: where losses
# fall by 3% an epoch, in 3.5% of runs with 5% of noise, in 14% with 10% (with a margin of 0.9 in 20% and 31%); where
# they fall by 10%, in 30% and 52%. Such a success is for good, and costs nothing as long as looks are worth their work.
MARGIN = 0.85


@dataclass
class Trials:
    """One after the other until one succeeds; told of each epoch's mean training loss and work.

    A trial is due where the loss has fallen slowly for four plain epochs. It lasts until it has done the work of a
    plain epoch, and succeeds if the loss of its last epoch is well below both what plain ones would have brought it to,
    had it gone on as from the first two of the four to the last two, and the lowest that it has been. If it fails,
    plain epochs follow, each time twice as many but never fewer than four: 4, 4, 8, 16.

    Attributes:
        under_way: Whether one is, or has succeeded.
        succeeded: Whether one has: nothing is tried any more.
        losses: Of the last plain epochs in a row, the newest last; 0: there was none, or nothing was left to learn.
        lowest: Of all plain epochs that were above 0; infinite: there was none.
        work: Of the trial so far, in plain epochs.
        wait: How many plain epochs are to go by before the next.
        failed: How many trials have.
    """

    under_way: bool = False
    succeeded: bool = False
    losses: Float64s = field(default_factory=lambda: np.zeros(PLAIN))
    lowest: float = np.inf
    work: float = 0.0
    wait: int = 0
    failed: int = 0

    def epoch_over(self, loss: float, work: float, promises: bool) -> None:
        """An epoch has been.

        Args:
            loss: Its mean over all examples, each as it was when its turn came.
            work: In plain epochs'.
            promises: Whether a trial is worth while, by what variances say.
        """
        if self.succeeded:
            return
        loss = max(0.0, loss)  # of one that can be negative it isn't known how far it is from its end
        if not self.under_way:
            self.losses = np.append(self.losses[1:], loss)
            self.lowest = min(self.lowest, loss or np.inf)
            self.wait, self.work = max(0, self.wait - 1), 0.0
            known = bool(self.losses.min() > 0)
            self.under_way = promises and known and self.wait == 0 and self.fall > HELD_UP
            return
        self.work += work
        if self.work >= 1:
            self.succeeded = loss < MARGIN * min(self.expected(work), self.lowest)
            if not self.succeeded:
                self.failed += 1
                self.under_way, self.losses, self.wait = False, np.zeros(PLAIN), 2**self.failed

    @property
    def fall(self) -> float:
        """What a plain epoch leaves of the loss: by the last two, and the two before, whose middles lie two apart."""
        early, late = np.exp(np.log(self.losses).reshape(2, 2).mean(1))
        return float(np.sqrt(late / early))

    def expected(self, work: float) -> float:
        """What plain epochs would have brought the loss to by the middle of the last so much work."""
        late = np.exp(np.log(self.losses[2:]).mean())  # one epoch before the trial, in the middle
        return float(late * min(1.0, self.fall) ** (1 + self.work - work / 2))

    def numbers(self) -> Float64s:
        """All of it, shape (10,), finite: the lowest is 0 before there is one."""
        lowest = 0.0 if np.isinf(self.lowest) else self.lowest
        return np.array([self.under_way, self.succeeded, lowest, self.work, self.wait, self.failed, *self.losses])

    @classmethod
    def of(cls, numbers: NDArray[np.float64]) -> "Trials":
        """From `numbers()`.

        Raises:
            ValueError: There can be no such trials.
        """
        under_way, succeeded, lowest, work, wait, failed, *losses = numbers.tolist()
        tries = under_way > succeeded
        if not np.isfinite(numbers).all() or numbers.min() < 0 or succeeded > under_way or (tries and not min(losses)):
            raise ValueError("there can be no such trials")
        known = np.array(losses), lowest or np.inf
        return cls(bool(under_way), bool(succeeded), *known, work, int(wait), int(failed))
