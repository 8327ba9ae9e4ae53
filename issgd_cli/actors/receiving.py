"""What the parameter server makes of the gradients that come: a step, a part of one, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from issgd_cli.actors.gradient_ages import GradientAges, factor
from issgd_cli.config.peers import Peers
from issgd_cli.database.contributions import Contribution, numbers_of
from issgd_cli.database.records import Float32s
from issgd_cli.errors import RunError

MOST_REFUSED = 50  # of one peer, one after the other: then nothing else will come of it
LATELY_SECONDS = 300.0  # who has not been heard of for longer may be gone
MOST_PEERS = 4096  # that are remembered: a run has 1,024, and whoever writes gradients names himself
MOST_NOTICES = 50
LESS = "Lower `optimizer.learning_rate`."


@dataclass(frozen=True)
class Descent:
    """A step to take.

    Attributes:
        gradient: To descend by, shape (T,).
        loss: Its minibatch's, weighted.
    """

    gradient: Float32s
    loss: float


class Heard(NamedTuple):
    """Of a peer: since its last gradient that was taken, how many were refused; and when one came last."""

    refused: int
    seconds: float


class Receiving:
    """See the module.

    Attributes:
        first: The first version of the parameters in this life of the run: all from it to the newest have been.
        ages: Of the gradients so far.
        round: Of a synchronous step, by peer: those that have come.
        heard: By peer, who was heard of last at the end.
        told: What was refused, by peer and why: a line each, so that no peer hides what another does.
    """

    def __init__(self, settings: Peers, size: int, ages: GradientAges, first: int = 1) -> None:
        """Of gradients of so many numbers, after others of these ages, in a life that begins with this version."""
        self.settings, self.size, self.ages, self.first = settings, size, ages, first
        self.round: dict[int, Contribution] = {}
        self.heard: dict[int, Heard] = {}
        self.told: dict[tuple[int, str], str] = {}

    @property
    def notices(self) -> list[str]:
        """What was refused and why, for people."""
        lines = [*self.told.values()]
        more = len(lines) - MOST_NOTICES
        return lines[:MOST_NOTICES] + ([f"and {more} more such gradients, of other peers"] if more > 0 else [])

    def descent(self, found: Contribution, newest: int, now: float) -> Descent | None:
        """What a gradient leads to; None: to no step.

        Args:
            found: It.
            newest: The newest version of the parameters.
            now: Seconds, by the run's clock.

        Raises:
            RunError: It is no gradient, and a synchronous step waits for it, or for long no peer has handed over one.
        """
        wrong = self._flaw(found, newest)
        before = self.heard.pop(found.peer, Heard(0, now))
        self.heard[found.peer] = Heard(before.refused + 1 if wrong else 0, now)
        if len(self.heard) > MOST_PEERS:
            del self.heard[next(iter(self.heard))]
        age = newest - found.version
        if wrong:
            self._refuse(found, *wrong)
            if (
                self.settings.mode == "synchronous"
                and wrong[0] in ("length", "value")
                and age == 0
                and found.peer not in self.round
            ):
                raise RunError(  # whoever computes it again draws the same minibatch
                    f"A gradient of peer {found.peer}, which a synchronous step waits for, is refused: {wrong[1]}. The "
                    f"training has diverged, or that peer computes nonsense. {LESS}"
                )
            return None
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

    def _flaw(self, found: Contribution, newest: int) -> tuple[str, str] | None:
        """Why it cannot be a gradient of this run, in a word and in full; None where it can."""
        if not self.first <= found.version <= newest:
            return "version", f"it is of version {found.version}, which never was in this life of the run"
        if self.settings.mode == "synchronous" and not 0 <= found.peer < self.settings.count:
            return "peer", f"a synchronous run has peers 0 to {self.settings.count - 1} alone"
        if len(found.gradient) != self.size:
            return "length", f"it is not of the {self.size:,} numbers that are trained"
        numbers = numbers_of(found.gradient)
        if np.isfinite(numbers.min()) and np.isfinite(numbers.max()):
            return None
        return "value", "it is not finite"

    def _refuse(self, found: Contribution, word: str, wrong: str) -> None:
        """Tells of it.

        Raises:
            RunError: For long nothing else has come, of no peer that is still there.
        """
        self.ages.refused += 1
        peer, (refused, now) = found.peer, self.heard[found.peer]
        lately = [one.refused for one in self.heard.values() if now - one.seconds <= LATELY_SECONDS]
        if refused >= MOST_REFUSED and min(lately) > 0:
            raise RunError(
                f"{refused} gradients of peer {peer} were refused one after the other, this one since {wrong}, and the "
                f"last of every peer lately ({len(lately)}): the training has diverged, or peers compute nonsense. "
                f"{LESS}"
            )
        self._tell(peer, word, f"a gradient of peer {peer} is refused: {wrong}")
        if refused >= MOST_REFUSED:
            self._tell(peer, "all", f"{MOST_REFUSED} gradients of peer {peer} were refused in a row: end it")

    def _tell(self, peer: int, word: str, line: str) -> None:
        if len(self.told) < MOST_PEERS:
            self.told.setdefault((peer, word), line)

    def state(self) -> dict[str, Any]:
        """Where it is between two steps: shapes (peers,)."""
        heard = {
            "peers": [*self.heard],
            "refused": [one.refused for one in self.heard.values()],
            "seconds": [one.seconds for one in self.heard.values()],
        }
        return {"ages": self.ages.state(), "first": self.first, "heard": heard}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`."""
        self.ages, self.first = GradientAges.restored(state["ages"]), int(state["first"])
        peers, refused, seconds = (state["heard"][name] for name in ("peers", "refused", "seconds"))
        self.heard = {
            int(peer): Heard(int(count), float(last)) for peer, count, last in zip(peers, refused, seconds, strict=True)
        }
