"""PointNet: a cloud is a set, its widths are the published ones, and its norms are a loop's."""

import pytest
import torch
from torch import nn

from issgd_cli.errors import ConfigError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks import Sizes
from issgd_cli.networks.pointnet import Turn
from issgd_cli.registries import NETWORKS
from issgd_cli.scores.gradient_norm import score
from tests.loops import squares_one_by_one
from tests.networks.made import configured, initial, inputs_of, made

BOTH = 'pointnet.transforms=["input", "features"]'


@pytest.mark.parametrize("settings", [(), (BOTH,)])
def test_the_order_of_the_points_is_nothing_to_it(settings: tuple[str, ...]) -> None:
    model, clouds = initial("pointnet", *settings), inputs_of("pointnet", 4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(clouds[:, order]), model(clouds))
    moved = clouds.clone()
    moved[:, 0] += 1
    assert not torch.allclose(model(moved), model(clouds))


def test_widths_are_the_published_ones() -> None:
    config = configured("model.network=pointnet", "pointnet.width=64", "pointnet.norm=batch", BOTH)
    with torch.device("meta"):
        model = NETWORKS["pointnet"](config, Sizes((1024, 6), 40)).build()
    shapes = {name: tuple(each.shape[:2]) for name, each in model.named_parameters() if each.dim() > 1}
    in_points = [(64, 64), (128, 64), (1024, 128), (512, 1024), (256, 512)]
    turns = {"input_turn": [(64, 6), *in_points[1:], (36, 256)], "feature_turn": [*in_points, (4096, 256)]}
    parts = {"near": [(64, 6), (64, 64)], "far": in_points[:3], "cloud": in_points[3:], "classifier": [(40, 256)]}
    for part, expected in {**turns, **parts}.items():
        assert [shape for name, shape in shapes.items() if name.startswith(f"{part}.")] == expected


def test_a_transform_begins_near_the_identity_and_multiplies_each_point() -> None:
    model = initial("pointnet", BOTH)
    turn = model.get_submodule("input_turn")
    assert isinstance(turn, Turn)
    points = inputs_of("pointnet", 2).transpose(1, 2).unsqueeze(3)
    with torch.no_grad():
        turn.matrix.weight.zero_()
        turn.matrix.bias.zero_()
        torch.testing.assert_close(turn(points), points)
        turn.matrix.bias[1] = 2.0  # the second coordinate, twice, is added to the first
        turned = turn(points)
    torch.testing.assert_close(turned[:, 0], points[:, 0] + 2 * points[:, 1])
    torch.testing.assert_close(turned[:, 1:], points[:, 1:])


@pytest.mark.parametrize("settings", [(), (BOTH,), ('pointnet.transforms=["features"]', "pointnet.width=16")])
def test_norms_are_those_of_a_loop(settings: tuple[str, ...]) -> None:
    model, clouds = initial("pointnet", *settings).double(), inputs_of("pointnet", 6).double()
    clouds[:, 5] = clouds[:, 4]  # equal points: each is the largest
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    found = score(cross_entropy, model, clouds, labels).squared_norms
    torch.testing.assert_close(found, squares_one_by_one(model, clouds, labels), rtol=1e-9, atol=0)


def test_with_batch_norm_an_example_depends_on_the_others_in_training_mode_alone() -> None:
    clouds = inputs_of("pointnet", 6)
    for norm, mixes in (("group", False), ("batch", True)):
        model = initial("pointnet", f"pointnet.norm={norm}")
        kinds = {type(layer) for layer in model.modules() if isinstance(layer, (nn.GroupNorm, nn.BatchNorm2d))}
        assert kinds == {nn.BatchNorm2d if mixes else nn.GroupNorm}
        assert torch.allclose(model.train()(clouds)[:3], model(clouds[:3]), atol=1e-5) is not mixes


@pytest.mark.parametrize("sizes", [Sizes((5,), 3), Sizes((5,), 3, 11), Sizes((3, 8, 8), 3)])
def test_other_examples_than_clouds_are_refused(sizes: Sizes) -> None:
    with pytest.raises(ConfigError, match=r"is for clouds of points, \(points, coordinates\); the examples are"):
        made("pointnet", sizes=sizes)
