"""What the parameter server makes of the gradients that come: a step, a part of one, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from issgd_cli.actors.gradient_ages import GradientAges, factor
from issgd_cli.config.peers import Peers
from issgd_cli.database.contributions import Contribution, numbers_of
from issgd_cli.database.records import Float32s
from issgd_cli.errors import RunError

MOST_REFUSED = 50  # one after the other: then nothing else will come
MOST_NOTICES = 20


@dataclass(frozen=True)
class Descent:
    """A step to take.

    Attributes:
        gradient: To descend by, shape (T,).
        loss: Its minibatch's, weighted.
    """

    gradient: Float32s
    loss: float


class Receiving:
    """See the module.

    Attributes:
        ages: Of the gradients so far.
        round: Of a synchronous step, by peer: those that have come.
        refused: How many in a row.
        notices: What was refused and why, once each.
    """

    def __init__(self, settings: Peers, size: int, ages: GradientAges) -> None:
        """Of gradients of so many numbers, after others of these ages."""
        self.settings, self.size, self.ages = settings, size, ages
        self.round: dict[int, Contribution] = {}
        self.refused = 0
        self.notices: list[str] = []

    def descent(self, found: Contribution, newest: int) -> Descent | None:
        """What a gradient leads to; None: to no step.

        Args:
            found: It.
            newest: The newest version of the parameters.

        Raises:
            RunError: It is no gradient, as all others for long.
        """
        if wrong := self._flaw(found, newest):
            self._refuse(found, wrong)
            return None
        self.refused = 0
        age = newest - found.version
        if self.settings.mode == "synchronous":
            return self._completed(found, age)
        weight = factor(self.settings, age)
        self.ages.add(age, weight)
        if weight == 0:
            return None
        gradient = numbers_of(found.gradient)
        return Descent(gradient if weight == 1 else gradient * np.float32(weight), found.loss)

    def _completed(self, found: Contribution, age: int) -> Descent | None:
        """The synchronous step that this was the last for. An old one, or a peer's second, is left out."""
        is_one_more = age == 0 and found.peer not in self.round
        self.ages.add(age, float(is_one_more))
        if is_one_more:
            self.round[found.peer] = found
        if len(self.round) < self.settings.count:
            return None
        # In the order of the peers, so that the sum does not depend on who came first.
        ones = [self.round[peer] for peer in sorted(self.round)]
        total = numbers_of(ones[0].gradient).copy()
        for one in ones[1:]:
            total += numbers_of(one.gradient)
        self.round = {}
        return Descent(total / np.float32(len(ones)), float(np.mean([one.loss for one in ones])))

    def _flaw(self, found: Contribution, newest: int) -> str | None:
        """Why it cannot be a gradient of this run, None where it can."""
        if not 1 <= found.version <= newest:
            return f"it is of version {found.version}, which never was"
        if self.settings.mode == "synchronous" and not 0 <= found.peer < self.settings.count:
            return f"a synchronous run has peers 0 to {self.settings.count - 1} alone"
        if len(found.gradient) != self.size:
            return f"it is not of the {self.size:,} numbers that are trained"
        numbers = numbers_of(found.gradient)
        return None if np.isfinite(numbers.min()) and np.isfinite(numbers.max()) else "it is not finite"

    def _refuse(self, found: Contribution, wrong: str) -> None:
        self.ages.refused += 1
        self.refused += 1
        if self.refused >= MOST_REFUSED:
            raise RunError(
                f"{self.refused} gradients were refused one after the other, the last since {wrong}: the training has "
                "diverged, or peers compute nonsense. Lower `optimizer.learning_rate` or raise `proposal.smoothing`."
            )
        line = f"a gradient of peer {found.peer} is refused: {wrong}"
        if line not in self.notices and len(self.notices) < MOST_NOTICES:
            self.notices.append(line)

    def state(self) -> dict[str, Any]:
        """Where it is between two steps."""
        return {"ages": self.ages.state(), "refused": self.refused}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`."""
        self.ages, self.refused = GradientAges.restored(state["ages"]), int(state["refused"])
