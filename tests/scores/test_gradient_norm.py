"""Scores of a chunk against a loop over its examples in float64; models whose norms would be wrong are refused."""

import copy
import gc
import weakref
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from issgd_cli import scores
from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.mlp import mlp
from issgd_cli.scores import forward, plan, squared_norms, supported_layers
from issgd_cli.scores.first_look import plan_of
from issgd_cli.scores.rules import PIECES

score = partial(scores.score, cross_entropy)
CLASSES = 5


def random_model(features: int, hidden: list[int], seed: int, bias: bool = True, scale: float = 1.0) -> nn.Sequential:
    """An MLP of random parameters, biases too; `scale` makes it confident."""
    random = torch.Generator().manual_seed(seed)
    widths = [features, *hidden, CLASSES]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * (1.5 / parameter.shape[-1] ** 0.5))
        list(model.children())[-1].weight.mul_(scale)  # type: ignore[operator]
    return model


def random_chunk(features: int, examples: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed + 1000)
    return torch.randn(examples, features, generator=random), torch.randint(CLASSES, (examples,), generator=random)


def exact_loss(logits: Tensor, label: Tensor) -> Tensor:
    """-log softmax of one example by a formula of its own: log(1 + sum over the others of exp(z_j - z_y))."""
    others = torch.arange(logits.shape[1]) != label
    return torch.log1p(torch.exp(logits[0, others] - logits[0, label]).sum())


