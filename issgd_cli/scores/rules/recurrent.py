"""LSTM and GRU, taken apart: torch's own are one operation, which shows nothing of its gates."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from issgd_cli.scores.rules.attention import Tap
from issgd_cli.scores.rules.linear import bias_norms2, weight_norms2
from issgd_cli.scores.rules.rule import PIECES, Apart

State = tuple[Tensor, ...]
# (what comes in at a step, what the state gives, the state before) -> the state after, and what GRU's rule needs
Cell = Callable[[Tensor, Tensor, State], tuple[State, Tensor | None]]


def lstm_cell(given: Tensor, remembered: Tensor, state: State) -> tuple[State, None]:
    """h, c of a step. Source: torch.nn.LSTM."""
    taken, forgotten, cell, out = (given + remembered).chunk(4, -1)
    memory = forgotten.sigmoid() * state[1] + taken.sigmoid() * cell.tanh()
    return (out.sigmoid() * memory.tanh(), memory), None


def gru_cell(given: Tensor, remembered: Tensor, state: State) -> tuple[State, Tensor]:
    """h of a step, and the reset gate. Source: torch.nn.GRU."""
    (reset_in, update_in, new_in), (reset_h, update_h, new_h) = given.chunk(3, -1), remembered.chunk(3, -1)
    reset, update = (reset_in + reset_h).sigmoid(), (update_in + update_h).sigmoid()
    new = (new_in + reset * new_h).tanh()
    return (new + update * (state[0] - new),), reset


def _unrolled(
    layer: nn.RNNBase, tap: Tap, cell: Cell, suffix: str, inputs: Tensor, state: State
) -> tuple[Tensor, State]:
    """One layer, one direction: outputs, shape (B, T, H), and the last state, of inputs in the order of time."""
    w_in, w_h = getattr(layer, f"weight_ih{suffix}"), getattr(layer, f"weight_hh{suffix}")
    b_in, b_h = (getattr(layer, f"bias_ih{suffix}"), getattr(layer, f"bias_hh{suffix}")) if layer.bias else (None, None)
    before: list[Tensor] = []
    resets: list[Tensor] = []

    def squares(deltas: Tensor) -> Tensor:
        """Of the loss's gradient at what the inputs give to the gates, (B, T, gates)."""
        of_state = deltas
        if resets:  # GRU's new gate sees the state's part times the reset gate
            size = layer.hidden_size
            reset = torch.stack(resets, 1)
            of_state = torch.cat([deltas[..., : 2 * size], deltas[..., 2 * size :] * reset], -1)
        total = deltas.new_zeros(len(deltas))
        if w_in.requires_grad:
            total = total + weight_norms2(inputs.detach(), deltas)
        if w_h.requires_grad:
            total = total + weight_norms2(torch.stack(before, 1), of_state)
        for bias, at_it in ((b_in, deltas), (b_h, of_state)):
            if bias is not None and bias.requires_grad:
                total = total + bias_norms2(at_it)
        return total

    given = functional.linear(inputs, w_in, b_in)  # (B, T, gates)
    if not given.requires_grad and any(each is not None and each.requires_grad for each in (w_h, b_h)):
        given.requires_grad_()  # the state's weights learn though all before is frozen
    given = tap(given, squares)
    outputs = []
    for at_step in given.unbind(1):
        before.append(state[0].detach())
        state, reset = cell(at_step, functional.linear(state[0], w_h, b_h), state)
        outputs.append(state[0])
        if reset is not None:
            resets.append(reset.detach())
    return torch.stack(outputs, 1), state


def _recurrent(layer: nn.RNNBase, tap: Tap, cell: Cell, inputs: Tensor, first: State) -> tuple[Tensor, list[Tensor]]:
    """All layers and directions.

    Args:
        first: States, each of shape (layers * directions, B, H).
    """
    if not layer.batch_first:
        inputs = inputs.transpose(0, 1)
    directions = 2 if layer.bidirectional else 1
    last: list[State] = []
    for number in range(layer.num_layers):
        if number and layer.dropout and layer.training:
            inputs = functional.dropout(inputs, layer.dropout)
        outputs = []
        for direction, suffix in enumerate(("", "_reverse")[:directions]):
            state = tuple(each[number * directions + direction] for each in first)
            along = inputs.flip(1) if direction else inputs
            output, state = _unrolled(layer, tap, cell, f"_l{number}{suffix}", along, state)
            outputs.append(output.flip(1) if direction else output)
            last.append(state)
        inputs = torch.cat(outputs, -1)
    output = inputs if layer.batch_first else inputs.transpose(0, 1)
    return output, [torch.stack(states) for states in zip(*last, strict=True)]


def _zeros(layer: nn.RNNBase, inputs: Tensor) -> Tensor:
    directions = 2 if layer.bidirectional else 1
    examples = inputs.shape[0 if layer.batch_first else 1]
    return inputs.new_zeros(layer.num_layers * directions, examples, layer.hidden_size)


def lstm(layer: nn.LSTM, tap: Tap, input: Tensor, hx: State | None = None) -> tuple[Tensor, State]:
    """What nn.LSTM computes, for the same arguments; of packed sequences, or a single one, nothing is tapped."""
    if not _is_minibatch(input):
        return type(layer).forward(layer, input, hx)  # type: ignore[arg-type]
    first = hx if hx is not None else (_zeros(layer, input),) * 2
    output, last = _recurrent(layer, tap, lstm_cell, input, first)
    return output, tuple(last)


def gru(layer: nn.GRU, tap: Tap, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What nn.GRU computes, likewise."""
    if not _is_minibatch(input):
        return type(layer).forward(layer, input, hx)
    first = (hx if hx is not None else _zeros(layer, input),)
    output, (last,) = _recurrent(layer, tap, gru_cell, input, first)
    return output, last


def _is_minibatch(given: Tensor | PackedSequence) -> bool:
    return isinstance(given, Tensor) and given.dim() == 3


def _names(layer: nn.RNNBase) -> Iterator[str]:
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))
    for number in range(layer.num_layers):
        for suffix in ("", "_reverse") if layer.bidirectional else ("",):
            yield from (f"{kind}_l{number}{suffix}" for kind in kinds)


def _refuses(layer: nn.Module) -> str | None:
    assert isinstance(layer, nn.RNNBase)
    if layer.proj_size:
        return "it projects its state (proj_size)"
    if set(layer._parameters) != set(_names(layer)):
        return "it is pruned or reparametrised"
    return None


PIECES[nn.LSTM] = Apart(lstm, _refuses)
PIECES[nn.GRU] = Apart(gru, _refuses)
