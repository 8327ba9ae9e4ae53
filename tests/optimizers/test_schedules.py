"""The learning rate of every step, held against torch's own schedulers."""

from collections.abc import Callable

import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.errors import ConfigError
from issgd_cli.optimizers.schedules import learning_rate

Configured = Callable[..., Config]


def rates(config: Config, steps: int) -> list[float]:
    return [learning_rate(config, step) for step in range(steps)]


def torchs(make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.05)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return found


def test_a_constant_rate_is_the_very_number(configured: Configured) -> None:
    assert rates(configured("optimizer.learning_rate=0.1"), 5) == [0.1] * 5


def test_steps_are_torchs_multisteplr(configured: Configured) -> None:
    config = configured(
        "optimizer.schedule.kind=steps", "optimizer.schedule.milestones=[3, 7]", "optimizer.schedule.factor=0.2"
    )
    expected = torchs(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.2), 10)
    assert rates(config, 10) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("settings", "steps"), [([], 9), (["optimizer.schedule.over_steps=20"], 20)])
def test_a_cosine_is_torchs_and_ends_with_the_run_unless_it_is_told_where(
    configured: Configured, settings: list[str], steps: int
) -> None:
    config = configured("optimizer.schedule.kind=cosine", "optimizer.schedule.final_fraction=0.1", *settings)
    expected = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps, 0.1 * 0.05), steps + 1)
    assert rates(config, steps + 1) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(config, 10 * steps) == pytest.approx(0.1 * 0.05)  # and stays there


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_warm_up_rises_to_what_the_schedule_says(configured: Configured, kind: str) -> None:
    plain = configured(f"optimizer.schedule.kind={kind}")
    warm = configured(f"optimizer.schedule.kind={kind}", "optimizer.schedule.warmup_steps=4")
    shares = [warmed / cold for warmed, cold in zip(rates(warm, 8), rates(plain, 8), strict=True)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (["optimizer.schedule.kind=steps"], r"milestones must be steps, each later .*\[1000, 2000\]"),
        (["optimizer.schedule.kind=steps", "optimizer.schedule.milestones=[5, 5]"], "each later than the one before"),
        (
            ["optimizer.schedule.milestones=[3]"],
            r"milestones belongs to .*kind = 'steps', which is 'const.* set both",
        ),
        (["optimizer.schedule.over_steps=3"], r"over_steps belongs to .*kind = 'cosine', which is 'constant'"),
        (["optimizer.schedule.kind=cosine", "optimizer.schedule.factor=0.5"], r"factor belongs to .*'steps'"),
        (["optimizer.schedule.kind=cosine", "optimizer.schedule.warmup_steps=9"], "must be fewer than the 9 steps"),
        (["optimizer.betas=[0.9]"], r"optimizer\.betas: has too few values"),
        (["optimizer.schedule.factor=0"], r"optimizer\.schedule\.factor: must be greater than 0"),
        (["optimizer.schedule.kind=linear"], r"optimizer\.schedule\.kind: must be 'constant', 'steps' or 'cosine'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(configured: Configured, settings: list[str], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        configured(*settings)


def test_a_cosine_without_an_end_is_refused() -> None:
    settings = ["optimizer.schedule.kind=cosine", "master.seconds=5"]
    with pytest.raises(ConfigError, match=r"must know where it ends: set optimizer\.schedule\.over_steps, or"):
        resolve(assignments(settings), "a test")
    resolve(assignments([*settings, "optimizer.schedule.over_steps=100"]), "a test")