def one_by_one(model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, squared norms and the summed gradient, by autograd in float64 of one example after the other."""
    if next(model.parameters()).dtype != torch.float64:
        model = copy.deepcopy(model).double()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses, squares = [], []
    total = torch.zeros(sum(parameter.numel() for parameter in trained), dtype=torch.float64)
    for number in range(len(labels)):
        loss = exact_loss(model(inputs[number : number + 1].double()), labels[number])
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained, materialize_grads=True)])
        losses.append(loss.detach())
        squares.append(gradient.square().sum())
        total += gradient
    return torch.stack(losses), torch.stack(squares), total


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("features", "hidden", "seed"), [(3, [], 0), (4, [6], 1), (10, [8, 7], 2), (20, [16, 16, 16, 16], 3), (1, [1], 4)]
)
def test_norms_losses_and_gradient_equal_a_loop_over_the_examples_in_float64(
    features: int, hidden: list[int], seed: int, bias: bool, with_gradient: bool
) -> None:
    model = random_model(features, hidden, seed, bias).double()
    inputs, labels = random_chunk(features, 13, seed)
    losses, squares, total = one_by_one(model, inputs, labels)
    scores = score(model, inputs.double(), labels, with_gradient)
    torch.testing.assert_close(scores.losses, losses, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(scores.squared_norms, squares, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(scores.norms, squares.sqrt(), rtol=1e-10, atol=1e-13)
    if with_gradient:
        assert scores.gradient is not None
        torch.testing.assert_close(scores.gradient, total, rtol=1e-10, atol=1e-12)
    else:
        assert scores.gradient is None


@pytest.mark.parametrize("seed", range(4))
def test_float32_norms_of_a_wide_model_are_within_a_hundred_thousandth_of_float64(seed: int) -> None:
    model = random_model(300, [64, 64, 64], seed)
    inputs, labels = random_chunk(300, 20, seed)
    _, squares, _ = one_by_one(model, inputs, labels)
    scores = score(model, inputs, labels)
    assert scores.squared_norms.dtype == torch.float32
    torch.testing.assert_close(scores.squared_norms.double(), squares, rtol=2e-5, atol=0)


def test_a_confident_examples_float32_norm_is_not_zero_but_right() -> None:
    model = random_model(10, [12, 12], 0, scale=40.0)
    inputs, _ = random_chunk(10, 40, 0)
    labels = model(inputs).argmax(1)  # predicted right, and surely
    losses, squares, _ = one_by_one(model, inputs, labels)
    sure = losses < 1e-8  # where float32's softmax is 1 exactly
    assert sure.sum() > 5
    scores = score(model, inputs, labels)
    normal = squares > 1e-30  # float32 holds their terms with all digits
    assert (normal & sure).any()
    assert (scores.squared_norms[normal] > 0).all()
    torch.testing.assert_close(scores.squared_norms[normal].double(), squares[normal], rtol=1e-3, atol=0)
    torch.testing.assert_close(scores.losses[normal].double(), losses[normal], rtol=1e-3, atol=0)


def test_errors_are_one_where_the_largest_logit_is_not_the_labels() -> None:
    model = random_model(6, [5], 0)
    inputs, labels = random_chunk(6, 30, 0)
    expected = (model(inputs).argmax(1) != labels).float()
    assert 0 < expected.mean() < 1
    torch.testing.assert_close(score(model, inputs, labels).errors, expected)


def test_scores_of_a_chunk_do_not_depend_on_who_else_is_in_it() -> None:
    model = random_model(6, [5, 4], 0).double()
    inputs, labels = random_chunk(6, 9, 0)
    together = score(model, inputs.double(), labels).squared_norms
    alone = torch.cat([score(model, inputs[n : n + 1].double(), labels[n : n + 1]).squared_norms for n in range(9)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU(), nn.LeakyReLU(0.1), nn.Dropout(0.0), nn.Softplus()])
def test_what_has_no_parameters_may_stand_between_the_layers(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), activation, nn.Linear(5, CLASSES)).double()
    inputs, labels = random_chunk(6, 7, 1)
    images = inputs.double().reshape(7, 2, 3)
    losses = [exact_loss(model(images[n : n + 1]), labels[n]) for n in range(7)]
    squares = [sum(p.square().sum() for p in torch.autograd.grad(loss, list(model.parameters()))) for loss in losses]
    expected = torch.tensor([float(square) for square in squares], dtype=torch.float64)
    torch.testing.assert_close(score(model, images, labels).squared_norms, expected, rtol=1e-10, atol=0)


# What is not computed, and what is left as it was


class MatrixProducts(TorchDispatchMode):
    """Counts the multiplications of all matrix products, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiplications = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            self.multiplications += left.shape[0] * left.shape[1] * right.shape[1]
        assert name not in ("bmm", "matmul", "baddbmm")
        return function(*args, **(kwargs or {}))


def test_scoring_multiplies_no_more_than_a_forward_pass_and_the_deltas_of_all_layers_but_the_first() -> None:
    widths, examples = [30, 20, 20, 20, CLASSES], 8
    model = random_model(30, [20, 20, 20], 0)
    products = [examples * a * b for a, b in pairwise(widths)]
    scoring = sum(products) + sum(products[1:])
    score(model, *random_chunk(30, examples, 0))  # the first look
    for with_gradient, expected in ((False, scoring), (True, scoring + sum(products))):
        with MatrixProducts() as counter:
            score(model, *random_chunk(30, examples, 0), with_gradient)
        assert counter.multiplications == expected


@pytest.mark.parametrize("with_gradient", [False, True])
def test_no_gradient_is_left_at_the_parameters(with_gradient: bool) -> None:
    model = random_model(6, [5, 4], 0)
    score(model, *random_chunk(6, 9, 0), with_gradient)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_model_keeps_its_flags_gradients_and_hooks() -> None:
    model = random_model(6, [5], 0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    score(model, *random_chunk(6, 9, 0), with_gradient=True)
    score(model, *random_chunk(6, 9, 0))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all((parameter.grad == 1).all() for parameter in model.parameters() if parameter.grad is not None)
    assert all(not layer._forward_hooks for layer in model.modules())


def test_flags_and_hooks_are_restored_even_after_an_error() -> None:
    model = random_model(6, [5], 0)
    inputs, labels = random_chunk(6, 9, 0)
    with pytest.raises(RuntimeError):
        score(model, inputs[:, :4], labels)  # too few features
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(not layer._forward_hooks for layer in model.modules())
    assert score(model, inputs, labels).squared_norms.shape == (9,)


def test_scoring_works_where_gradients_are_switched_off() -> None:
    model = random_model(6, [5], 0)
    inputs, labels = random_chunk(6, 9, 0)
    expected = score(model, inputs, labels).squared_norms
    with torch.no_grad():
        torch.testing.assert_close(score(model, inputs, labels).squared_norms, expected)


# Frozen layers


@pytest.mark.parametrize("frozen", [0, 2, 4])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_frozen_layer_is_left_out_of_the_norm_and_stays_frozen(frozen: int, with_gradient: bool) -> None:
    model = random_model(6, [5, 4], 0).double()
    model[frozen].requires_grad_(False)
    inputs, labels = random_chunk(6, 9, 0)
    _, squares, total = one_by_one(model, inputs, labels)
    scores = score(model, inputs.double(), labels, with_gradient)
    torch.testing.assert_close(scores.squared_norms, squares, rtol=1e-10, atol=0)
    if scores.gradient is not None:
        torch.testing.assert_close(scores.gradient, total, rtol=1e-10, atol=1e-13)
    assert not any(parameter.requires_grad for parameter in model[frozen].parameters())
    others = [layer for number, layer in enumerate(model) if number != frozen]
    assert all(parameter.requires_grad for layer in others for parameter in layer.parameters())


def test_a_layer_frozen_in_part_counts_in_part() -> None:
    model = random_model(6, [5], 0).double()
    next(iter(model[0].parameters())).requires_grad_(False)
    exact(model, *random_chunk(6, 9, 0))


def test_a_layer_that_is_frozen_after_the_first_look_is_left_out_from_then_on() -> None:
    model = random_model(6, [5, 4], 0).double()
    exact(model, *random_chunk(6, 9, 0))
    model[2].requires_grad_(False)
    exact(model, *random_chunk(6, 9, 0))


# Models that do more than one layer after the other


def ways(model: nn.Module) -> dict[str, str]:
    """How the norms over each host are found, once looked at."""
    return {unit.name.split()[0]: unit.way for unit in plan_of(cross_entropy, model, *(torch.empty(0),) * 2).units}


def exact(model: nn.Module, inputs: Tensor, labels: Tensor, by: dict[str, str] | None = None) -> None:
    """Holds a model's norms and gradient, twice, against a loop over the examples, all in float64."""
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    model = model.double()
    losses, squares, total = one_by_one(model, inputs, labels)
    for with_gradient in (True, False):
        scores = score(model, inputs, labels, with_gradient)
        torch.testing.assert_close(scores.losses, losses, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(scores.squared_norms, squares, rtol=1e-9, atol=1e-12)
        if scores.gradient is not None:
            torch.testing.assert_close(scores.gradient, total, rtol=1e-9, atol=1e-12)
    assert all(isinstance(each, nn.Parameter) for each in model.parameters())
    assert not any("forward" in vars(layer) and type(layer) in PIECES for layer in model.modules())
    if by is not None:
        assert ways(model) == by


def in_place_first() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, CLASSES))


def in_place_later() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, CLASSES))


