"""ResNet-18 for small images."""

import pytest
import torch
from torch import nn

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from issgd_cli.networks.resnet18 import BasicBlock, ResidualNetwork
from tests.networks.made import initial, inputs_of, made


def test_it_has_18_layers_of_which_only_the_stages_begin_with_a_stride() -> None:
    with torch.device("meta"):
        model = ResidualNetwork(3, 64, 10, "group")
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    square = [layer for layer in convolutions if layer.kernel_size == (3, 3)]
    assert len(square) + 1 == 18  # and the linear layer
    assert [layer.stride for layer in square].count((2, 2)) == 3
    assert len(convolutions) - len(square) == 3  # shortcuts that change shape
    images = torch.zeros(1, 3, 32, 32, device="meta")
    assert model.blocks(model.stem(images)).shape == (1, 512, 4, 4)


def test_its_normalisation_is_of_groups_unless_it_is_told_otherwise() -> None:
    kinds = {"group": nn.GroupNorm, "batch": nn.BatchNorm2d}
    for norm, kind in kinds.items():
        model = made("resnet18", f"resnet18.norm={norm}").build()
        norms = [layer for layer in model.modules() if isinstance(layer, (nn.GroupNorm, nn.BatchNorm2d))]
        assert {type(layer) for layer in norms} == {kind}
        assert len(norms) == 17 + 3
    with torch.device("meta"):
        whole = ResidualNetwork(3, 64, 10, "group")
    groups = {layer.num_groups for layer in whole.modules() if isinstance(layer, nn.GroupNorm)}
    assert groups == {64 // 16, 128 // 16, 256 // 16, 512 // 16}


def test_a_block_adds_its_input() -> None:
    model = initial("resnet18")
    assert isinstance(model, ResidualNetwork)
    block = model.blocks[0]
    assert isinstance(block, BasicBlock)
    maps = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        block.norm_2.get_parameter("weight").zero_()
    torch.testing.assert_close(block(maps), maps)


def test_with_batch_norm_an_example_depends_on_the_others_in_training_mode_alone() -> None:
    inputs = inputs_of("resnet18", 6)
    for norm, mixes in (("group", False), ("batch", True)):
        model = initial("resnet18", f"resnet18.norm={norm}").train()
        assert torch.allclose(model(inputs)[:3], model(inputs[:3]), atol=1e-5) is not mixes


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit"])
@pytest.mark.parametrize("sizes", [Sizes((5,), 3), Sizes((5,), 3, 11)])
def test_networks_of_images_are_of_nothing_else(name: str, sizes: Sizes) -> None:
    with pytest.raises(ConfigError, match=rf"model\.network = '{name}' is for images"):
        made(name, sizes=sizes)
