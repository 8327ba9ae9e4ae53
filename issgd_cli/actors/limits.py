"""When a run's training is over: by its steps, its seconds, or its work, of which others may do a part."""

from issgd_cli.actors.learner import Learner
from issgd_cli.config.config import Config
from issgd_cli.database import Database
from issgd_cli.scores.cost import IN_PASSES


class Limits:
    """See the module.

    Attributes:
        elsewhere: The run's passes (scores/cost.py) but for those that its learner has counted in this life, as last
            told: others', and its own of earlier lives.
    """

    def __init__(self, config: Config, learner: Learner, elsewhere: float = 0.0) -> None:
        """Of the run that this learner is of."""
        self.of, self.learner, self.elsewhere = config.master, learner, elsewhere

    @property
    def passes(self) -> float:
        """Of the run so far: the learner's to the step, others' as last told."""
        return self.elsewhere + self.learner.passes

    def hear(self, database: Database) -> None:
        """Of others' work."""
        counted = database.get("work") or {}
        self.elsewhere = sum(of.get(IN_PASSES, 0.0) for life, of in counted.items() if not life.startswith("master:"))

    def are_reached(self) -> bool:
        """Whether all steps are taken, or all work is done."""
        most = self.of.most_passes
        return self.learner.step == self.of.steps or (most is not None and self.passes >= most)

    def are_over(self, seconds: float) -> bool:
        """The same, or whether time is up, but in exact mode, which depends on no clock."""
        late = self.of.mode == "relaxed" and self.of.seconds is not None and seconds >= self.of.seconds
        return late or self.are_reached()
