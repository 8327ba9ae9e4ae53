"""Networks of the registry as small as they can be, and inputs for them."""

import math
import sys
import types

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.networks import Network, Sizes, naming
from issgd_cli.registries import NETWORKS

SMALL = {
    "mlp": ["model.hidden=[7, 6]"],
    "cnn": ["cnn.widths=[4, 6]"],
    "resnet18": ["resnet18.width=4"],
    "vit": ["vit.patch=2", "vit.width=6", "vit.depth=2", "vit.heads=3"],
    "text": ["text.width=8", "text.depth=2", "text.heads=2"],
    "polynomial": ["polynomial.order=3"],
    "siren": ["siren.width=6", "siren.layers=3"],
    "pointnet": ["pointnet.width=4"],
}
SIZES = {
    "mlp": Sizes((5,), 3),
    "cnn": Sizes((2, 6, 10), 3),
    "resnet18": Sizes((2, 8, 8), 3),
    "vit": Sizes((2, 4, 6), 3),
    "text": Sizes((7,), 3, tokens=11),
    "polynomial": Sizes((1,), 1),
    "siren": Sizes((2,), 3),
    "pointnet": Sizes((9, 3), 3),
}


def configured(*settings: str) -> Config:
    """A configuration with `section.key=value` strings on top."""
    return resolve(assignments(["master.steps=5", *settings]), "a test")


def made(name: str, *settings: str, sizes: Sizes | None = None) -> Network:
    """A small network of this name, with these settings on top."""
    config = configured(f"model.network={name}", *SMALL[name], *settings)
    network: Network = NETWORKS[name](config, sizes or SIZES[name])
    return network


def initial(name: str, *settings: str, seed: int = 0, sizes: Sizes | None = None) -> nn.Module:
    """Its module, as a run of this seed starts from it."""
    network = made(name, *settings, sizes=sizes)
    model = network.build()
    network.initialise(model, seed)
    return model


def inputs_of(name: str, count: int, seed: int = 0) -> Tensor:
    """Examples that it takes; texts of every length."""
    random, shape = torch.Generator().manual_seed(seed), SIZES[name].shape
    if name != "text":
        return torch.randn(count, *shape, generator=random)
    tokens = torch.randint(1, 11, (count, *shape), generator=random)
    lengths = 1 + torch.arange(count) % shape[0]
    return tokens * (torch.arange(shape[0]) < lengths[:, None])


def normalised(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A network whose buffers training changes, of inputs of any shape."""
    layers = nn.Linear(math.prod(shape), 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, outputs)
    return nn.Sequential(nn.Flatten(), *layers)


def named(monkeypatch: pytest.MonkeyPatch) -> str:
    """`model.network` of `normalised`, as if the command line named it."""
    module = types.ModuleType("users_networks")
    vars(module)["normalised"] = normalised
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(naming, "_named", {"users_networks:normalised"})
    return "users_networks:normalised"
