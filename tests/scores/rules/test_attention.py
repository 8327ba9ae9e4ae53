"""Attention in pieces: what torch's own computes, and norms against a loop over the examples."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.utils import prune

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from issgd_cli.scores.first_look import plan_of
from issgd_cli.scores.rules import objection
from issgd_cli.scores.rules.attention import attend
from tests.loops import squares_one_by_one

CLASSES = 3


class Attending(nn.Module):
    """Attention between its inputs and itself, or a memory made of them; the weights count, too."""

    def __init__(self, options: dict[str, Any], memory: bool, masks: bool, weights: bool) -> None:
        super().__init__()
        widths = {"kdim": 3, "vdim": 5} if memory else {}
        self.attention = nn.MultiheadAttention(4, 2, **options, **widths)
        self.last = nn.Linear(4, CLASSES)
        self.memory, self.masks, self.weights = memory, masks, weights
        self.mask = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double)

    def forward(self, inputs: Tensor) -> Tensor:
        query = inputs[..., :4]
        padding = (torch.arange(6).expand(len(inputs), 6) > 3) * -9.0 if self.masks else None
        key, value = (inputs[..., 1:4], inputs[..., :5]) if self.memory else (query, query)
        if not self.attention.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        if not self.memory:
            key = value = query
        found, weights = self.attention(
            query,
            key,
            value,
            key_padding_mask=None if padding is None else padding.double(),
            need_weights=self.weights,
            attn_mask=self.mask if self.masks else None,
        )
        pooled = found.mean(1 if self.attention.batch_first else 0)
        if weights is not None:
            pooled = pooled + weights.square().sum(tuple(range(1, weights.dim())))[:, None]
        return self.last(pooled)  # type: ignore[no-any-return]


@given(
    st.fixed_dictionaries({"bias": st.booleans(), "batch_first": st.booleans(), "add_bias_kv": st.booleans()}),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=12, derandomize=True)
def test_norms_are_those_of_a_loop(
    options: dict[str, Any], memory: bool, masks: bool, weights: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model = Attending(options, memory, masks and not options["add_bias_kv"], weights).double()
    inputs, labels = torch.randn(4, 6, 5, dtype=torch.double), torch.randint(CLASSES, (4,))
    expected = squares_one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(cross_entropy, model, inputs, labels).squared_norms, expected, rtol=1e-9, atol=0)
    if not options["add_bias_kv"]:
        assert [unit.way for unit in plan_of(cross_entropy, model, inputs, labels).units] == ["pieces", "rule"]


@pytest.mark.parametrize("boolean", [True, False])
@pytest.mark.parametrize("by_head", [True, False])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("need", [True, False])
def test_pieces_compute_what_the_layer_does(boolean: bool, by_head: bool, average: bool, need: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 3, batch_first=True).double()
    query, key, value = (torch.randn(2, length, 6, dtype=torch.double) for length in (4, 5, 5))
    mask = torch.randn(2 * 3, 4, 5, dtype=torch.double) if by_head else torch.randn(4, 5, dtype=torch.double)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    given: dict[str, Any] = {
        "key_padding_mask": padding if boolean else torch.randn(2, 5, dtype=torch.double),
        "attn_mask": mask > 1 if boolean else mask,
        "need_weights": need,
        "average_attn_weights": average,
    }
    expected = layer(query, key, value, **given)
    found = attend(layer, lambda output, squares: output, query, key, value, **given)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_transformers_layer_goes_by_rules_alone(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, norm_first=norm_first)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(40, 3))
    model = model.double()
    for module in (model, model.eval()):  # in evaluation mode torch has a faster way, which shows nothing of its pieces
        inputs, labels = torch.randn(4, 5, 8, dtype=torch.double), torch.randint(CLASSES, (4,))
        expected = squares_one_by_one(module, inputs, labels)
        found = score(cross_entropy, module, inputs, labels).squared_norms
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        assert {unit.way for unit in plan_of(cross_entropy, module, inputs, labels).units} == {"rule", "pieces"}


def test_what_departs_is_not_taken_apart() -> None:
    class Scaled(nn.MultiheadAttention):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output, weights = super().forward(*args, **kwargs)
            return 3 * output, weights

    plain = nn.MultiheadAttention(4, 2)
    assert objection(plain) is None
    assert objection(Scaled(4, 2)) == "there is no rule for Scaled"
    assert "add_bias_kv" in str(objection(nn.MultiheadAttention(4, 2, add_bias_kv=True)))
    prune.l1_unstructured(plain, "in_proj_weight", amount=0.5)  # type: ignore[no-untyped-call]
    assert "pruned" in str(objection(plain))
    plain = nn.MultiheadAttention(4, 2)
    prune.l1_unstructured(plain.out_proj, "weight", amount=0.5)  # type: ignore[no-untyped-call]
    assert "pruned" in str(objection(plain))