class InPlaceResidual(nn.Module):
    """As torchvision's blocks do it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        hidden += inputs
        return self.last(hidden.relu_())  # type: ignore[no-any-return]


@pytest.mark.parametrize("build", [in_place_first, in_place_later, InPlaceResidual])
def test_what_changes_a_layers_output_in_place_does_not_change_its_norms(build: Callable[[], nn.Module]) -> None:
    exact(build(), *random_chunk(6, 9, 0))


class Twice(nn.Module):
    """Its middle layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.middle(self.first(inputs).relu()).relu()
        return self.last(self.middle(hidden))  # type: ignore[no-any-return]


class Around(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(functional.linear(inputs, self.first.weight, self.first.bias))  # type: ignore[no-any-return]


def test_a_layer_used_twice_falls_back_alone() -> None:
    exact(Twice(), *random_chunk(6, 9, 0), {"first": "rule", "middle": "fallback", "last": "rule"})


def test_the_same_layer_under_two_names_counts_once() -> None:
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, CLASSES))
    exact(model, *random_chunk(6, 9, 0), {"0": "fallback", "3": "rule"})


def test_a_layer_whose_weights_are_used_without_calling_it_falls_back_to_what_is_around() -> None:
    exact(Around(), *random_chunk(6, 9, 0), {"the": "fallback", "last": "rule"})


