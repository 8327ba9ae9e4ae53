"""The weighted backward pass leaves what plain autograd leaves, and gives each example's own norm."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.errors import LayerError, LossError
from issgd_cli.library import cross_entropy, score, weighted_backward

CLASSES, EXAMPLES = 4, 7


class Network(nn.Module):
    """A CNN with an auxiliary head, a layer that nothing uses, and one that is frozen."""

    def __init__(self, gives_both: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten())
            self.head, self.second = nn.Linear(36, CLASSES), nn.Linear(36, 1)
            self.unused, self.frozen = nn.Linear(3, 3), nn.Linear(36, 36).requires_grad_(False)
        self.gives_both = gives_both

    def forward(self, images: Tensor) -> Any:
        found = self.frozen(self.body(images))
        return (self.head(found), {"size": self.second(found)}) if self.gives_both else self.head(found)


class OfKeywords(Network):
    """Is called by keywords alone."""

    def __init__(self) -> None:
        super().__init__(False)

    def forward(self, *, images: Tensor) -> Any:  # type: ignore[override]
        return super().forward(images)


def both_losses(outputs: Any, labels: Tensor) -> Tensor:
    logits, others = outputs
    sizes: Tensor = others["size"]
    return cross_entropy(logits, labels) + 0.3 * (sizes.squeeze(1) - labels).square()


def plain(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none")


def minibatch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.randn(EXAMPLES, 2, 5, 5, generator=random, dtype=dtype)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=random)
    return images, labels, torch.rand(EXAMPLES, generator=random, dtype=torch.float64) * 3 + 0.1


@pytest.mark.parametrize("is_accumulated", [False, True])
@pytest.mark.parametrize(("gives_both", "loss"), [(False, cross_entropy), (False, plain), (True, both_losses)])
def test_it_leaves_the_gradients_of_a_backward_pass_and_gives_the_norms_of_each_examples_own_loss(
    gives_both: bool, loss: Any, is_accumulated: bool
) -> None:
    model, other = Network(gives_both).double(), Network(gives_both).double()
    images, labels, factors = minibatch()
    for _ in range(2 if is_accumulated else 1):
        losses, norms = weighted_backward(loss, model, images, labels, factors)
        (factors * loss(other(images), labels)).mean().backward()
    for (name, own), right in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (own.grad is None) == (right.grad is None), name
        if own.grad is not None and right.grad is not None:
            torch.testing.assert_close(own.grad, right.grad, rtol=1e-10, atol=1e-13)
    assert model.unused.weight.grad is None
    assert not losses.requires_grad
    for number in range(EXAMPLES):
        other.zero_grad()
        alone = loss(other(images[number : number + 1]), labels[number : number + 1])
        alone.sum().backward()
        gradient = torch.cat([each.grad.flatten() for each in other.parameters() if each.grad is not None])
        torch.testing.assert_close(norms[number], gradient.norm(), rtol=1e-9, atol=0)
        torch.testing.assert_close(losses[number], alone[0].detach())


def test_gradients_that_are_there_are_added_to_where_they_are() -> None:
    model = Network(False)
    images, labels, factors = minibatch(torch.float32)
    weighted_backward(cross_entropy, model, images, labels, factors)
    kept = model.head.weight.grad
    assert kept is not None
    before = kept.clone()
    weighted_backward(cross_entropy, model, images, labels, factors)
    assert model.head.weight.grad is kept
    torch.testing.assert_close(kept, 2 * before)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32])
def test_labels_may_be_of_any_integer_type(kind: torch.dtype) -> None:
    images, labels, factors = minibatch(torch.float32)
    expected = weighted_backward(cross_entropy, Network(False), images, labels, factors)
    found = weighted_backward(cross_entropy, Network(False), images, labels.to(kind), factors)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"targets": torch.zeros(EXAMPLES, 1, dtype=torch.int64)}, r"labels\.squeeze\(1\)"),
        ({"targets": torch.zeros(EXAMPLES)}, "class numbers"),
        ({"model": Network(True)}, r"outputs are a tuple.*outputs\[0\]"),
        ({"inputs": {"images": 1}}, "inputs are dict.*wrapped in a module"),
        ({"targets": torch.zeros(2, dtype=torch.int64)}, r"targets have shape \(2,\)"),
        ({"factors": torch.ones(EXAMPLES, 1)}, r"factors have shape \(7, 1\)"),
        ({"factors": None}, "factors are NoneType"),
        ({"inputs": torch.ones(())}, r"inputs have shape \(\)"),
        ({"model": OfKeywords()}, r"can't be called with one tensor.*forward\(\*, images.*Wrap"),
        ({"loss": functional.cross_entropy}, r'shape \(\) for \d examples.*reduction="none"'),
    ],
)
def test_what_is_no_minibatch_with_a_loss_an_example_is_refused_with_the_remedy(
    changed: dict[str, Any], words: str
) -> None:
    images, labels, factors = minibatch(torch.float32)
    usual = {"loss": cross_entropy, "model": Network(False), "inputs": images, "targets": labels, "factors": factors}
    given: dict[str, Any] = usual | changed
    with pytest.raises(LossError, match=words):
        weighted_backward(**given)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": {"images": torch.zeros(EXAMPLES, 2, 5, 5)}}, "inputs are dict.*wrapped in a module"),
        ({"targets": [1] * EXAMPLES}, "targets are list"),
        ({"targets": torch.zeros(2, dtype=torch.int64)}, r"targets have shape \(2,\)"),
        ({"factors": torch.ones(EXAMPLES - 1)}, r"factors have shape \(6,\)"),
        ({"model": OfKeywords()}, r"can't be called with one tensor.*Wrap"),
    ],
)
def test_scores_are_asked_for_a_minibatch_likewise(changed: dict[str, Any], words: str) -> None:
    images, labels, _ = minibatch(torch.float32)
    usual = {"loss": cross_entropy, "model": Network(False), "inputs": images, "targets": labels}
    given: dict[str, Any] = usual | changed
    with pytest.raises(LossError, match=words):
        score(**given)


def test_a_models_own_type_error_stays_what_it_is() -> None:
    images, labels, _ = minibatch(torch.float32)
    model = Network(False)
    model.forward = lambda images: None + images  # type: ignore[operator,method-assign]
    with pytest.raises(TypeError, match="NoneType"):
        score(cross_entropy, model, images, labels)


def test_what_has_no_part_in_a_minibatchs_loss_keeps_no_gradient_as_autograd_has_it() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.on = nn.Linear(3, 3), nn.Linear(3, CLASSES), True

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.body(inputs) if self.on else inputs)  # type: ignore[no-any-return]

    model, inputs, labels = Sometimes(), torch.arange(12.0).reshape(4, 3), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for model.on in (True, False):
        optimizer.zero_grad()
        weighted_backward(cross_entropy, model, inputs, labels, torch.ones(4))
        assert (model.body.weight.grad is not None) == model.on
        before = model.body.weight.detach().clone()
        optimizer.step()
    assert torch.equal(model.body.weight, before)
    gradients = score(cross_entropy, model, inputs, labels, with_gradient=True).gradients
    assert gradients is not None
    assert [bool(each.any()) for each in gradients] == [False, False, True, True]


def test_a_model_that_mixes_its_examples_is_refused() -> None:
    images, labels, factors = minibatch(torch.float32)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(50), nn.Linear(50, CLASSES))
    with pytest.raises(LayerError, match="mixes the examples"):
        weighted_backward(cross_entropy, model, images, labels, factors)


def test_scores_of_a_model_with_auxiliary_outputs_are_those_of_its_loss() -> None:
    images, labels, factors = minibatch()
    _, norms = weighted_backward(both_losses, Network(True).double(), images, labels, factors)

    class Both:
        """With errors of the first head's."""

        def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
            return both_losses(outputs, targets)

        def errors(self, outputs: Any, targets: Tensor) -> Tensor:
            return cross_entropy.errors(outputs[0], targets)

    scores = score(Both(), Network(True).double(), images, labels)
    torch.testing.assert_close(scores.norms, norms, rtol=1e-9, atol=0)
    assert scores.errors is not None
    assert scores.errors.shape == (EXAMPLES,)


def test_a_gradient_is_its_parameters_own_and_may_be_changed_in_place() -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (nn.Parameter(torch.full((CLASSES, 3), each)) for each in (0.5, 0.25))
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, inputs: Tensor) -> Tensor:
            return functional.linear(inputs, self.one + self.other) * self.scale.sum()

    model, inputs, labels = Summed(), torch.arange(12.0).reshape(4, 3), torch.arange(4)
    other = copy.deepcopy(model)
    for _ in range(2):
        weighted_backward(cross_entropy, model, inputs, labels, torch.ones(4))
        cross_entropy(other(inputs), labels).mean().backward()  # type: ignore[no-untyped-call]
        for each in (model, other):
            nn.utils.clip_grad_norm_(each.parameters(), 0.1)
        for own, right in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(own.grad, right.grad)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_tells_no_norm_is_refused(factor: float) -> None:
    images, labels, factors = minibatch()
    factors[2] = factor
    with pytest.raises(LossError, match="A factor is 0, negative or not finite"):
        weighted_backward(cross_entropy, Network(False).double(), images, labels, factors)
