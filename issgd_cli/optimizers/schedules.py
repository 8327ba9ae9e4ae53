"""The learning rate of a step: a function of the step alone, so that a run goes on from anywhere."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


def learning_rate(config: "Config", step: int) -> float:
    """Of the step that comes after so many others.

    The first `warmup_steps` steps rise linearly to what the schedule says: (step + 1) / warmup_steps of it.
    """
    schedule, base = config.optimizer.schedule, config.optimizer.learning_rate
    rate = base * schedule.factor ** sum(step >= milestone for milestone in schedule.milestones)
    if schedule.kind == "cosine":
        end = schedule.over_steps or config.master.steps or 1
        done = min(1.0, step / end)
        rate = base * (schedule.final_fraction + (1 - schedule.final_fraction) * (1 + math.cos(math.pi * done)) / 2)
    return rate * min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else rate