def test_a_layer_that_is_not_used_has_no_part_in_the_norms() -> None:
    class Unused(Twice):
        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.first(inputs))  # type: ignore[no-any-return]

    model = Unused().double()
    inputs, labels = random_chunk(6, 9, 0)
    scores = score(model, inputs.double(), labels, with_gradient=True)
    used = nn.Sequential(model.first, model.last)
    torch.testing.assert_close(scores.squared_norms, score(used, inputs.double(), labels).squared_norms)
    assert scores.gradients is not None
    assert [bool(each.any()) for each in scores.gradients] == [True, True, False, False, True, True]


class Scaled(nn.Linear):
    """Computes something else than its base."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 3 * super().forward(inputs)


class Named(nn.Linear):
    """Another name and nothing else."""


def patched() -> nn.Linear:
    layer = nn.Linear(6, 5)
    layer.forward = lambda inputs: functional.linear(inputs, layer.weight.tanh(), layer.bias)  # type: ignore[assignment,method-assign]
    return layer


def half_registered() -> nn.Linear:
    layer = nn.Linear(6, 5)
    layer.scale = nn.Parameter(torch.ones(5))
    return layer


DEPARTURES: dict[str, Callable[[], nn.Module]] = {
    "a subclass with a forward of its own": lambda: Scaled(6, 5),
    "a forward put in its place": patched,
    "pruned": lambda: prune.l1_unstructured(nn.Linear(6, 5), "weight", amount=0.5),  # type: ignore[no-untyped-call]
    "its bias pruned": lambda: prune.random_unstructured(nn.Linear(6, 5), "bias", amount=0.5),  # type: ignore[no-untyped-call]
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 5)),
    "weight norm by a hook": lambda: nn.utils.weight_norm(nn.Linear(6, 5)),
    "spectral norm by a hook": lambda: nn.utils.spectral_norm(nn.Linear(6, 5)),
    "a parameter more": half_registered,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated", "ignore:There is a performance drop")
@pytest.mark.parametrize("what", DEPARTURES)
def test_a_layer_that_may_compute_something_else_than_its_type_falls_back(what: str) -> None:
    model = nn.Sequential(DEPARTURES[what](), nn.ReLU(), nn.Linear(5, CLASSES)).eval()  # spectral norm learns else
    inputs, labels = random_chunk(6, 9, 0)
    exact(model, inputs, labels)
    found = ways(model)
    assert found.pop("2") == "rule"
    assert found
    assert "rule" not in found.values()


@pytest.mark.parametrize("seed", range(3))
def test_of_what_makes_a_weight_no_copies_are_given_out(seed: int) -> None:
    """In float32 torch's weight norm takes copies without an error, for something else than they are."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, CLASSES))
    inputs, labels = random_chunk(6, 9, seed)
    expected = one_by_one(model, inputs, labels)[1].float()
    torch.testing.assert_close(score(model, inputs, labels).squared_norms, expected, rtol=1e-4, atol=0)
    copied = [name for unit in plan_of(cross_entropy, model, inputs, labels).of("copies") for name in unit.parameters]
    assert copied == []


def test_a_layer_that_is_pruned_after_the_first_look_falls_back_from_then_on() -> None:
    model = random_model(6, [5], 0).double()
    exact(model, *random_chunk(6, 9, 0), {"0": "rule", "2": "rule"})
    prune.l1_unstructured(model[0], "weight", amount=0.5)  # type: ignore[no-untyped-call]
    exact(model, *random_chunk(6, 9, 0), {"0": "fallback", "2": "rule"})


