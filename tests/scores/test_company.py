"""An example's loss must not depend on which others it comes with; where dropout is on, too."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from issgd_cli.scores.company import MIXED, UNTOLD, company
from issgd_cli.scores.first_look import plan_of
from tests.loops import normal
from tests.scores.test_plan import CLASSES, LABELS


class Dropping(nn.Module):
    """Has a weight, no rule and dropout of its own; and does something with the examples before or behind."""

    def __init__(self, before: Callable[[Tensor], Tensor], behind: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.before, self.behind = nn.Parameter(normal(6, 6) / 2), before, behind

    def forward(self, inputs: Tensor) -> Tensor:
        return self.behind(functional.dropout(self.before(inputs) @ self.weight, 0.5, self.training))


def same(values: Tensor) -> Tensor:
    return values


def around(part: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), part, nn.Tanh(), nn.Linear(6, CLASSES))


def asked(model: nn.Module, inputs: Tensor, must_tell: bool = True) -> str | None:
    return company(cross_entropy, model, inputs[:3], LABELS[:3], must_tell)


def test_a_module_that_drops_out_by_itself_is_trained_by_the_loop() -> None:
    model, inputs = around(Dropping(same, same)).double().train(), normal(8, 6).double()
    torch.manual_seed(0)
    found = score(cross_entropy, model, inputs, LABELS).squared_norms
    assert [unit.way for unit in plan_of(cross_entropy, model, inputs, LABELS).units] == ["rule", "loop", "rule"]
    torch.manual_seed(0)
    losses = cross_entropy(model(inputs), LABELS)
    for number, loss in enumerate(losses):
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        expected = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        torch.testing.assert_close(found[number], expected, rtol=1e-9, atol=0)


MIXING: list[Callable[[Tensor], Tensor]] = [
    lambda values: values - values.mean(0),
    lambda values: values.roll(1, 0),
    lambda values: values.cumsum(0),
    lambda values: values.flip(0).cumsum(0),
    lambda values: values - values.mean(0).detach(),  # no gradient tells of it
]


@pytest.mark.parametrize("mixes", MIXING)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_one_that_mixes_besides_is_refused(mixes: Callable[[Tensor], Tensor], place: str) -> None:
    part = Dropping(mixes, same) if place == "before" else Dropping(same, mixes)
    with pytest.raises(LayerError, match=r"mixes (or reorders )?(the )?examples"):
        score(cross_entropy, around(part).train(), normal(8, 6), LABELS)


@pytest.mark.parametrize("mixes", MIXING[:4])
def test_mixing_before_the_first_parameter_is_seen_where_the_model_drops_out(
    mixes: Callable[[Tensor], Tensor],
) -> None:
    class Mixing(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            inputs -= inputs.mean(1, keepdim=True)  # as some models do with what they are given
            return mixes(inputs)

    torch.manual_seed(0)
    model = nn.Sequential(Mixing(), nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, CLASSES)).train()
    with pytest.raises(LayerError, match="mixes or reorders"):
        score(cross_entropy, model, normal(8, 6), LABELS)


class Skipping(nn.Module):
    """Python's generator, or another, says whether this layer is left out."""

    def __init__(self, generator: random.Random | None) -> None:
        super().__init__()
        self.layer, self.generator = nn.Linear(6, 6), generator

    def forward(self, inputs: Tensor) -> Tensor:
        number = random.random() if self.generator is None else self.generator.random()
        return inputs + number * self.layer(inputs)  # type: ignore[no-any-return]


def test_what_python_draws_is_drawn_again() -> None:
    assert asked(around(Skipping(None)), normal(8, 6)) is None


def test_what_draws_by_a_generator_of_its_own_is_refused_only_where_it_must_be_told() -> None:
    own = around(Skipping(random.Random(0)))
    assert asked(own, normal(8, 6), must_tell=False) is None
    assert asked(own, normal(8, 6)) == UNTOLD


def test_too_few_examples_tell_nothing() -> None:
    model, inputs = nn.Sequential(nn.Linear(6, CLASSES)), normal(8, 6)
    assert asked(model, inputs) is None
    assert company(cross_entropy, model, inputs[:2], LABELS[:2], True) is None
    mixing = nn.Sequential(nn.Softmax(0), nn.Linear(6, CLASSES))
    assert asked(mixing, inputs) == MIXED
    assert company(cross_entropy, mixing, inputs[:2], LABELS[:2], True) is None
