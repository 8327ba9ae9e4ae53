"""The model's shape and its initial weights."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from tests.networks.made import made


def linear_layers(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def stds(model: nn.Sequential) -> list[float]:
    return [float(layer.weight.detach().std()) for layer in linear_layers(model)]


def test_layers_are_linear_with_relu_between_and_logits_at_the_end() -> None:
    model = mlp(7, [5, 4], 3)
    assert [type(layer).__name__ for layer in model] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in linear_layers(model)] == [(5, 7), (4, 5), (3, 4)]
    assert not any(layer.inplace for layer in model if isinstance(layer, nn.ReLU))


def test_the_papers_model_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        model = mlp(3072, [2048] * 4, 10)
    assert sum(p.numel() for p in model.parameters()) == 3073 * 2048 + 3 * 2049 * 2048 + 2049 * 10


def test_below_width_2048_the_hidden_layers_after_the_first_start_wider() -> None:
    model = mlp(600, [128, 256, 512], 200)
    initialise(model, 0)
    expected = [0.01, 0.01 * math.sqrt(2048 / 128), 0.01 * math.sqrt(2048 / 256), 0.01]
    assert stds(model) == pytest.approx(expected, rel=0.02)


def test_at_width_2048_every_layer_starts_as_the_originals() -> None:
    model = mlp(50, [2048, 2048], 100)
    initialise(model, 0)
    assert stds(model) == pytest.approx([0.01] * 3, rel=0.02)


def test_a_given_std_is_every_layers() -> None:
    model = mlp(300, [128, 128], 200)
    initialise(model, 0, std=0.3)
    assert stds(model) == pytest.approx([0.3] * 3, rel=0.02)


def test_weights_are_normal_with_mean_zero_and_biases_zero() -> None:
    model = mlp(1000, [300], 10)
    initialise(model, 0)
    weights = linear_layers(model)[0].weight.detach().numpy().ravel() / 0.01
    assert abs(weights.mean()) < 4 / math.sqrt(weights.size)
    assert (np.abs(weights) > 2).mean() == pytest.approx(0.0455, rel=0.05)  # a normal's tails
    assert all((layer.bias == 0).all() for layer in linear_layers(model))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    vectors = []
    for seed in (0, 0, 1):
        model = mlp(6, [5, 5], 3)
        initialise(model, seed)
        vectors.append(flatten_parameters(model).clone())
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


def test_layers_of_one_shape_start_different() -> None:
    model = mlp(5, [5, 5], 5)
    initialise(model, 0, std=1.0)
    first, second, third = (layer.weight for layer in linear_layers(model))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_initial_weights_owe_nothing_to_the_global_generators() -> None:
    model = mlp(6, [5], 3)
    state = torch.get_rng_state()
    initialise(model, 0)
    assert torch.equal(torch.get_rng_state(), state)
    before = flatten_parameters(model).clone()
    torch.randn(7)
    initialise(model, 0)
    assert torch.equal(flatten_parameters(model), before)


def test_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'mlp' is for numbers; the examples are texts of shape \(7,\)\. Use 'text'"):
        made("mlp", sizes=Sizes((7,), 3, tokens=11))


def test_examples_of_any_shape_are_met_as_rows() -> None:
    model = mlp(24, [5], 3)
    inputs = torch.randn(4, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(inputs), model(inputs.reshape(4, 24)))
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
