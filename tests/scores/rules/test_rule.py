"""Where a layer departs from its type, for every kind of layer that has a rule, and where it doesn't."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score, squared_norms, supported_layers
from issgd_cli.scores.rules import departure
from issgd_cli.scores.rules.rule import PARAMETERS
from tests.loops import normal

# One of each type that has a rule.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": partial(nn.Linear, 4, 4),
    "Conv1d": partial(nn.Conv1d, 4, 4, 2),
    "Conv2d": partial(nn.Conv2d, 4, 4, 2),
    "Conv3d": partial(nn.Conv3d, 4, 4, 2),
    "ConvTranspose1d": partial(nn.ConvTranspose1d, 4, 4, 2),
    "ConvTranspose2d": partial(nn.ConvTranspose2d, 4, 4, 2),
    "ConvTranspose3d": partial(nn.ConvTranspose3d, 4, 4, 2),
    "Embedding": partial(nn.Embedding, 4, 4),
    "EmbeddingBag": partial(nn.EmbeddingBag, 4, 4),
    "LayerNorm": partial(nn.LayerNorm, 4),
    "RMSNorm": partial(nn.RMSNorm, 4),
    "GroupNorm": partial(nn.GroupNorm, 2, 4),
    "InstanceNorm1d": partial(nn.InstanceNorm1d, 4, affine=True),
    "InstanceNorm2d": partial(nn.InstanceNorm2d, 4, affine=True),
    "InstanceNorm3d": partial(nn.InstanceNorm3d, 4, affine=True),
    "BatchNorm1d": lambda: nn.BatchNorm1d(4).eval(),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4).eval(),
    "BatchNorm3d": lambda: nn.BatchNorm3d(4).eval(),
}


def of_class(layer: nn.Module, **attributes: Any) -> nn.Module:
    """The layer as one of a class of its own."""
    layer.__class__ = type("Own", (type(layer),), attributes)
    return layer


def with_attribute(layer: nn.Module, name: str, value: Any) -> nn.Module:
    vars(layer)[name] = value
    return layer


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def with_parameter(layer: nn.Module) -> nn.Module:
    layer.scale = nn.Parameter(torch.ones(4))
    return layer


def with_gradient_hook(layer: nn.Module) -> nn.Module:
    next(layer.parameters()).register_hook(lambda gradient: 0 * gradient)  # type: ignore[no-untyped-call]
    return layer


DEPARTURES: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "a class's forward": (lambda layer: of_class(layer, forward=lambda self, inputs: inputs), "forward of its own"),
    "a class's call": (lambda layer: of_class(layer, __call__=lambda self, inputs: inputs), "forward of its own"),
    "a class's inner call": (lambda layer: of_class(layer, _call_impl=lambda self, inputs: 0), "forward of its own"),
    "a class's weight": (lambda layer: of_class(layer, weight=property(lambda self: 0)), "its weight is computed"),
    "a class's look-up": (
        lambda layer: of_class(layer, __getattr__=lambda self, name: nn.Module.__getattr__(self, name)),
        "forward of its own",
    ),
    "an object's forward": (lambda layer: with_attribute(layer, "forward", abs), "forward of its own"),
    "an object's inner call": (lambda layer: with_attribute(layer, "_call_impl", abs), "forward of its own"),
    "an object's weight": (lambda layer: with_attribute(layer, "weight", torch.ones(1)), "its weight is computed"),
    "parametrised": (parametrised, "own parameters are"),
    "pruned": (partial(prune.l1_unstructured, name="weight", amount=0.5), "own parameters are"),
    "a parameter more": (with_parameter, "own parameters are"),
    "a hook on its gradient": (with_gradient_hook, "hook on its weight"),
    "complex": (lambda layer: layer.to(torch.complex64), "complex weight"),
}


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("what", DEPARTURES)
def test_a_layer_that_may_compute_something_else_than_its_type_is_told(what: str, kind: str) -> None:
    spoil, words = DEPARTURES[what]
    assert words in str(departure(spoil(LAYERS[kind]())))


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "Conv3d"])
def test_what_a_convolutions_forward_calls_is_its_computation_too(kind: str) -> None:
    class Scaled(LAYERS[kind]().__class__):  # type: ignore[misc]
        def _conv_forward(self, *given: Any) -> Tensor:
            return 2 * super()._conv_forward(*given)  # type: ignore[no-any-return]

    assert "forward of its own" in str(departure(Scaled(4, 4, 2)))
    assert "forward of its own" in str(departure(with_attribute(LAYERS[kind](), "_conv_forward", abs)))


@pytest.mark.parametrize(
    ("kind", "name"), [("ConvTranspose2d", "_output_padding"), ("InstanceNorm2d", "_apply_instance_norm")]
)
def test_what_other_forwards_call_is_their_computation_too(kind: str, name: str) -> None:
    assert "forward of its own" in str(departure(of_class(LAYERS[kind](), **{name: lambda self, *given: given})))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d", "Embedding"])
@pytest.mark.parametrize(
    "reparametrise",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
    ],
)
def test_reparametrised_layers_are_told(reparametrise: Callable[[nn.Module], nn.Module], kind: str) -> None:
    assert "own parameters are" in str(departure(reparametrise(LAYERS[kind]())))


HARMLESS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as it is": lambda layer: layer,
    "another name": of_class,
    "a class that looks different": lambda layer: of_class(
        layer, extra_repr=lambda self: "", reset_parameters=lambda self: None, helper=lambda self: 0
    ),
    "reparametrised and not any more": lambda layer: parametrize.remove_parametrizations(parametrised(layer), "weight"),
    "pruned for good": lambda layer: prune.remove(prune.l1_unstructured(layer, "weight", amount=0.5), "weight"),  # type: ignore[no-untyped-call]
    "frozen": lambda layer: layer.requires_grad_(False),
    "in double precision": lambda layer: layer.double(),
    "with an attribute": lambda layer: with_attribute(layer, "note", "first"),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("what", HARMLESS)
def test_a_layer_of_another_name_or_past_is_no_other_layer(what: str, kind: str) -> None:
    assert departure(HARMLESS[what](LAYERS[kind]())) is None


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    ("lazy", "inputs"),
    [
        (partial(nn.LazyLinear, 3), (2, 4)),
        (partial(nn.LazyConv2d, 3, 2), (2, 4, 5, 5)),
        (partial(nn.LazyConvTranspose1d, 3, 2), (2, 4, 5)),
        (partial(nn.LazyInstanceNorm1d, affine=True), (2, 4, 5)),
    ],
)
def test_a_lazy_layer_is_the_plain_one_from_its_first_call_on(
    lazy: Callable[[], nn.Module], inputs: tuple[int, ...]
) -> None:
    layer = lazy()
    assert "lazy" in str(departure(layer))
    output = layer(normal(*inputs))
    assert departure(layer) is None
    assert squared_norms(layer, normal(*inputs), torch.ones_like(output)).shape == (2,)


def test_all_types_that_have_a_rule_are_tested_here_and_listed() -> None:
    assert supported_layers() == sorted(LAYERS)
    assert {type(make()) for make in LAYERS.values()} == set(PARAMETERS)
    for make in LAYERS.values():
        assert set(make()._parameters) == PARAMETERS[type(make())]


@pytest.mark.parametrize("layer", [nn.PReLU(), nn.LSTM(2, 2), nn.Bilinear(2, 2, 2)])
def test_a_layer_with_no_rule_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(LayerError, match=rf"{type(layer).__name__} layer.*Conv2d, .*Linear"):
        departure(layer)


def test_a_hook_that_changes_a_layers_inputs_changes_what_the_rule_is_given() -> None:
    """A hook before the call, a user's, is no departure: the layer computes what its type does, of other inputs."""
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 4)).double()
    model[0].register_forward_pre_hook(lambda layer, given: (given[0].tanh() * 3,))
    model[2].register_forward_hook(lambda layer, given, output: output.tanh())
    inputs, labels = normal(5, 2, 4).double(), torch.tensor([0, 1, 2, 3, 0])
    assert departure(model[0]) is None
    squares = []
    for number in range(5):
        loss = cross_entropy(model(inputs[number : number + 1]), labels[number : number + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        squares.append(float(sum(gradient.square().sum() for gradient in gradients)))
    found = score(cross_entropy, model, inputs, labels).squared_norms
    torch.testing.assert_close(found, torch.tensor(squares, dtype=torch.float64))
