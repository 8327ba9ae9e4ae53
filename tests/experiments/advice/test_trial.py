"""A trial on a tiny problem: what it measures and when, against scores of all examples."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import take_step
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.experiments.advice import trial
from issgd_cli.experiments.advice.trial import Trial
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.problem import Problem
from issgd_cli.scores import score
from tests.trials import COSTS

CPU = torch.device("cpu")

Configured = Callable[..., Config]


def tried(config: Config, data: Prepared, sample: int = 1000, steps: int = 24) -> Trial:
    return trial.run(config, Problem(config, data), CPU, steps, sample, COSTS, lambda step: None)


def test_moments_are_in_the_middle_of_equal_parts_and_ages_are_powers() -> None:
    assert trial.moments_of(1200) == (100, 300, 500, 700, 900, 1100)
    assert trial.ages_at(1) == [1]
    assert trial.ages_at(63) == [1, 4, 16]
    assert trial.ages_at(64) == [1, 4, 16, 64]
    with pytest.raises(ConfigError, match="12 steps or more"):
        trial.moments_of(11)


def test_of_all_examples_the_measures_are_exact(data: Prepared, configured: Configured) -> None:
    config = configured()
    found = tried(config, data)
    assert found.moments == (2, 6, 10, 14, 18, 22)
    assert set(found.measures) == set(found.quieter) == {0, *found.moments, 1, 5, 9, 13, 17, 21, 6, 14, 10, 18, 2}
    problem = Problem(config, data)
    learner, examples = Learner(config, problem, CPU, None), problem.examples("train", CPU)
    method = Reshuffled(config, len(examples), CPU)
    for _ in range(9):
        take_step(learner, method, examples, config.master.minibatch_size)
    scores = score(problem.loss, learner.model.eval(), *examples[slice(0, len(examples))], with_gradient=True)
    measure = found.measures[9]
    np.testing.assert_allclose(measure.norms, scores.norms.numpy(), rtol=1e-4)
    assert measure.loss == pytest.approx(float(scores.losses.mean()), rel=1e-5)
    assert scores.gradient is not None
    assert measure.gradient_norm2 == pytest.approx(float((scores.gradient / len(examples)).square().sum()), rel=1e-3)
    assert 0 < measure.gradient_norm2 < measure.norms.mean() ** 2
    assert measure.output_norms.min() > 0


def test_the_second_run_has_minibatches_twice_as_large_and_all_else_the_same(
    data: Prepared, configured: Configured
) -> None:
    config = configured()
    found, problem = tried(config, data), Problem(config, data)
    assert found.quieter[0] == pytest.approx(found.measures[0].loss, rel=1e-6)
    learner, examples = Learner(config, problem, CPU, None), problem.examples("train", CPU)
    for _ in range(9):
        take_step(learner, Reshuffled(config, len(examples), CPU), examples, 2 * config.master.minibatch_size)
    seen = learner.look(*examples[slice(0, len(examples))])
    assert found.quieter[9] == pytest.approx(float(seen.losses.mean()), rel=1e-5)


def test_a_sample_is_random_and_the_same_throughout(data: Prepared, configured: Configured) -> None:
    whole, some, again = (tried(configured(), data, sample) for sample in (1000, 40, 40))
    other = tried(configured("seed=1"), data, 40)
    for step, measure in some.measures.items():
        assert len(measure.norms) == 40
        np.testing.assert_array_equal(measure.norms, again.measures[step].norms)
        near = np.isclose(measure.norms[:, None], whole.measures[step].norms[None], rtol=1e-4)
        assert near.any(1).all()  # each is one of all
        assert 0 <= measure.gradient_norm2 <= measure.norms.mean() ** 2
    assert not np.array_equal(some.measures[22].norms, other.measures[22].norms)


def test_the_run_that_is_planned_is_at_least_as_long_as_its_trial(data: Prepared, configured: Configured) -> None:
    assert tried(configured("master.steps=500"), data).planned == 500
    assert tried(configured("master.steps=20"), data).planned == 24
    worked = configured("master.minibatch_size=20")
    worked = worked.model_copy(update={"master": worked.master.model_copy(update={"steps": None, "work": 3000.0})})
    assert tried(worked, data).planned == 150  # as all of a scoreboard's


def test_a_run_that_diverges_is_refused(data: Prepared, configured: Configured) -> None:
    with pytest.raises(RunError, match="has diverged"):
        tried(configured("optimizer.learning_rate=1e30"), data)


def test_a_trial_is_as_long_as_fits_and_no_longer_than_what_is_planned(configured: Configured) -> None:
    config = configured("master.steps=100000", "master.minibatch_size=100")
    lengths = [trial.steps_within(seconds, config, 10_000, 100, COSTS) for seconds in (4, 10, 40)]
    assert lengths == [64, 256, 1024]  # powers of 2 below 400, 1000 and 4000 steps, by three, less the measuring
    assert trial.steps_within(1e6, config, 10_000, 100, COSTS) == 100_000
    assert trial.steps_within(1e-6, config, 10_000, 100, COSTS) == trial.LEAST_STEPS
    unplanned = configured("master.seconds=60", "master.minibatch_size=100")
    unplanned = unplanned.model_copy(update={"master": unplanned.master.model_copy(update={"steps": None})})
    assert trial.steps_within(1e6, unplanned, 10_000, 100, COSTS) == 2000  # 20 epochs
    worked = unplanned.model_copy(update={"master": unplanned.master.model_copy(update={"work": 70_010.0})})
    assert trial.steps_within(1e6, worked, 10_000, 100, COSTS) == 701