@pytest.mark.parametrize(
    "harmless",
    [
        lambda: Named(6, 5),
        lambda: prune.remove(prune.l1_unstructured(nn.Linear(6, 5), "weight", amount=0.5), "weight"),  # type: ignore[no-untyped-call]
    ],
)
def test_a_layer_of_another_name_or_past_is_no_other_layer(harmless: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(harmless(), nn.ReLU(), nn.Linear(5, CLASSES)).double()
    inputs, labels = random_chunk(6, 9, 0)
    _, squares, _ = one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(model, inputs.double(), labels).squared_norms, squares, rtol=1e-10, atol=0)


class Beside(nn.Module):
    """Uses what belongs to its first layer in another way, too."""

    def __init__(self, use: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.use = nn.Linear(6, 6), nn.Linear(6, CLASSES), use

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).tanh() + self.use(self.first, inputs))  # type: ignore[no-any-return]


USES: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "as a tied decoder": lambda layer, inputs: inputs @ layer.weight.t(),
    "functionally": lambda layer, inputs: functional.linear(inputs, layer.weight, layer.bias),
    "its bias alone": lambda layer, inputs: inputs + layer.bias,
    "its norm": lambda layer, inputs: inputs * layer.weight.norm(),
    "one row": lambda layer, inputs: inputs * layer.weight[0],
}


@pytest.mark.parametrize("use", USES)
def test_a_weight_used_beside_its_layer_falls_back_to_what_is_around(use: str) -> None:
    model = Beside(USES[use])
    exact(model, *random_chunk(6, 9, 0))
    assert ways(model)["the"] == "fallback"
    assert ways(model)["last"] == "rule"


def test_a_weight_that_is_used_beside_its_layer_only_later_is_refused() -> None:
    uses: list[Callable[[nn.Linear, Tensor], Tensor]] = [lambda layer, inputs: inputs]
    model = Beside(lambda layer, inputs: uses[-1](layer, inputs))
    exact(model, *random_chunk(6, 9, 0))
    uses.append(USES["one row"])
    with pytest.raises(LayerError, match=r"first .*used beside its calls"):
        exact(model, *random_chunk(6, 9, 0))


