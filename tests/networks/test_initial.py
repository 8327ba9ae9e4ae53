"""Initial parameters: torch's laws, but of the run's seed alone."""

import math

import pytest
import torch
from torch import nn

from issgd_cli.networks.initial import EMBEDDING_STD, initialise
from issgd_cli.networks.transformer import ClassToken, Positions


def test_linear_and_convolutional_layers_are_uniform_as_torchs() -> None:
    layers = [nn.Linear(400, 300), nn.Conv2d(16, 200, 5)]
    model = nn.Sequential(*layers)
    torchs = [parameter.detach().clone() for parameter in model.parameters()]  # as torch has drawn them
    initialise(model, 0)
    for parameter, theirs in zip(model.parameters(), torchs, strict=True):
        ours = parameter.detach()
        assert not torch.equal(ours, theirs)
        assert float(ours.abs().max()) <= 0.05 * (1 + 1e-6)
        assert float(ours.std()) == pytest.approx(0.05 / math.sqrt(3), rel=0.15)
        assert float(theirs.std()) == pytest.approx(0.05 / math.sqrt(3), rel=0.15)
        assert abs(float(ours.mean())) < 5 * 0.05 / math.sqrt(3 * ours.numel())


def test_what_is_normalised_begins_as_it_is() -> None:
    for layer in (nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.BatchNorm2d(4)):
        for parameter in layer.parameters():
            nn.init.constant_(parameter, 7.0)
        initialise(layer, 0)
        assert layer.weight.tolist() == [1.0] * 4
        assert layer.bias.tolist() == [0.0] * 4


def test_embeddings_positions_and_class_tokens_are_small_and_padding_is_nothing() -> None:
    embedding = nn.Embedding(500, 40, padding_idx=0)
    for layer in (embedding, Positions(500, 40), ClassToken(20_000)):
        initialise(layer, 1)
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        assert float(weight.detach().std()) == pytest.approx(EMBEDDING_STD, rel=0.05)
    assert not embedding.weight[0].any()
    assert embedding.weight[1].any()


def test_each_parameter_has_draws_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    initialise(model, 0)
    first, second = model.get_parameter("0.weight"), model.get_parameter("1.weight")
    assert not torch.equal(first, second)
    wider = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 9))
    initialise(wider, 0)
    assert torch.equal(wider.get_parameter("0.weight"), first)


def test_a_layer_without_a_law_is_refused() -> None:
    with pytest.raises(TypeError, match="No initial law for the weight of a Bilinear"):
        initialise(nn.Bilinear(2, 2, 2), 0)
