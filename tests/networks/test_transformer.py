"""The encoder block is torch's own, spelt out."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.errors import ConfigError
from issgd_cli.networks.initial import initialise
from issgd_cli.networks.transformer import Block, ClassToken, Positions, refuse_heads


def torchs(block: Block, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """Torch's own, with the block's parameters."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_weight": block.to_qkv.weight,
        "self_attn.in_proj_bias": block.to_qkv.bias,
        "self_attn.out_proj.weight": block.projection.weight,
        "self_attn.out_proj.bias": block.projection.bias,
        "linear1.weight": block.widening.weight,
        "linear1.bias": block.widening.bias,
        "linear2.weight": block.narrowing.weight,
        "linear2.bias": block.narrowing.bias,
        "norm1.weight": block.norm_1.weight,
        "norm1.bias": block.norm_1.bias,
        "norm2.weight": block.norm_2.weight,
        "norm2.bias": block.norm_2.bias,
    }
    layer.load_state_dict(names)
    return layer


@pytest.mark.parametrize("padded", [False, True])
def test_a_block_is_torchs_encoder_layer_normalised_first(padded: bool) -> None:
    block = Block(12, 3)
    initialise(block, 0)
    random = torch.Generator().manual_seed(0)
    for parameter in block.parameters():  # no normalisation is the identity, no bias 0
        nn.init.normal_(parameter, 0.3, 0.4, generator=random)
    tokens = torch.randn(5, 7, 12, generator=random)
    padding = torch.arange(7) >= torch.tensor([[7], [5], [1], [3], [6]]) if padded else None
    expected = cast(Tensor, torchs(block, 12, 3)(tokens, src_key_padding_mask=padding))
    torch.testing.assert_close(block(tokens, padding), expected, rtol=1e-4, atol=1e-4)


def test_what_is_padding_has_no_part_in_the_others() -> None:
    block = Block(8, 2)
    initialise(block, 0)
    tokens = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    padding = torch.tensor([[False, False, False, True, True]])
    before = block(tokens, padding)[:, :3]
    tokens[:, 3:] += 10.0
    torch.testing.assert_close(block(tokens, padding)[:, :3], before)
    assert not torch.allclose(block(tokens)[:, :3], before)


def test_positions_are_added_and_a_class_token_comes_first() -> None:
    tokens = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    positions, token = Positions(3, 4), ClassToken(4)
    initialise(positions, 0)
    initialise(token, 0)
    assert torch.equal(positions(tokens), tokens + positions.weight)
    longer = token(tokens)
    assert longer.shape == (2, 4, 4)
    assert torch.equal(longer[:, 1:], tokens)
    assert torch.equal(longer[1, 0], token.weight)


def test_heads_that_do_not_share_the_width_out_are_refused() -> None:
    refuse_heads(12, 3, "vit")
    with pytest.raises(ConfigError, match=r"vit\.width, 10, must be a multiple of vit\.heads, 3"):
        refuse_heads(10, 3, "vit")
