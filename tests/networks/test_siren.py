"""The SIREN: its sines, how it begins, its norms, and that it learns a picture."""

import math

import numpy as np
import pytest
import torch

from issgd_cli.errors import ConfigError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.losses.squared import squared
from issgd_cli.networks import Sizes
from issgd_cli.scores.gradient_norm import score
from tests.loops import squares_one_by_one
from tests.networks.made import initial, inputs_of, made


def test_it_is_linear_layers_with_sines_between() -> None:
    model = initial("siren", "siren.layers=3", "siren.w0=7.0")
    inputs = inputs_of("siren", 4)
    values = inputs.double().numpy()
    weights = [parameter.detach().double().numpy() for parameter in model.parameters()]
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        values = np.sin(7 * (values @ weight.T + bias))
    np.testing.assert_allclose(model(inputs).detach(), values @ weights[-2].T + weights[-1], rtol=1e-4, atol=1e-5)


def test_weights_begin_as_sitzmann_et_al_have_them() -> None:
    model = initial("siren", "siren.width=300", "siren.layers=4", "siren.w0=20.0", sizes=Sizes((2,), 200))
    bounds = [1 / 2, *[math.sqrt(6 / 300) / 20] * 3]
    for number, bound in enumerate(bounds):
        weight = model.get_parameter(f"layers.{number}.weight").detach()
        assert 0.98 * bound < float(weight.abs().max()) <= bound * (1 + 1e-6)
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_activations_keep_their_spread_however_deep_it_is() -> None:
    """What the law is for: beyond the first, the weights' part of a sine's argument has a variance of 1.

    The biases, which the law says nothing of, add that of w0 times a uniform number within +-1 / sqrt(256).
    """
    model = initial("siren", "siren.width=256", "siren.layers=8", sizes=Sizes((2,), 3))
    values = 2 * torch.rand(2_000, 2, generator=torch.Generator().manual_seed(0)) - 1
    spreads = []
    for layer in next(model.children()).children():
        arguments = 30 * layer(values)
        spreads.append(float(arguments.detach().std()))
        values = torch.sin(arguments)
    assert spreads[1:-1] == pytest.approx([math.sqrt(1 + 30**2 / 256 / 3)] * 6, rel=0.2)


def test_norms_are_those_of_a_loop() -> None:
    model, inputs = initial("siren").double(), inputs_of("siren", 6).double()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    found = score(cross_entropy, model, inputs, labels).squared_norms
    torch.testing.assert_close(found, squares_one_by_one(model, inputs, labels), rtol=1e-9, atol=0)


def test_it_learns_a_small_picture() -> None:
    rows, columns = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 12))
    inputs = torch.from_numpy(np.stack([rows.ravel(), columns.ravel()], 1)).float()
    colours = torch.stack([inputs[:, 0].sign(), inputs[:, 1] ** 2, inputs.prod(1)], 1)
    model = initial("siren", "siren.width=32", "siren.layers=4")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = squared(model(inputs), colours).mean()
        torch.autograd.backward(loss)
        optimizer.step()
    assert float(loss.detach()) < 0.02 * float(squared(torch.zeros_like(colours), colours).mean())


def test_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match="is of numbers; the examples are texts"):
        made("siren", sizes=Sizes((7,), 3, tokens=11))
