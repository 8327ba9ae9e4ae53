"""Plans against autograd in float64, where a model does not do the same with every minibatch, or with every call."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.losses.per_example import per_example
from issgd_cli.scores import score, weighted_backward
from issgd_cli.scores.first_look import plan_of
from issgd_cli.scores.gradient_norm import forward
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


def packed(model: Any, inputs: Tensor) -> Any:
    lengths = (inputs[:, 0, 0].abs() * 2).long().clamp(1, 4)
    rows = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    _, last = model.part(rows)
    return model.last((last[0] if isinstance(last, tuple) else last)[-1])


def one_after_the_other(model: Any, inputs: Tensor) -> Any:
    return model.last(torch.stack([model.part(example)[0][-1] for example in inputs]))


def attending_alone(model: Any, inputs: Tensor) -> Any:
    return model.last(torch.stack([model.part(example, example, example)[0].mean(0) for example in inputs]))


def stepping(model: Any, inputs: Tensor) -> Any:
    state = None  # then two tensors
    for at_step in inputs.unbind(1):
        state = model.part(at_step, state)
    assert state is not None
    return model.last(state[0])


def from_a_learned_state(model: Any, inputs: Tensor) -> Any:
    state = model.state.expand(1, len(inputs), 6).contiguous()
    return model.last(model.part(inputs, (state, torch.zeros_like(state)))[0][:, -1])


def beside_its_arguments(model: Any, inputs: Tensor) -> Any:
    model.part.given = model.first(inputs.mean(1))
    return model.last(model.part(inputs.mean(1)))


class Secretive(nn.Module):
    """Is told of the examples by another way than its call."""

    given: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(6, 6))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs @ self.weight).tanh() + self.given


@pytest.mark.parametrize(
    ("does", "build"),
    [
        (packed, lambda: nn.LSTM(6, 6, batch_first=True)),
        (packed, lambda: nn.GRU(6, 6, batch_first=True)),
        (one_after_the_other, lambda: nn.LSTM(6, 6)),
        (one_after_the_other, lambda: nn.GRU(6, 6)),
        (attending_alone, lambda: nn.MultiheadAttention(6, 2)),
        (stepping, lambda: nn.LSTMCell(6, 6)),
        (from_a_learned_state, lambda: nn.LSTM(6, 6, batch_first=True)),
        (beside_its_arguments, Secretive),
    ],
)
def test_what_is_given_no_plain_minibatch_is_right_all_the_same(
    does: Callable[..., Any], build: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    parts = {"first": nn.Linear(6, 6), "part": build(), "last": nn.Linear(6, CLASSES)}
    if does is from_a_learned_state:
        parts["state"] = nn.Parameter(normal(1, 1, 6))  # type: ignore[assignment]
    model, inputs = Model(does, **parts), normal(8, 4, 6)
    expected = squares_one_by_one(copy.deepcopy(model).double(), inputs.double(), LABELS).float()
    found = score(cross_entropy, model, inputs, LABELS).squared_norms  # float32: torch has LSTMs of its own for it
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)
    check(model, inputs)


@pytest.mark.parametrize("is_dead", [False, True])
def test_what_is_called_more_often_later_is_left_to_the_loop_if_that_has_a_part_in_the_loss(is_dead: bool) -> None:
    def often(model: Any, inputs: Tensor) -> Any:
        hidden = model.part(inputs).tanh()
        again = model.part(hidden).tanh() if model.on else hidden
        return model.last(hidden if is_dead else again)

    model, inputs = Model(often, part=nn.Linear(6, 6), last=nn.Linear(6, CLASSES)), normal(8, 6)
    check(model, inputs)
    model.on = True
    check(model, inputs)
    passed = forward(cross_entropy, model, inputs.double(), LABELS)
    assert [unit.way for unit in passed.plan.units] == ["rule" if is_dead else "loop", "rule"]
    model.on = False
    check(model, inputs)


def test_sequences_that_are_packed_only_later_are_left_to_the_loop() -> None:
    def sometimes(model: Any, inputs: Tensor) -> Any:
        return packed(model, inputs) if model.on else model.last(model.part(inputs)[1][0][-1])

    model, inputs = Model(sometimes, part=nn.LSTM(6, 6, batch_first=True), last=nn.Linear(6, CLASSES)), normal(8, 4, 6)
    check(model, inputs)
    model.on = True
    check(model, inputs)


@pytest.mark.parametrize("part", [nn.LSTM(6, 6), nn.MultiheadAttention(6, 2)])
def test_a_part_that_takes_time_for_the_minibatch_is_refused_with_the_remedy(part: nn.Module) -> None:
    def forgot_batch_first(model: Any, inputs: Tensor) -> Any:
        given = [inputs] * (1 if isinstance(model.part, nn.LSTM) else 3)
        return model.last(model.part(*given)[0].mean(1))

    with pytest.raises(LayerError, match=r"part \(\w+\) meets other rows than the examples: 4 for 3.*batch_first"):
        check(Model(forgot_batch_first, part=part, last=nn.Linear(6, CLASSES)), normal(8, 4, 6))
