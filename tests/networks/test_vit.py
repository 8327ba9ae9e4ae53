"""The vision transformer."""

import pytest
import torch

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from issgd_cli.networks.vit import VisionTransformer
from tests.networks.made import initial, inputs_of, made


def test_each_patch_is_a_token() -> None:
    model, images = initial("vit"), inputs_of("vit", 3)
    assert isinstance(model, VisionTransformer)
    tokens = model.patches(images).flatten(2).transpose(1, 2)
    assert tokens.shape == (3, 2 * 3, 6)
    patch = images[1, :, 2:4, 4:6]  # the last
    expected = model.patches.weight.flatten(1) @ patch.flatten()
    assert model.patches.bias is not None
    torch.testing.assert_close(tokens[1, 5], expected + model.patches.bias)


def test_a_class_token_is_one_more_position() -> None:
    for pooling, length in (("mean", 6), ("token", 7)):
        model = initial("vit", f"vit.pooling={pooling}")
        assert isinstance(model, VisionTransformer)
        assert model.positions.weight.shape == (length, 6)


def test_patches_that_do_not_cover_the_image_and_heads_that_do_not_share_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vit\.patch, 2, must divide the images' height and width, 5 and 4"):
        made("vit", sizes=Sizes((1, 5, 4), 3))
    with pytest.raises(ConfigError, match=r"vit\.width, 8, must be a multiple of vit\.heads, 3"):
        made("vit", "vit.width=8")
