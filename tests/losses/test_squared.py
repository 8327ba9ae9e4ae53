"""The mean over outputs of squared distances."""

import torch
from torch.nn import functional

from issgd_cli.losses.squared import squared


def test_it_is_torchs_mean_squared_error_example_by_example() -> None:
    random = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(2, 7, 3, generator=random)
    losses = squared(outputs, targets)
    torch.testing.assert_close(losses, functional.mse_loss(outputs, targets, reduction="none").mean(1))
    torch.testing.assert_close(losses.mean(), functional.mse_loss(outputs, targets))


def test_an_example_in_numbers() -> None:
    outputs, targets = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert squared(outputs, targets).tolist() == [2.5]  # (1 + 4) / 2
    assert squared.output_gradients(outputs, targets).tolist() == [[1.0, 2.0]]
    assert squared.errors(outputs, targets) is None  # type: ignore[func-returns-value]
