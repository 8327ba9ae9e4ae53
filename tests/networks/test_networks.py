"""What holds of every network that a configuration may name."""

import numpy as np
import pytest
import torch
from torch import nn

from issgd_cli.networks import Sizes, flat
from issgd_cli.registries import NETWORKS
from tests.networks.made import SIZES, configured, initial, inputs_of, made

NAMES = list(NETWORKS)
SETTINGS = [(name, ()) for name in NAMES] + [("resnet18", ("resnet18.norm=batch",)), ("vit", ("vit.pooling=token",))]
SETTINGS += [("pointnet", ("pointnet.norm=batch",)), ("pointnet", ('pointnet.transforms=["input", "features"]',))]

# Runs, checkpoints and databases know a network by these: a change is another network, under another name.
FINGERPRINTS = {
    "mlp": "b1daebc13a4ea93d",
    "cnn": "202e0b66bda72714",
    "resnet18": "f0c62359dfb40c91",
    "vit": "2c53925e9ee78862",
    "text": "43883433afb5896e",
    "polynomial": "963f5a1f71ed6a13",
    "siren": "00d9065d223010a4",
    "pointnet": "eb65b4bbc1919edf",
}
# What the small ones of seed 0 make of three examples, added up: a run stands for what its network computes, too.
OUTPUTS = {
    "mlp": [-0.0003, 0.0001, -0.0004],
    "cnn": [-0.8869, 0.6600, 0.7841],
    "resnet18": [0.8922, -1.7741, -2.9328],
    "vit": [0.0170, 0.3871, 0.7921],
    "text": [0.3177, -0.2872, 1.0824],
    "polynomial": [-3.6591],
    "siren": [-0.1184, 0.8169, 0.6888],
    "pointnet": [-1.1220, -1.8579, -0.1658],
}
DEFAULTS = [
    ("cnn", Sizes((3, 32, 32), 10), 373_834, "11043b0356ec9db0"),
    ("resnet18", Sizes((3, 32, 32), 10), 11_173_962, "2e1e66b3ba74fbce"),
    ("vit", Sizes((3, 32, 32), 10), 2_693_194, "b8c8c285420f3772"),
    ("text", Sizes((32,), 2, 5000), 1_041_154, "9b577159b8bfc679"),
    ("polynomial", Sizes((), 1), 7, "be4bae81bf35e477"),
    ("siren", Sizes((2,), 3), 198_915, "00dbc6d06bc0cb6d"),
    ("pointnet", Sizes((1024, 3), 40), 53_880, "b041d914c75096dc"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_networks_parameters_keep_their_names_shapes_and_order(name: str) -> None:
    assert flat.fingerprint(made(name).build()) == flat.fingerprint(made(name).build()) == FINGERPRINTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_computes_what_it_always_has(name: str) -> None:
    outputs = initial(name).eval()(inputs_of(name, 3)).sum(0)
    torch.testing.assert_close(outputs, torch.tensor(OUTPUTS[name]), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("name", "sizes", "size", "fingerprint"), DEFAULTS, ids=[name for name, *_ in DEFAULTS])
def test_what_a_configuration_that_names_a_network_alone_means(
    name: str, sizes: Sizes, size: int, fingerprint: str
) -> None:
    with torch.device("meta"):
        model = NETWORKS[name](configured(f"model.network={name}"), sizes).build()
    assert (flat.size(model), flat.fingerprint(model)) == (size, fingerprint)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_network_gives_each_example_its_outputs(name: str, settings: tuple[str, ...]) -> None:
    """In evaluation mode whatever the others are: norms and gradients of one example exist."""
    model, inputs = initial(name, *settings).eval(), inputs_of(name, 9)
    outputs = model(inputs)
    assert outputs.shape == (9, SIZES[name].outputs)
    assert outputs.isfinite().all()
    order = torch.from_numpy(np.random.default_rng(0).permutation(9))
    torch.testing.assert_close(model(inputs[order]), outputs[order])
    torch.testing.assert_close(model(inputs[:1]), outputs[:1])
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_every_parameter_of_a_network_learns_and_can_be_differentiated_twice(
    name: str, settings: tuple[str, ...]
) -> None:
    """Twice: audits on a sample do."""
    model, inputs = initial(name, *settings).eval(), inputs_of(name, 9)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model(inputs).square().sum(), parameters, create_graph=True)
    for (label, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert gradient.isfinite().all(), label
        assert gradient.any(), label
    twice = torch.autograd.grad(torch.stack([gradient.square().sum() for gradient in gradients]).sum(), parameters)
    assert all(gradient.isfinite().all() for gradient in twice)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_seed_gives_the_same_parameters_and_leaves_the_global_generators_alone(
    name: str, settings: tuple[str, ...]
) -> None:
    before = torch.get_rng_state()
    network = made(name, *settings)
    vectors: list[torch.Tensor] = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(vectors))  # which has no part in it
        model = network.build()
        network.initialise(model, seed)
        vectors.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    network.initialise(model, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_no_network_drops_anything_or_works_in_place(name: str, settings: tuple[str, ...]) -> None:
    model = made(name, *settings).build()
    assert not [layer for layer in model.modules() if getattr(layer, "inplace", False)]
    assert not [layer for layer in model.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    inputs = inputs_of(name, 4)
    before = inputs.clone()
    model.train()(inputs)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_take_no_memory(name: str) -> None:
    with torch.device("meta"):
        model = made(name).build()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert flat.fingerprint(model) == FINGERPRINTS[name]
