"""Plans against autograd in float64, where a model does not do the same with every minibatch, or with every call."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.losses.per_example import per_example
from issgd_cli.scores import score, weighted_backward
from issgd_cli.scores.first_look import plan_of
from tests.loops import normal, squares_one_by_one

CLASSES = 5
LABELS = torch.arange(8) % CLASSES


class Model(nn.Module):
    """Does with its parts what a function says, and has a switch."""

    def __init__(self, does: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.does, self.on = does, False
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs: Tensor) -> Any:
        return self.does(self, inputs)


def check(model: nn.Module, inputs: Tensor) -> None:
    """Asserts that the norms, with the gradient and without, are those of each example alone."""
    model, inputs = model.double(), inputs.double()
    expected = squares_one_by_one(model, inputs, LABELS)
    for with_gradient in (False, True):
        found = score(cross_entropy, model, inputs, LABELS, with_gradient).squared_norms
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_what_has_a_part_in_the_loss_only_later_counts_from_then_on() -> None:
    def both(model: Any, inputs: Tensor) -> Any:
        hidden = model.first(inputs)
        return hidden * model.scale + model.second(inputs) if model.on else hidden

    parts = {"first": nn.Linear(6, CLASSES), "second": nn.Linear(6, CLASSES)}
    model, inputs = Model(both, **parts, scale=nn.Parameter(torch.rand(CLASSES))), normal(8, 6)
    check(model, inputs)
    model.on = True
    check(model, inputs)
    weighted_backward(cross_entropy, model, inputs.double(), LABELS, torch.ones(8))
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.on = False
    check(model, inputs)


def test_a_loss_of_another_part_of_what_the_model_gives_counts_what_it_uses() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.one, self.other = nn.Linear(6, 6), nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.trunk(inputs).tanh()
            return self.one(hidden), self.other(hidden)

    model, inputs = Heads().double(), normal(8, 6).double()
    for head, alone in enumerate((model.one, model.other)):
        found = score(per_example(lambda out, labels: cross_entropy(out[head], labels)), model, inputs, LABELS)  # noqa: B023
        expected = squares_one_by_one(nn.Sequential(model.trunk, nn.Tanh(), alone), inputs, LABELS)
        torch.testing.assert_close(found.squared_norms, expected, rtol=1e-9, atol=0)


def test_a_call_without_gradients_is_no_call() -> None:
    def gated(model: Any, inputs: Tensor) -> Any:
        with torch.no_grad():
            gate = model.first(inputs).sigmoid()
        return model.last(model.first(inputs) * gate)

    model = Model(gated, first=nn.Linear(6, 6), last=nn.Linear(6, CLASSES))
    check(model, normal(8, 6))
    plan = plan_of(cross_entropy, model, normal(8, 6).double(), LABELS)
    assert [unit.way for unit in plan.units] == ["rule", "rule"]


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_copies_and_the_fallback_may_share_a_module(options: dict[str, bool]) -> None:
    attention = nn.MultiheadAttention(6, 2, batch_first=True, **options)
    model = Model(
        lambda own, inputs: own.last(own.attention(inputs, inputs, inputs)[0].mean(1)),
        attention=attention,
        last=nn.Linear(6, CLASSES),
    )
    check(model, normal(8, 4, 6))


def test_a_weight_that_is_given_to_another_layer_is_seen() -> None:
    """It is a leaf of the graph, behind a layer whose rule looks at nothing but its own weights."""

    def through(model: Any, inputs: Tensor) -> Any:
        return model.last(model.first(inputs).tanh() @ model.other(model.first.weight))

    model = Model(through, first=nn.Linear(6, 6), other=nn.Linear(6, 6), last=nn.Linear(6, CLASSES))
    check(model, normal(8, 6))
