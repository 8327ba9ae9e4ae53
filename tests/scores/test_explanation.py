"""What is told of how a model's norms are found."""

import torch
from torch import nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores.explanation import explained


class Own(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).tanh()


def test_each_part_is_told_with_its_way_its_reason_and_its_cost() -> None:
    model = nn.Sequential(nn.Linear(6, 5), Own(5, 4), nn.Linear(4, 3).requires_grad_(False), nn.Linear(3, 3))
    found = explained(cross_entropy, model, torch.randn(8, 6), torch.randint(3, (8,)))
    assert [(each.name, each.parameters, each.way) for each in found] == [
        ("0 (Linear)", 35, "rule"),
        ("1 (Own)", 24, "fallback"),
        ("3 (Linear)", 12, "rule"),
    ]
    assert found[0].why == "the rule for Linear"
    assert "forward of its own" in found[1].why
    assert all(each.cost > 0 for each in found)


def test_what_goes_in_a_loop_is_told() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs.reshape(-1, 3))  # type: ignore[no-any-return]

    def folding_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.reshape(len(targets), -1).square().sum(1)

    (found,) = explained(folding_loss, Folded(), torch.randn(8, 6), torch.zeros(8))  # type: ignore[arg-type]
    assert (found.way, found.parameters) == ("loop", 12)
    assert "not the examples" in found.why
