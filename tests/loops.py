"""What the rules are held against: autograd in float64, one example after the other."""

import copy

import torch
from hypothesis import settings
from torch import Tensor, nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores.rules import squared_norms

# Drawn the same way each time; shapes are small.
drawn = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def one_by_one(layer: nn.Module, inputs: Tensor, deltas: Tensor) -> Tensor:
    """Squared norms over the layer's parameters, shape (B,), of losses whose output gradients are the deltas."""
    layer = copy.deepcopy(layer).double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    squares = []
    for number in range(len(inputs)):
        output = layer(inputs[number : number + 1])
        gradients = torch.autograd.grad(output, list(layer.parameters()), deltas[number : number + 1].double())
        squares.append(sum(gradient.square().sum() for gradient in gradients))
    return torch.stack([torch.as_tensor(square) for square in squares])


def squares_one_by_one(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Squared norms of each example's cross-entropy over all of a model's trained parameters, in its own precision."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    squares = []
    for number in range(len(labels)):
        loss = cross_entropy(model(inputs[number : number + 1]), labels[number : number + 1]).sum()
        gradients = torch.autograd.grad(loss, trained, materialize_grads=True)
        squares.append(torch.stack([gradient.square().sum() for gradient in gradients]).sum())
    return torch.stack(squares)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def deltas_for(layer: nn.Module, inputs: Tensor, seed: int = 1) -> Tensor:
    """Gradients of the outputs' shape that have a mean, too."""
    with torch.no_grad():
        return normal(*copy.deepcopy(layer)(inputs).shape, seed=seed) + 0.3


def check(layer: nn.Module, inputs: Tensor) -> None:
    """Asserts that the rule is exact in float64, within 1e-5 in float32, and so of what half precision leaves."""
    deltas = deltas_for(layer, inputs)
    expected = one_by_one(layer, inputs, deltas)
    largest = float(expected.max()) if len(expected) else 0.0  # an example's terms may cancel to nothing
    is_token = not inputs.is_floating_point()
    exact = squared_norms(copy.deepcopy(layer).double(), inputs if is_token else inputs.double(), deltas.double())
    torch.testing.assert_close(exact, expected, rtol=1e-10, atol=1e-12 * largest)
    single = squared_norms(layer, inputs, deltas)
    assert single.dtype == torch.float32
    assert single.shape == (len(inputs),)
    assert (single >= 0).all()
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-6 * largest)
    for half in (torch.bfloat16, torch.float16):
        rounded, given, delta = copy.deepcopy(layer).to(half), inputs if is_token else inputs.to(half), deltas.to(half)
        found, expected = squared_norms(rounded, given, delta), one_by_one(rounded, given, delta)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6 * largest)
