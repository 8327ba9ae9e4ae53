"""A model's parameters as one vector: views of it, and what it is known by."""

import torch
from torch import nn

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


def with_buffers() -> nn.Sequential:
    """A frozen layer, then one that is normalised."""
    return nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_buffers_that_training_changes_are_part_of_the_vector_behind_what_is_trained() -> None:
    model = with_buffers()
    vector = flatten_parameters(model)
    trained, frozen, buffers = 3 + 3 + 3 * 2 + 2, 4 * 3 + 3, 3 + 3
    assert len(vector) == flat.size(model) == trained + frozen + buffers
    assert flat.trained_size(model) == trained
    layers = model.get_parameter("1.weight"), model.get_parameter("2.weight")
    assert torch.equal(vector[:3], layers[0])
    assert torch.equal(vector[6:12], layers[1].flatten())
    assert torch.equal(vector[trained : trained + 12], model.get_parameter("0.weight").flatten())
    assert vector[-6:].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]  # running mean and variance
    before = vector.clone()
    model.train()(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(vector[:-6], before[:-6])
    assert not (vector[-6:] == before[-6:]).any()
    assert torch.equal(vector[-6:-3], model.get_buffer("1.running_mean"))
    assert model.get_buffer("1.num_batches_tracked") == 1


def test_who_loads_the_vector_computes_the_same() -> None:
    model, other = with_buffers(), with_buffers()
    vector, theirs = flatten_parameters(model), flatten_parameters(other)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    model.train()(inputs)
    theirs.copy_(vector)
    assert torch.equal(other.eval()(inputs), model.eval()(inputs))


def test_the_fingerprint_is_of_buffers_and_of_what_is_frozen_too() -> None:
    thawed, without = with_buffers().requires_grad_(True), with_buffers()
    without[1] = nn.LayerNorm(3)
    assert len({flat.fingerprint(model) for model in (with_buffers(), thawed, without)}) == 3
