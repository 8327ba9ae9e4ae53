"""Any function of outputs and targets is a loss, if it gives a number an example."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.errors import LossError
from issgd_cli.library import cross_entropy, per_example, score

LINE = nn.Linear(3, 1)


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs, targets, reduction="none").flatten(1).mean(1)


def minibatch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, generator=random), torch.randn(5, 1, generator=random)


def test_torchs_own_losses_are_scored() -> None:
    inputs, targets = minibatch()
    scores = score(per_example(squares), LINE, inputs, targets)
    slopes = 2 * (LINE(inputs) - targets).detach().abs().squeeze(1)
    torch.testing.assert_close(scores.norms, slopes * (inputs.square().sum(1) + 1).sqrt())
    assert scores.errors is None


def test_where_it_is_wrong_may_be_said_too() -> None:
    inputs, targets = minibatch()
    loss = per_example(squares, lambda outputs, targets: (outputs > 0).ne(targets > 0).squeeze(1))
    errors = score(loss, LINE, inputs, targets).errors
    torch.testing.assert_close(errors, ((LINE(inputs) > 0) != (targets > 0)).squeeze(1).float())


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (nn.MSELoss(), r"shape \(\) for \d examples"),
        (nn.MSELoss(reduction="none"), r"shape \(\d, 1\) for \d examples.*flatten"),
        (lambda outputs, targets: 1.0, r"a float for \d examples"),
        (lambda outputs, targets: squares(outputs, targets)[:2], r"shape \(2,\)"),
    ],
)
def test_what_is_not_one_number_an_example_is_refused(loss: nn.Module, words: str) -> None:
    inputs, targets = minibatch()
    with pytest.raises(LossError, match=words):
        score(per_example(loss), LINE, inputs, targets)


def test_a_loss_of_ours_stays_what_it_is() -> None:
    inputs, labels = minibatch()[0], torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(per_example(cross_entropy)(inputs, labels), cross_entropy(inputs, labels))
