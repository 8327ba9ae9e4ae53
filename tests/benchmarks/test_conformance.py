"""Ours is right wherever an example has a gradient of its own, and says so where none has; the page says who is not."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks import conformance
from tests.benchmarks.conformance import OURS, ask
from tests.benchmarks.peers import PEERS, Found, Peer, Way, one_by_one, standing
from tests.benchmarks.situations import SITUATIONS, Situation

VMAP = next(peer for peer in PEERS if peer.package == "torch")


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=lambda situation: situation.name)
def test_ours_is_right_or_refuses_what_is_mixed(situation: Situation) -> None:
    found = ask(OURS, situation)
    assert found.outcome == ("refuses" if situation.mixes else "right"), found.why


def test_a_situation_is_the_same_each_time_and_has_something_to_find() -> None:
    for situation in SITUATIONS.values():
        (model, inputs, labels), (again, *others) = situation.made(), situation.made()
        pairs = zip([inputs, labels, *model.parameters()], [*others, *again.parameters()], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        if not situation.mixes:
            assert float(one_by_one(*situation.made(torch.float64)).min()) > 1e-6, situation.name


def half(model: nn.Module) -> Way:
    """What takes half of each weight's gradient for all of it."""

    def way(inputs: Tensor, labels: Tensor) -> Found:
        return Found(one_by_one(model, inputs, labels) / 4)

    return way


def careless(model: nn.Module) -> Way:
    """What looks at the layers' own calls only, and only at Linear on (B, d), with its bias."""

    def way(inputs: Tensor, labels: Tensor) -> Found:
        parts: list[Tensor] = []

        def hook(layer: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
            squares = given[0].detach().square().sum(1) + 1
            output.register_hook(lambda delta: parts.append(delta.square().sum(1) * squares))  # type: ignore[no-untyped-call]

        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(hook)
        functional.cross_entropy(model(inputs), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
        return Found(torch.stack(parts).sum(0))

    return way


def test_what_is_wrong_is_found_to_be() -> None:
    peer, other = Peer("careless", "torch", careless), Peer("half", "torch", half)
    assert ask(other, SITUATIONS["Linear"]).outcome == "silently wrong"
    for name, outcome in {
        "Linear": "right",
        "a layer used twice": "silently wrong",
        "LayerNorm": "silently wrong",
        "examples reordered": "silently wrong",
        "positions along the first axis": "refuses",  # squares of four rows and of five
    }.items():
        assert ask(peer, SITUATIONS[name]).outcome == outcome, name


def test_how_a_way_stands() -> None:
    right = torch.tensor([1.0, 4.0])

    def fails() -> Found:
        raise ValueError("\nfirst line at 0x7f00\nmore")

    assert standing(fails, right, 1e-4) == ("refuses", "ValueError: first line at 0x...")
    assert standing(lambda: Found(right), right, 1e-4).outcome == "right"
    assert standing(lambda: Found(right, ("unused",)), right, 1e-4).outcome == "right"
    assert standing(lambda: Found(right * torch.nan), right, 1e-4).outcome == "silently wrong"
    assert standing(lambda: Found(1.001 * right), right, 1e-4) == ("silently wrong", "off by 0.001 of the square")
    assert standing(lambda: Found(right / 2, ("w",)), right, 1e-4) == ("silently wrong", "gives nothing for w")
    assert standing(lambda: Found(right[:1]), right, 1e-4).outcome == "silently wrong"
    assert standing(lambda: Found(right), None, 1e-4).outcome == "silently wrong"


def test_the_page_has_a_cell_for_each_answer(tmp_path: Path) -> None:
    found = conformance.answers([VMAP])
    assert [answer.situation for answer in found] == list(SITUATIONS)
    table, numbers = conformance.write(tmp_path, found, conformance.versions([VMAP]))
    page, content = table.read_text(), json.loads(numbers.read_text())
    assert "| Linear | right |" in page
    assert "| examples reordered (to be refused) | **silently wrong** |" in page
    assert len(content["answers"]) == len(SITUATIONS)


def test_anothers_way_can_be_asked() -> None:
    peer = conformance.named_peer("tests.benchmarks.peers:vmapped")
    assert ask(peer, SITUATIONS["LayerNorm"]).outcome == "right"
