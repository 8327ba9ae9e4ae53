"""Embeddings and bags of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores import squared_norms
from issgd_cli.scores.rules import departure
from tests.loops import check, drawn, normal


def tokens(*shape: int, vocabulary: int, seed: int = 0) -> Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


@drawn
@given(st.integers(1, 4), st.lists(st.integers(0, 6), max_size=3), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_embeddings(examples: int, middle: list[int], vocabulary: int, width: int, padded: bool) -> None:
    layer = nn.Embedding(vocabulary, width, padding_idx=vocabulary // 2 if padded else None)
    check(layer, tokens(examples, *middle, vocabulary=vocabulary))


@drawn
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9), st.sampled_from(["sum", "mean"]), st.booleans())
def test_bags_of_one_size(examples: int, size: int, vocabulary: int, mode: str, padded: bool) -> None:
    layer = nn.EmbeddingBag(vocabulary, 3, mode=mode, padding_idx=vocabulary // 2 if padded else None)
    check(layer, tokens(examples, size, vocabulary=vocabulary))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_a_bag_of_padding_alone_moves_nothing(mode: str) -> None:
    layer = nn.EmbeddingBag(4, 3, mode=mode, padding_idx=1)
    assert squared_norms(layer, torch.tensor([[1, 1], [1, 2]]), torch.ones(2, 3)).tolist() == [0, 3]
    assert squared_norms(nn.Embedding(4, 3, padding_idx=1), torch.tensor([1, 2]), torch.ones(2, 3)).tolist() == [0, 3]


def test_the_same_token_in_two_examples_is_not_one() -> None:
    layer, given = nn.Embedding(10, 2), torch.tensor([[7, 7, 0], [7, 0, 0]])
    deltas = torch.tensor([[[1.0, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]]])
    assert squared_norms(layer, given, deltas).tolist() == [5, 5]


def test_whole_numbers_of_32_bits_are_tokens_too() -> None:
    layer, given = nn.Embedding(50_000, 2), tokens(3, 5, vocabulary=50_000).int()
    deltas = normal(3, 5, 2)
    assert torch.equal(squared_norms(layer, given, deltas), squared_norms(layer, given.long(), deltas))


@pytest.mark.parametrize(
    ("layer", "departs"),
    [
        (nn.Embedding(4, 2), None),
        (nn.Embedding(4, 2, padding_idx=0), None),
        (nn.Embedding(4, 2, max_norm=1.0), "max_norm"),
        (nn.Embedding(4, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (nn.Embedding(4, 2, sparse=True), "sparse"),
        (nn.EmbeddingBag(4, 2), None),
        (nn.EmbeddingBag(4, 2, mode="sum"), None),
        (nn.EmbeddingBag(4, 2, mode="max"), "max"),
        (nn.EmbeddingBag(4, 2, max_norm=1.0), "max_norm"),
        (nn.EmbeddingBag(4, 2, scale_grad_by_freq=True, mode="sum"), "scale_grad_by_freq"),
        (nn.EmbeddingBag(4, 2, sparse=True), "sparse"),
        (nn.EmbeddingBag(4, 2, include_last_offset=True), "include_last_offset"),
    ],
)
def test_options_by_which_no_rule_holds_are_departures(layer: nn.Module, departs: str | None) -> None:
    found = departure(layer)
    assert found is None if departs is None else departs in str(found)


def test_a_bag_given_with_offsets_is_refused() -> None:
    with pytest.raises(LayerError, match=r"EmbeddingBag layer met inputs of shape \(5,\).* needs 2 axes"):
        squared_norms(nn.EmbeddingBag(4, 2), torch.ones(5, dtype=torch.long), torch.ones(2, 2))
