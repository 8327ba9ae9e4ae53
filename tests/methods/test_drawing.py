"""Draws on a device are the CPU's, to the bit."""

import numpy as np
import pytest
import torch

from issgd_cli.methods.drawing import Draws
from issgd_cli.methods.proposal import Proposal
from issgd_cli.randomness import generator

CPU = torch.device("cpu")


@pytest.mark.parametrize("zeros", [0, 400])
def test_the_search_on_a_device_finds_what_numpys_finds(zeros: int) -> None:
    """Held on the CPU here: the device's search is run on it, in float64 as on CUDA."""
    omega = np.random.default_rng(3).lognormal(0, 3, 1000)
    omega[600 : 600 + zeros] = 0
    slow, fast = (Draws(Proposal.of(omega), CPU, search_there) for search_there in (False, True))
    for step in range(50):
        indices, factors = slow.draw(generator(0, "draws", step), 64)
        found, weights = fast.draw(generator(0, "draws", step), 64)
        assert torch.equal(indices, found)
        assert torch.equal(factors, weights)
        assert factors.dtype == torch.float32
        assert not np.any(omega[indices.numpy()] == 0)


def test_a_random_number_that_rounds_up_to_the_end_lands_on_the_last_positive_weight() -> None:
    class AtTheEnd(np.random.Generator):
        def random(self, size: int) -> np.ndarray:  # type: ignore[override]
            return np.ones(size)

    draws = Draws(Proposal.of(np.array([1.0, 2.0, 0.0])), CPU, search_there=True)
    indices, factors = draws.draw(AtTheEnd(np.random.PCG64(0)), 4)
    assert indices.tolist() == [1] * 4
    np.testing.assert_allclose(factors.numpy(), 1.5 / 2)


@pytest.mark.parametrize("search_there", [False, True])
def test_a_random_number_exactly_at_a_boundary_draws_the_example_above_it(search_there: bool) -> None:
    """[0, 1) is cut into half-open steps: an example of weight 0 has none, and each its own lower end."""

    class At(np.random.Generator):
        def random(self, size: int) -> np.ndarray:  # type: ignore[override]
            return np.array([0.0, 0.25, 0.5, 0.75])

    draws = Draws(Proposal.of(np.array([0.0, 1.0, 1.0, 0.0, 2.0])), CPU, search_there)
    indices, factors = draws.draw(At(np.random.PCG64(0)), 4)
    assert indices.tolist() == [1, 2, 4, 4]
    np.testing.assert_allclose(factors.numpy(), [4 / 3, 4 / 3, 2 / 3, 2 / 3], rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_as_the_cpu_does() -> None:
    proposal = Proposal.of(np.random.default_rng(3).lognormal(0, 3, 100_000))
    here, there = Draws(proposal, CPU), Draws(proposal, torch.device("cuda"))
    for step in range(20):
        for one, other in zip(
            here.draw(generator(0, "draws", step), 128), there.draw(generator(0, "draws", step), 128), strict=True
        ):
            assert torch.equal(one, other.cpu())
