"""Scores of a chunk against a loop over its examples in float64; models whose norms would be wrong are refused."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
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
from issgd_cli.scores import refuse_unsupported, supported_layers

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
    model = copy.deepcopy(model).double()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses, squares = [], []
    total = torch.zeros(sum(parameter.numel() for parameter in trained), dtype=torch.float64)
    for number in range(len(labels)):
        loss = exact_loss(model(inputs[number : number + 1].double()), labels[number])
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)])
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


def test_a_layer_frozen_in_part_is_refused() -> None:
    model = random_model(6, [5], 0)
    next(iter(model[0].parameters())).requires_grad_(False)
    with pytest.raises(LayerError, match=r"0 \(Linear\) is trained in part only"):
        score(model, *random_chunk(6, 9, 0))


# Refusals


def in_place_first() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, CLASSES))


def in_place_later() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, CLASSES))


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("build", [in_place_first, in_place_later])
def test_an_in_place_relu_after_a_layer_is_refused(build: Callable[[], nn.Module], with_gradient: bool) -> None:
    model = build()
    with pytest.raises(LayerError, match=r"in-place operation.*inplace=False"):
        score(model, *random_chunk(6, 9, 0), with_gradient)
    assert all(parameter.requires_grad for parameter in model.parameters())


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


def test_a_layer_used_twice_is_refused() -> None:
    with pytest.raises(LayerError, match="used twice"):
        score(Twice(), *random_chunk(6, 9, 0))


def test_the_same_layer_under_two_names_is_refused() -> None:
    layer = nn.Linear(6, 6)
    with pytest.raises(LayerError, match="used twice"):
        score(nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, CLASSES)), *random_chunk(6, 9, 0))


def test_a_layer_whose_weights_are_used_without_calling_it_is_refused() -> None:
    with pytest.raises(LayerError, match="first"):
        score(Around(), *random_chunk(6, 9, 0))


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


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("what", DEPARTURES)
def test_a_layer_that_may_compute_something_else_than_its_type_is_refused_by_name(what: str) -> None:
    model = nn.Sequential(DEPARTURES[what](), nn.ReLU(), nn.Linear(5, CLASSES))
    with pytest.raises(
        LayerError, match=r"^0(\.parametrizations\.weight)? .*(forward of its own|parameters are|No rule)|No rule"
    ):
        score(model, *random_chunk(6, 9, 0))


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


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("use", USES)
def test_a_weight_used_beside_its_layer_is_refused_by_name(use: str, with_gradient: bool) -> None:
    with pytest.raises(LayerError, match=r"^first: its (weight|bias) has a part in the loss 2 times"):
        score(Beside(USES[use]), *random_chunk(6, 9, 0), with_gradient)


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


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("also_around", [False, True])
def test_a_layer_whose_output_has_no_part_in_the_loss_is_refused(also_around: bool, with_gradient: bool) -> None:
    with pytest.raises(LayerError, match="first"):
        score(Discarding(also_around), *random_chunk(6, 9, 0), with_gradient)


def test_a_hook_that_changes_a_layers_output_does_not_change_what_the_norm_is_of() -> None:
    model = random_model(6, [5, 4], 0).double()
    model[0].register_forward_hook(lambda layer, given, output: 3 * output)
    inputs, labels = random_chunk(6, 9, 0)
    _, squares, _ = one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(model, inputs.double(), labels).squared_norms, squares, rtol=1e-10, atol=0)


def test_a_weight_used_beside_its_layer_is_refused_where_autocast_keeps_one_copy_for_both() -> None:
    class Cast(Beside):
        def forward(self, inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(inputs).float()

    with pytest.raises(LayerError, match=r"^first: its (weight|bias) has a part in the loss 2 times"):
        score(Cast(USES["functionally"]), *random_chunk(6, 9, 0))
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

    with pytest.raises(LayerError, match="input or output of first"):
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


def test_rows_that_are_no_examples_are_refused() -> None:
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(8, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.first(inputs.reshape(-1, 3)).reshape(-1, 8))  # type: ignore[no-any-return]

    with pytest.raises(LayerError, match="first met 18 rows for 9 examples"):
        score(Folding(), *random_chunk(6, 9, 0))


def test_tied_parameters_are_refused_and_both_owners_named() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    model[2].weight = model[0].weight
    with pytest.raises(LayerError, match=r"2 \(Linear\) shares a parameter with 0 \(Linear\)"):
        score(model, *random_chunk(6, 9, 0))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_is_refused_because_it_mixes_examples(affine: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=affine), nn.Linear(5, CLASSES))
    with pytest.raises(LayerError, match=r"1 \(BatchNorm1d\) mixes the examples"):
        score(model, *random_chunk(6, 9, 0))


@pytest.mark.parametrize("layer", [nn.PReLU(), nn.LSTM(6, 6), nn.Bilinear(2, 2, 2)])
def test_a_layer_with_no_rule_is_refused_by_name_and_those_that_have_one_are_listed(layer: nn.Module) -> None:
    with pytest.raises(LayerError, match=rf"{type(layer).__name__} layer.*Linear"):
        refuse_unsupported(nn.Sequential(nn.Linear(6, 6), layer))


def test_a_parameter_of_the_models_own_is_refused() -> None:
    model = Around()
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(LayerError, match="Around"):
        refuse_unsupported(model)


def test_weights_that_are_shared_along_further_axes_have_the_norm_of_their_sum() -> None:
    class OverTime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.first(inputs).tanh().mean(1))  # type: ignore[no-any-return]

    model, (inputs, labels) = OverTime().double(), random_chunk(6, 9, 0)
    inputs = inputs.reshape(9, 2, 3)
    _, squares, _ = one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(model, inputs.double(), labels).squared_norms, squares, rtol=1e-10, atol=0)


def test_the_papers_model_is_accepted() -> None:
    refuse_unsupported(mlp(3072, [16, 16, 16, 16], 10))
    assert "Linear" in supported_layers()


def test_scoring_never_touches_the_global_generators() -> None:
    model = random_model(6, [5], 0)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
    score(model, *random_chunk(6, 9, 0), with_gradient=True)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert str(np.random.get_state(legacy=False)) == str(numpy_before)
