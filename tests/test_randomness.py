"""A draw depends on its key (seed, role, index) and on nothing else."""

import random
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from issgd_cli.randomness import Role, generator


def numbers(seed: int, role: Role, index: int = 0) -> tuple[float, ...]:
    return tuple(generator(seed, role, index).random(4).tolist())


def test_the_same_key_gives_the_same_draws_whatever_was_drawn_before() -> None:
    first = numbers(3, "draws", 7)
    generator(3, "draws", 6).random(1000)
    assert numbers(3, "draws", 7) == first


def test_two_keys_never_share_draws() -> None:
    keys = [(seed, role, index) for seed in range(3) for role in get_args(Role) for index in range(3)]
    first_numbers = {numbers(*key)[0] for key in keys}
    assert len(first_numbers) == len(keys)


def test_draws_are_the_same_in_another_process() -> None:
    code = "from issgd_cli.randomness import generator; print(tuple(generator(5, 'order', 2).random(4).tolist()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(numbers(5, "order", 2))


def test_draws_are_the_same_as_ever() -> None:
    # A change here changes every published result: roles are appended, never reordered, and never taken out.
    assert get_args(Role)[:4] == ("split", "order", "initial_weights", "draws")
    assert get_args(Role)[4:] == (
        "shuffled_weights", "house_numbers", "bootstrap", "audit_draws", "reshuffling", "audit_examples",
        "augmentation", "loader_workers", "label_noise", "presample", "pruning", "blocks", "advised",
    )  # fmt: skip
    assert numbers(0, "draws") == pytest.approx(PUBLISHED, rel=1e-15)


PUBLISHED = (0.34189775002973877, 0.2754488427993289, 0.6697375266428843, 0.13691096749882292)


def test_the_global_generators_are_left_alone() -> None:
    before = random.getstate(), str(np.random.get_state(legacy=False)), torch.get_rng_state()
    numbers(0, "split")
    assert (random.getstate(), str(np.random.get_state(legacy=False))) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        generator(-1, "draws")
