"""What is counted is what runs count as their work; what is timed is this device's."""

from collections.abc import Callable

import pytest
import torch

from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import take_step
from issgd_cli.config.config import Config
from issgd_cli.config.sections import TRAINING
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.experiments.advice.costs import Cost, costs_of
from issgd_cli.methods.second_moment import SecondMoment
from issgd_cli.problem import Problem
from tests.trials import COSTS

CPU = torch.device("cpu")


def test_work_is_as_a_run_counts_it_and_seconds_are_measured(data: Prepared, configured: Callable[..., Config]) -> None:
    config = configured("proposal.method='second-moment'")
    problem, size = Problem(config, data), config.master.minibatch_size
    found = costs_of(config, problem, CPU)
    learner, examples = Learner(config, problem, CPU, None), problem.examples("train", CPU)
    take_step(learner, SecondMoment(config, len(examples), CPU), examples, size)
    assert found.norms is not None
    assert 1 + found.norms.work == pytest.approx(learner.passes / (TRAINING * size))
    assert found.scoring.work == pytest.approx(2 / 3 + found.norms.work)  # no weight gradients
    assert (found.look.work, found.larger.work) == pytest.approx((1 / 3, 1.0))
    assert min(found.step_seconds, found.scoring.seconds, found.look.seconds) > 0
    assert min(found.norms.seconds, found.larger.seconds) >= 0


def test_a_step_of_any_size_takes_what_plain_and_larger_ones_have_taken() -> None:
    costs = COSTS._replace(larger=Cost(1.0, 0.9))
    assert costs.step(1.0) == (1.0, 1.0)
    assert costs.step(2.0) == pytest.approx((2.0, 1.9))
    assert costs.step(0.5) == pytest.approx((0.5, 0.55))
    assert COSTS._replace(larger=Cost(1.0, 1.2)).step(0.5) == (0.5, 0.5)  # never less than none