@pytest.mark.parametrize(
    "use",
    [
        lambda layer, inputs: inputs.to(layer.weight.dtype),
        lambda layer, inputs: inputs * layer.weight.detach().norm(),
        lambda layer, inputs: inputs * layer.weight.shape[0],
    ],
)
def test_looking_at_a_weight_without_a_gradient_is_no_use(use: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    score(Beside(use), *random_chunk(6, 9, 0))


class Discarding(nn.Module):
    """Calls a layer for nothing."""

    def __init__(self, also_around: bool) -> None:
        super().__init__()
        self.first, self.last, self.also_around = nn.Linear(6, 6), nn.Linear(6, CLASSES), also_around

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.first(inputs)
        hidden = functional.linear(inputs, self.first.weight, self.first.bias) if self.also_around else inputs
        return self.last(hidden + found.detach())  # type: ignore[no-any-return]


class Sometimes(nn.Module):
    """Calls a layer for nothing, too, and more often on request."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.twice = nn.Linear(6, 6), nn.Linear(6, CLASSES), False

    def forward(self, inputs: Tensor) -> Tensor:
        self.first(inputs.flip(1))
        hidden = self.first(inputs).tanh()
        return self.last(self.first(hidden) if self.twice else hidden)  # type: ignore[no-any-return]


def test_a_call_for_nothing_is_no_call_and_one_more_that_counts_is_right_too() -> None:
    model, (inputs, labels) = Sometimes().double(), random_chunk(6, 9, 0)
    exact(model, inputs, labels, {"first": "rule", "last": "rule"})
    model.twice = True
    exact(model, inputs, labels)


def test_rows_that_later_are_no_examples_are_refused() -> None:
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.fold = nn.Linear(6, 6), nn.Linear(6, CLASSES), False

        def forward(self, inputs: Tensor) -> Tensor:
            rows = inputs.repeat_interleave(2, 0) if self.fold else inputs
            hidden = self.first(rows)
            return self.last(hidden.reshape(len(inputs), -1, 6).mean(1))  # type: ignore[no-any-return]

    model, (inputs, labels) = Folding().double(), random_chunk(6, 9, 0)
    exact(model, inputs, labels, {"first": "rule", "last": "rule"})
    model.fold = True
    with pytest.raises(LayerError, match=r"first .*meets other rows"):
        score(model, inputs.double(), labels)


@pytest.mark.parametrize("also_around", [False, True])
def test_a_layer_that_is_called_for_nothing_counts_only_by_what_else_is_done_with_it(also_around: bool) -> None:
    model = Discarding(also_around).double()
    inputs, labels = random_chunk(6, 9, 0)
    scores = score(model, inputs.double(), labels)
    losses = [cross_entropy(model(inputs[n : n + 1].double()), labels[n : n + 1]).sum() for n in range(9)]
    of = [torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True) for loss in losses]
    expected = torch.stack([sum((each.square().sum() for each in own), torch.zeros(())) for own in of])
    torch.testing.assert_close(scores.squared_norms, expected.double(), rtol=1e-9, atol=0)


def test_a_hook_that_changes_a_layers_output_does_not_change_what_the_norm_is_of() -> None:
    model = random_model(6, [5, 4], 0).double()
    model[0].register_forward_hook(lambda layer, given, output: 3 * output)
    inputs, labels = random_chunk(6, 9, 0)
    _, squares, _ = one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(model, inputs.double(), labels).squared_norms, squares, rtol=1e-10, atol=0)


def test_a_weight_used_beside_its_layer_is_seen_where_autocast_keeps_one_copy_for_both() -> None:
    class Cast(Beside):
        def forward(self, inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(inputs).float()

    model = Cast(USES["functionally"])
    inputs, labels = random_chunk(6, 9, 0)
    squares = score(model, inputs, labels).squared_norms
    assert ways(model)["the"] == "fallback"
    plain = Beside(USES["functionally"])
    plain.load_state_dict(model.state_dict())
    _, expected, _ = one_by_one(plain, inputs, labels)
    torch.testing.assert_close(squares.double(), expected, rtol=0.1, atol=0)
    score(Cast(lambda layer, inputs: inputs), *random_chunk(6, 9, 0))


@pytest.mark.parametrize("with_gradient", [False, True])
def test_an_input_that_is_changed_after_the_layer_was_called_is_refused(with_gradient: bool) -> None:
    class Reusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            own = inputs * 1
            hidden = self.first(own)
            own.div_(255)
            return self.last(hidden.relu())  # type: ignore[no-any-return]

    with pytest.raises(LayerError, match=r"changes what first .* was given"):
        score(Reusing(), *random_chunk(6, 9, 0), with_gradient)


def test_a_layer_may_be_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self, model: nn.Sequential) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.model[2](input=self.model[0](input=inputs).relu())  # type: ignore[no-any-return]

    model = random_model(6, [5], 0)
    inputs, labels = random_chunk(6, 9, 0)
    expected = score(model, inputs, labels).squared_norms
    torch.testing.assert_close(score(Named(model), inputs, labels).squared_norms, expected)


def test_a_residual_use_of_a_layers_output_is_no_second_use_of_its_weights() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.first(inputs)
            return self.last(hidden + self.middle(hidden.tanh()))  # type: ignore[no-any-return]

    model = Residual().double()
    inputs, labels = random_chunk(6, 9, 0)
    _, squares, _ = one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(model, inputs.double(), labels).squared_norms, squares, rtol=1e-10, atol=0)


def test_half_precisions_norms_are_summed_in_float32() -> None:
    model = random_model(30, [20, 20], 0)
    inputs, labels = random_chunk(30, 9, 0)
    assert score(model.bfloat16(), inputs.bfloat16(), labels).squared_norms.dtype == torch.float32


def test_a_model_that_is_frozen_as_a_whole_is_refused() -> None:
    with pytest.raises(LayerError, match="No parameter of the model is trained"):
        score(random_model(6, [5], 0).requires_grad_(False), *random_chunk(6, 9, 0))


def test_a_layer_that_meets_other_rows_than_the_examples_falls_back_to_what_is_around() -> None:
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(8, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.first(inputs.reshape(-1, 3)).reshape(-1, 8))  # type: ignore[no-any-return]

    exact(Folding(), *random_chunk(6, 9, 0), {"the": "fallback", "last": "rule"})


def test_tied_parameters_fall_back_together() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    model[2].weight = model[0].weight
    exact(model, *random_chunk(6, 9, 0), {"the": "fallback", "0": "fallback", "2": "fallback", "4": "rule"})


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_is_refused_because_it_mixes_examples(affine: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=affine), nn.Linear(5, CLASSES))
    with pytest.raises(LayerError, match=r"1 \(BatchNorm1d\) mixes the examples"):
        score(model, *random_chunk(6, 9, 0))


@pytest.mark.parametrize("center", [lambda hidden: hidden - hidden.mean(0), lambda hidden: hidden.roll(1, 0)])
def test_a_model_that_mixes_or_reorders_examples_is_refused_by_the_first_look(center: Any) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(center(self.first(inputs).tanh()))  # type: ignore[no-any-return]

    with pytest.raises(LayerError, match=r"first \(Linear\), found by rule.*mixes or reorders"):
        score(Mixing(), *random_chunk(6, 9, 0))


def test_a_wrong_rule_is_told_by_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "squared_norms", lambda layer, *given: squared_norms(layer, *given) * 1.01)
    with pytest.raises(LayerError, match=r"2 parts.*0 \(Linear\), found by rule.*report it"):
        score(random_model(6, [5], 0), *random_chunk(6, 9, 0))


@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_chunk_that_memory_does_not_hold_is_scored_in_slices(
    monkeypatch: pytest.MonkeyPatch, with_gradient: bool
) -> None:
    model, (inputs, labels) = random_model(6, [5, 4], 0).double(), random_chunk(6, 11, 0)
    model.register_buffer("large", torch.empty(1000, 1000))
    inputs, factors = inputs.double().repeat(100, 1)[:11], torch.rand(11, dtype=torch.float64) + 0.5
    whole = score(model, inputs, labels, with_gradient, factors)
    saved = plan_of(cross_entropy, model, inputs, labels).bytes
    assert 8 * (6 + 5 + 4) <= saved <= 8 * 4 * (6 + 5 + 4)  # not the weights, nor what a view is a part of
    monkeypatch.setattr(plan, "BUDGET", 4 * saved)
    rows: list[int] = []
    hook = model.register_forward_hook(lambda layer, given, output: rows.append(len(output)))
    parts = score(model, inputs, labels, with_gradient, factors)
    hook.remove()
    assert rows == [4, 4, 3]
    torch.testing.assert_close(parts.losses, whole.losses)
    torch.testing.assert_close(parts.errors, whole.errors)
    torch.testing.assert_close(parts.squared_norms, whole.squared_norms)
    torch.testing.assert_close(parts.gradient, whole.gradient)


def test_a_gpu_has_a_share_of_its_own_memory_for_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    assert plan.budget(torch.device("cuda", 0)) == 5 * 2**30
    memory.total_memory = 2**30  # a small one holds no less than a CPU's
    assert plan.budget(torch.device("cuda", 0)) == plan.budget(torch.device("cpu")) == plan.BUDGET


def test_rounding_is_no_wrong_rule() -> None:
    model = random_model(10, [12, 12], 0, scale=200.0)
    inputs, _ = random_chunk(10, 40, 0)
    score(model, inputs, model(inputs).argmax(1))


def test_the_papers_model_goes_by_rules_alone() -> None:
    model = mlp(3072, [16, 16, 16, 16], 10)
    inputs, labels = random_chunk(3072, 4, 0)
    score(model, inputs, labels)
    assert set(ways(model).values()) == {"rule"}
    assert "Linear" in supported_layers()


def test_a_model_is_not_kept_alive_by_its_plan() -> None:
    model = Around()
    score(model, *random_chunk(6, 9, 0))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_scoring_never_touches_the_global_generators() -> None:
    model = random_model(6, [5], 0)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
    score(model, *random_chunk(6, 9, 0), with_gradient=True)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert str(np.random.get_state(legacy=False)) == str(numpy_before)
