"""Every optimiser is torch's own, to the bit, and goes on from its vectors as if nothing had been."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.optimizers import Descent
from issgd_cli.registries import OPTIMIZERS

Configured = Callable[..., Config]

TORCHS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, s: torch.optim.SGD(
        p, 0.03, s.momentum, weight_decay=s.weight_decay, nesterov=s.nesterov, fused=True
    ),
    "adam": lambda p, s: torch.optim.Adam(p, 0.03, s.betas, s.epsilon, s.weight_decay, fused=True),
    "adamw": lambda p, s: torch.optim.AdamW(p, 0.03, s.betas, s.epsilon, s.weight_decay, fused=True),
}


def learner(config: Config) -> tuple[torch.nn.Module, Tensor, Descent]:
    model = mlp(16, [7, 6], 3)
    initialise(model, 0, 0.5)
    flat = flatten_parameters(model)
    return model, flat, OPTIMIZERS[config.optimizer.kind](config, flat, [*model.parameters()])


def gradients(model: torch.nn.Module, step: int) -> tuple[Tensor, ...]:
    inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
    return torch.autograd.grad(model(inputs).square().mean(), [*model.parameters()])


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_an_optimiser_is_torchs_to_the_bit(configured: Configured, kind: str, decay: float) -> None:
    config = configured(f"optimizer.kind={kind}", f"optimizer.weight_decay={decay}", "optimizer.betas=[0.8, 0.95]")
    model, _, ours = learner(config)
    other, _, _ = learner(config)
    torchs = TORCHS[kind]([*other.parameters()], config.optimizer)
    for step in range(5):
        ours.descend(gradients(model, step), 0.03, step)
        for parameter, gradient in zip(other.parameters(), gradients(other, step), strict=True):
            parameter.grad = gradient
        torchs.step()
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_an_optimiser_goes_on_from_its_vectors_to_the_bit(configured: Configured, kind: str) -> None:
    config = configured(f"optimizer.kind={kind}", "optimizer.weight_decay=0.1")
    model, flat, whole = learner(config)
    for step in range(3):
        whole.descend(gradients(model, step), 0.03, step)
    resumed, there, again = learner(config)
    there.copy_(flat)
    for name, vector in whole.vectors.items():
        assert vector.shape == flat.shape
        again.vectors[name].copy_(vector)
    for step in range(3, 6):
        whole.descend(gradients(model, step), 0.03, step)
        again.descend(gradients(resumed, step), 0.03, step)
    assert torch.equal(flat, there)
