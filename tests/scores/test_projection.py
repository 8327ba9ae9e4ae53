"""Projections are those of each example's own gradient."""

import pytest
import torch
from torch import nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.scores.plan import Plan
from issgd_cli.scores.projection import projections


class Reading(nn.Module):
    """Attention, then a recurrence, over the features as over time."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.attention = nn.Linear(1, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm, self.frozen = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 6).requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.widen(inputs[:, :, None])
        found, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.frozen(self.lstm(found)[0][:, -1])  # type: ignore[no-any-return]


LAYERS: dict[str, list[nn.Module]] = {
    "none": [],
    "smooth": [nn.Linear(6, 6), nn.Tanh(), nn.LayerNorm(6)],
    "in place": [nn.Linear(6, 6), nn.ReLU(inplace=True)],
    "pieces": [Reading()],
}


@pytest.mark.parametrize("at_once", [1, 4, 99])
@pytest.mark.parametrize("layers", LAYERS)
def test_they_equal_a_loop_over_the_examples(layers: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "slices", lambda plan, device, passes: at_once)
    random = torch.Generator().manual_seed(0)
    first = mlp(5, [6], 6)
    initialise(first, 0, 0.6)
    model = nn.Sequential(first, *LAYERS[layers], nn.Linear(6, 3)).double()
    flatten_parameters(model)
    inputs = torch.randn(9, 5, dtype=torch.float64, generator=random)
    labels = torch.randint(3, (9,), generator=random)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    direction = torch.randn(sum(p.numel() for p in parameters), dtype=torch.float64, generator=random)
    expected = []
    for number in range(9):
        loss = cross_entropy(model(inputs[number : number + 1]), labels[number : number + 1]).sum()
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        expected.append(float(gradient @ direction))
    found = projections(cross_entropy, model, inputs, labels, direction)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert not found.requires_grad
