"""Several gradients by one backward pass: those of torch, one after the other."""

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import rows
from issgd_cli.scores.gradient_norm import forward


class Sequences(nn.Module):
    """Linear layers over (B, T, d), of which one has no bias and one stands aside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5, bias=False), nn.Linear(5, 3)
        self.aside = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).tanh().mean(1))  # type: ignore[no-any-return]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def frozen() -> nn.Module:
    model = mlp()
    model.get_parameter("2.weight").requires_grad_(False)
    model.get_parameter("0.bias").requires_grad_(False)
    return model


@pytest.mark.parametrize(("build", "shape"), [(mlp, (7, 4)), (Sequences, (7, 3, 4))])
def test_each_row_gives_torchs_own_gradient(build: type[nn.Module], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    model = build().double()
    inputs, labels = torch.randn(shape, generator=generator).double(), torch.arange(7) % 3
    coefficients = torch.randn((3, 7), generator=generator).double()
    coefficients[1, 2] = 0
    assert rows.is_linear(model)
    passed = forward(cross_entropy, model, inputs, labels)
    assert rows.is_by_layers(passed)
    found = rows.gradients(passed, coefficients)
    for number, row in enumerate(coefficients):
        losses = cross_entropy(model(inputs), labels)
        expected = torch.autograd.grad(losses, list(model.parameters()), row, materialize_grads=True)
        for ours, torchs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[number], torchs)


def test_what_is_not_linear_alone_is_not_for_it() -> None:
    assert not rows.is_linear(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)))
    assert not rows.is_linear(nn.Conv1d(3, 3, 1))
    model = frozen()
    assert rows.is_linear(model)
    passed = forward(cross_entropy, model, torch.randn(5, 4), torch.arange(5) % 3)
    assert not rows.is_by_layers(passed)  # the rules are for whole layers
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    assert not rows.is_by_layers(forward(cross_entropy, twice, torch.randn(5, 4), torch.arange(5) % 4))
