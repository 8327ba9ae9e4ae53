"""The copy in bfloat16: the same function but for rounding, and its norms good enough for a proposal."""

import pytest
import torch

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.networks.reduced import Reduced
from issgd_cli.scores import score


def trained_a_little(features: int = 40, classes: int = 5) -> tuple[torch.nn.Sequential, torch.Tensor, torch.Tensor]:
    """A net that has begun to learn three hundred examples of noisy patterns."""
    random = torch.Generator().manual_seed(0)
    patterns = torch.randn(classes, features, generator=random)
    labels = torch.randint(classes, (300,), generator=random)
    inputs = patterns[labels] + 1.5 * torch.randn(300, features, generator=random)
    model = mlp(features, [64, 64], classes)
    initialise(model, 0, 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model, inputs, labels


def test_norms_in_bfloat16_cost_next_to_no_variance() -> None:
    """The second moment of the estimator that draws by them is within 1e-3 of the ideal, by float64's norms."""
    model, inputs, labels = trained_a_little()
    reduced = Reduced(model)
    reduced.load(model)
    scores = score(cross_entropy, reduced, inputs, labels)
    exact = score(cross_entropy, model.double(), inputs.double(), labels)
    q, norms = scores.norms.double(), exact.norms
    excess = float(q.mean() * (norms.square() / q).mean() / norms.mean().square() - 1)
    assert 0 <= excess < 1e-3
    assert float(((q - norms) / norms).abs().median()) < 0.02
    torch.testing.assert_close(scores.losses.double(), exact.losses, rtol=0.05, atol=0.02)
    assert scores.losses.dtype == scores.squared_norms.dtype == torch.float32


def test_parameters_are_cast_when_loaded_and_the_last_layers_stay_in_float32() -> None:
    model, _, _ = trained_a_little()
    flat = flatten_parameters(model)
    reduced = Reduced(model)
    reduced.load(model)
    *lower, weight, bias = reduced.parameters()
    assert {part.dtype for part in lower} == {torch.bfloat16}
    assert {weight.dtype, bias.dtype} == {torch.float32}
    for own, given in zip(reduced.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own.float(), given, rtol=2**-8, atol=0)
    before = [part.detach().clone() for part in reduced.parameters()]
    flat.mul_(2)
    assert all(torch.equal(part, old) for part, old in zip(reduced.parameters(), before, strict=True))
    reduced.load(model)
    assert not any(torch.equal(part, old) for part, old in zip(reduced.parameters(), before, strict=True))


def test_a_confident_examples_norm_does_not_vanish() -> None:
    model, inputs, labels = trained_a_little()
    with torch.no_grad():
        model[-1].weight.mul_(4)  # type: ignore[operator]
    reduced = Reduced(model)
    reduced.load(model)
    exact = score(cross_entropy, model.double(), inputs.double(), labels)
    assert float(exact.norms.min()) < 1e-4
    found = score(cross_entropy, reduced, inputs, labels).norms
    assert float(found.min()) > 0
    assert float((found.double() / exact.norms).log().abs().median()) == pytest.approx(0, abs=0.3)
