"""Whether what costs more brings more. Variances alone can't tell: noise may not be what holds a loss up."""

from dataclasses import dataclass

import numpy as np

from issgd_cli.equations.alain2015 import Float64s

HELD_UP = 0.75  # of the epoch's before: a loss that falls faster is held up by nothing
MARGIN = 0.9  # of what was to be expected: less is more than chance; both ours


@dataclass
class Trials:
    """One after the other until one succeeds; told of each epoch's mean training loss and work.

    A trial is due where the loss falls slowly. It lasts until it has done the work of a plain epoch, and succeeds if
    the loss of its last epoch is below what plain ones would have brought it to, had it gone on falling as from the
    last but one to the last. If it fails, plain epochs follow, the next time twice as many.

    Attributes:
        under_way: Whether one is, or has succeeded.
        succeeded: Whether one has: nothing is tried any more.
        before, last: Losses of the last two plain epochs in a row; 0: there was none, or nothing was left.
        work: Of the trial so far, in plain epochs.
        wait: How many plain epochs are to go by before the next.
        failed: How many trials have.
    """

    under_way: bool = False
    succeeded: bool = False
    before: float = 0.0
    last: float = 0.0
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
            self.before, self.last, self.wait = self.last, loss, max(0, self.wait - 1)
            self.under_way = promises and self.wait == 0 and 0 < HELD_UP * self.before < self.last
            self.work = 0.0
            return
        self.work += work
        if self.work >= 1:
            self.succeeded = loss < MARGIN * self.expected(work)
            if not self.succeeded:
                self.failed += 1
                self.under_way, self.before, self.last, self.wait = False, 0.0, 0.0, 2**self.failed

    def expected(self, work: float) -> float:
        """What plain epochs would have brought the loss to by the middle of the last so much work."""
        a_plain_epoch = min(1.0, self.last / self.before)
        return float(self.last * a_plain_epoch ** (0.5 + self.work - work / 2))

    def numbers(self) -> Float64s:
        """All of it, shape (7,)."""
        return np.array(list(vars(self).values()), np.float64)

    @classmethod
    def of(cls, numbers: Float64s) -> "Trials":
        """From `numbers()`.

        Raises:
            ValueError: There can be no such trials.
        """
        under_way, succeeded, before, last, work, wait, failed = numbers.tolist()
        if not np.isfinite(numbers).all() or numbers.min() < 0 or succeeded > under_way:
            raise ValueError("there can be no such trials")
        return cls(bool(under_way), bool(succeeded), before, last, work, int(wait), int(failed))
