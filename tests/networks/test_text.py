"""The transformer for texts."""

import pytest
import torch

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from issgd_cli.networks.text import TextTransformer
from tests.networks.made import initial, made


def test_what_stands_behind_a_texts_end_has_no_part_in_it() -> None:
    """Neither padding's own vectors nor those of its places."""
    model = initial("text")
    assert isinstance(model, TextTransformer)
    texts = torch.tensor([[3, 4, 5, 0, 0, 0, 0]])
    before = model(texts)
    with torch.no_grad():
        model.embedding.weight[0] += 5.0
        model.positions.weight[3:] += 5.0
    torch.testing.assert_close(model(texts), before)


def test_a_shorter_network_reads_a_short_text_the_same() -> None:
    long, short = initial("text"), initial("text", sizes=Sizes((3,), 3, 11))
    assert isinstance(long, TextTransformer)
    state = {**long.state_dict(), "positions.weight": long.positions.weight[:3]}
    short.load_state_dict(state)
    torch.testing.assert_close(long(torch.tensor([[3, 4, 5, 0, 0, 0, 0]])), short(torch.tensor([[3, 4, 5]])))


def test_the_order_of_words_matters() -> None:
    model = initial("text")
    one, other = model(torch.tensor([[3, 4, 5, 0, 0, 0, 0], [5, 4, 3, 0, 0, 0, 0]]))
    assert not torch.allclose(one, other)


def test_an_empty_text_has_outputs_too() -> None:
    model = initial("text")
    outputs = model(torch.zeros(2, 7, dtype=torch.int64))
    assert outputs.isfinite().all()
    (gradient,) = torch.autograd.grad(outputs.sum(), [model.get_parameter("positions.weight")])
    assert gradient.isfinite().all()


@pytest.mark.parametrize("sizes", [Sizes((7,), 3), Sizes((3, 8, 8), 3, 11)])
def test_what_is_no_text_is_refused(sizes: Sizes) -> None:
    with pytest.raises(ConfigError, match=r"model\.network = 'text' is for texts"):
        made("text", sizes=sizes)
