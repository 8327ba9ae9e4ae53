"""What is run again must be what it was; norms of it are held against autograd in test_plan.py and beside it."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from tests.loops import normal
from tests.scores.test_plan import CLASSES, LABELS, Model, check


class Own(nn.Module):
    """Has a weight and no rule."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.does, self.weight, self.is_first = does, nn.Parameter(normal(6, 6) / 2), True
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.does(self, inputs)


def dropping(own: Own, inputs: Tensor) -> Tensor:
    float(inputs.sum())  # what torch.func would refuse: the loop goes without it
    return functional.dropout(inputs @ own.weight, 0.0 if own.is_first else 0.5)


def skipping(own: Own, inputs: Tensor) -> Tensor:
    """Python's own generator, which torch.func knows nothing of: at the first look it never skips."""
    is_skipped = random.random() < 0.5 and not own.is_first
    return inputs if is_skipped else (inputs @ own.weight).tanh()


def choosing(own: Own, inputs: Tensor) -> Tensor:
    """Looks at all examples, though at the first three it would choose alike for each alone."""
    return inputs @ own.weight.tanh() if float(inputs.sum()) > 0 else inputs @ own.weight.sin() * 2


def leaning(own: Own, inputs: Tensor) -> Tensor:
    """On the other examples, by a hundredth."""
    found = inputs @ own.weight
    return found if own.is_first else found + 0.01 * (found.mean(0, keepdim=True) - found)


@pytest.mark.parametrize("does", [leaning, dropping, skipping, choosing])
def test_what_computes_something_else_when_it_is_run_again_is_refused(does: Callable[[Any, Tensor], Tensor]) -> None:
    model, inputs = nn.Sequential(Own(does), nn.Linear(6, CLASSES)), normal(8, 6)
    inputs[:3] = inputs[:3].abs()
    score(cross_entropy, model, inputs[:3], LABELS[:3])
    model[0].is_first = False  # type: ignore[assignment]
    torch.manual_seed(0)
    random.seed(10)  # gives 0.57, then 0.43
    with pytest.raises(LayerError, match=r"0 \(Own\) has no rule.*computes something else.*evaluation mode"):
        score(cross_entropy, model, inputs, LABELS)


def test_what_a_module_changes_in_place_afterwards_is_no_other_result() -> None:
    model = nn.Sequential(Own(lambda own, inputs: inputs @ own.weight), nn.ReLU(inplace=True), nn.Linear(6, CLASSES))
    check(model, normal(8, 6))


@pytest.mark.parametrize("is_vectorised", [True, False])
def test_running_again_leaves_buffers_alone(is_vectorised: bool) -> None:
    def counting(own: Any, inputs: Tensor) -> Any:
        own.calls += 1
        if not is_vectorised:
            float(inputs.sum())
        return inputs @ own.weight

    part = Own(counting)
    model = Model(lambda own, inputs: own.last(own.part(inputs)), part=part, last=nn.Linear(6, CLASSES))
    check(model, normal(8, 6))
    before = float(part.get_buffer("calls"))
    score(cross_entropy, model, normal(8, 6).double(), LABELS)
    assert float(part.get_buffer("calls")) == before + 1
