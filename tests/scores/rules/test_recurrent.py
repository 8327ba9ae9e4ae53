"""LSTM and GRU in pieces: what torch's own compute, and norms against a loop over the examples."""

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
from issgd_cli.scores.rules.recurrent import gru, lstm
from tests.loops import squares_one_by_one

CLASSES = 3
OPTIONS = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 2),
        "bias": st.booleans(),
        "batch_first": st.booleans(),
        "bidirectional": st.booleans(),
    }
)
KINDS: dict[type[nn.RNNBase], Any] = {nn.LSTM: lstm, nn.GRU: gru}


class Reading(nn.Module):
    """All outputs and the last state count."""

    def __init__(self, kind: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self.layer = kind(4, 3, **options)
        self.last = nn.Linear(3 * (2 if options["bidirectional"] else 1), CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        first = self.layer.batch_first
        outputs, state = self.layer(inputs if first else inputs.transpose(0, 1))
        state = state[0] if isinstance(state, tuple) else state
        return self.last(outputs.mean(1 if first else 0)) + state.sum((0, 2))[:, None]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
@given(OPTIONS, st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=15, derandomize=True)
def test_norms_are_those_of_a_loop(kind: Any, options: dict[str, Any], steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Reading(kind, options).double()
    inputs, labels = torch.randn(4, steps, 4, dtype=torch.double), torch.randint(CLASSES, (4,))
    expected = squares_one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(cross_entropy, model, inputs, labels).squared_norms, expected, rtol=1e-9, atol=0)
    assert [unit.way for unit in plan_of(cross_entropy, model, inputs, labels).units] == ["pieces", "rule"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_state", [True, False])
@given(OPTIONS)
@settings(deadline=None, max_examples=10)
def test_pieces_compute_what_the_layer_does(kind: Any, with_state: bool, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = kind(4, 3, **options).double()
    inputs = torch.randn(2, 5, 4, dtype=torch.double) if layer.batch_first else torch.randn(5, 2, 4).double()
    states = layer.num_layers * (2 if layer.bidirectional else 1)
    state: Any = torch.randn(states, 2, 3, dtype=torch.double)
    state = (state, state + 1) if kind is nn.LSTM else state
    given = (inputs, state) if with_state else (inputs,)
    found = KINDS[kind](layer, lambda output, squares: output, *given)
    torch.testing.assert_close(found, layer(*given))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_frozen_in_part_are_left_out_of_the_norms(kind: Any) -> None:
    model = Reading(kind, {"num_layers": 2, "bidirectional": True, "batch_first": True}).double()
    for name, parameter in model.layer.named_parameters():
        parameter.requires_grad_("l1" in name and "hh" in name)
    inputs, labels = torch.randn(4, 3, 4, dtype=torch.double), torch.randint(CLASSES, (4,))
    expected = squares_one_by_one(model, inputs, labels)
    torch.testing.assert_close(score(cross_entropy, model, inputs, labels).squared_norms, expected, rtol=1e-9, atol=0)


def test_what_departs_is_not_taken_apart() -> None:
    assert objection(nn.LSTM(4, 3)) is None
    assert "proj_size" in str(objection(nn.LSTM(4, 3, proj_size=2)))
    layer = nn.GRU(4, 3)
    prune.l1_unstructured(layer, "weight_hh_l0", amount=0.5)  # type: ignore[no-untyped-call]
    assert "pruned" in str(objection(layer))
    assert objection(nn.RNN(4, 3)) == "there is no rule for RNN"


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("kind", "options"), [(nn.LSTM, {"proj_size": 2}), (nn.RNN, {})])
def test_what_is_not_taken_apart_falls_back(kind: Any, options: dict[str, int]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 3, batch_first=True, **options)
            self.last = nn.LazyLinear(CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.layer(inputs)[0][:, -1])  # type: ignore[no-any-return]

    model = Last()
    inputs, labels = torch.randn(4, 3, 4), torch.randint(CLASSES, (4,))
    model(inputs)
    model = model.double()
    expected = squares_one_by_one(model, inputs.double(), labels)
    found = score(cross_entropy, model, inputs.double(), labels).squared_norms
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
