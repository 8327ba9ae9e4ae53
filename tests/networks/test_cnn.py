"""The small convolutional network."""

import torch
from torch import nn

from issgd_cli.networks import Sizes
from tests.networks.made import initial


def test_each_stage_halves_height_and_width_whatever_they_are() -> None:
    for side in (28, 32, 5, 1):
        model = initial("cnn", "cnn.widths=[4, 6, 8]", sizes=Sizes((1, side, side), 3))
        stages = model.get_submodule("stages")
        assert isinstance(stages, nn.Sequential)
        maps = stages(torch.zeros(2, 1, side, side))
        assert maps.shape == (2, 8, -(-side // 8), -(-side // 8))
        assert model(torch.zeros(2, 1, side, side)).shape == (2, 3)
