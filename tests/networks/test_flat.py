"""A model's parameters as one vector: views of it, and what it is known by."""

import torch

from issgd_cli.networks import flat
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp


def test_writing_the_flat_vector_changes_the_model_and_the_other_way_round() -> None:
    model = mlp(4, [3], 2)
    initialise(model, 0)
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    flat = flatten_parameters(model)
    assert torch.equal(flat, expected)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    flat.zero_()
    assert (model(inputs) == 0).all()
    with torch.no_grad():
        [*model.parameters()][-1].fill_(2.0)
    assert flat[-2:].tolist() == [2, 2]
    assert (model(inputs) == 2).all()


def test_a_flat_models_gradients_are_the_same_and_its_parameters_still_trained() -> None:
    model, plain = mlp(4, [3], 2), mlp(4, [3], 2)
    for one in (model, plain):
        initialise(one, 0, std=0.5)
    flatten_parameters(model)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for one in (model, plain):
        one(inputs).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert ours.requires_grad
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_size_is_that_of_the_flat_vector_and_needs_no_memory() -> None:
    assert flat.size(mlp(4, [3], 2)) == len(flatten_parameters(mlp(4, [3], 2))) == 4 * 3 + 3 + 3 * 2 + 2
    with torch.device("meta"):
        assert flat.size(mlp(10**6, [10**6], 10)) == 10**12 + 10**6 + 10**7 + 10


def test_the_fingerprint_is_of_the_shapes_alone() -> None:
    def fingerprint(features: int, hidden: list[int], classes: int) -> str:
        return flat.fingerprint(mlp(features, hidden, classes))

    mine = fingerprint(12, [8, 4], 3)
    assert fingerprint(12, [8, 4], 3) == mine
    assert len(mine) == 16
    others = [fingerprint(13, [8, 4], 3), fingerprint(12, [4, 8], 3), fingerprint(12, [8, 4, 4], 3)]
    others += [fingerprint(12, [8, 4], 4), fingerprint(12, [8], 3)]
    assert len({mine, *others}) == 6
