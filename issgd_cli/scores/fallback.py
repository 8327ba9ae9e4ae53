"""Exact norms of whatever has no rule: each example's own gradient of one module's parameters, in slices of memory.

The module is run again, on what it was given and for what it has computed, one example at a time: by torch.func for
many examples at once where the module can be so computed, else in a loop. It costs more than a rule, and never
approximates. Only this module is run again, nothing before or behind it.
"""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree

from issgd_cli.errors import LayerError
from issgd_cli.scores.calls import Call
from issgd_cli.scores.plan import Unit

# Gradients of so many bytes are held at once.
BUDGET = 64 * 2**20

Values = Mapping[str, Tensor]
Rows = Sequence[Sequence[Tensor]]  # of each call, what it was given of one example, or of each


def squared_norms(unit: Unit, calls: Sequence[Call], deltas: Sequence[Tensor | None]) -> Tensor:
    """Each example's squared gradient norm over a unit's parameters, which may be used in several calls, and often.

    Args:
        unit: Of a plan.
        calls: Of its host; an example's gradient is a sum over them.
        deltas: The loss's gradients at all outputs of all calls, in order, each of shape (B, ...); None: it has no
            part in the loss.

    Returns:
        Shape (B,), in float32 at least.

    Raises:
        LayerError: The host draws at random, so that run again it is not what it was.
    """
    live = [delta for delta in deltas if delta is not None]
    given = [[each.detach() for each in _of_examples(unit, call)] for call in calls]
    values = {name: parameter.detach() for name, parameter in unit.parameters.items()}
    examples = len(live[0])
    if any(len(delta) != examples for delta in live):
        raise LayerError(f"{unit.name}: some of its outputs have other rows than the examples.")

    def outputs(given: Rows, values: Values) -> tuple[Tensor, ...]:
        every = [output for call, own in zip(calls, given, strict=True) for output in _again(unit, call, own, values)]
        return tuple(output for output, delta in zip(every, deltas, strict=True) if delta is not None)

    def squares(given: Rows, live: list[Tensor]) -> Tensor:
        _, pull, *_ = torch.func.vjp(lambda values: outputs(given, values), values)
        return _summed(list(pull(tuple(live))[0].values()))

    if unit.vectorised:
        size = sum(value.numel() * value.element_size() for value in values.values())
        slices = min(examples, max(1, BUDGET // size))
        try:
            # In the midst of a backward pass gradients are switched off, and an LSTM would keep nothing for its own.
            with torch.enable_grad(), warnings.catch_warnings():  # of what is done one example after the other
                warnings.filterwarnings("ignore", "There is a performance drop")
                found: Tensor = torch.func.vmap(squares, chunk_size=slices)(given, live)
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
            raise LayerError(
                f"{unit.name} draws at random in training mode, and has no rule ({unit.why}): run again for its norms "
                "it would draw otherwise. Score the model in evaluation mode, or set its dropout to 0."
            ) from None
        return found
    alone = []
    for number in range(examples):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        with torch.enable_grad():
            of_one = outputs([[each[number] for each in own] for own in given], leaves)
        gradients = torch.autograd.grad(
            of_one, list(leaves.values()), [delta[number] for delta in live], allow_unused=True
        )
        alone.append(_summed([gradient for gradient in gradients if gradient is not None]))
    return torch.stack(alone)


def _again(unit: Unit, call: Call, given: Sequence[Tensor], values: Values) -> list[Tensor]:
    """What the host computes of one example by other values of the parameters: those outputs that had a gradient."""
    own = iter(given)
    filled = [
        next(own).unsqueeze(0) if is_row else each for each, is_row in zip(call.arguments, unit.by_example, strict=True)
    ]
    args, kwargs = _pytree.tree_unflatten(filled, call.spec)
    leaves = _pytree.tree_leaves(torch.func.functional_call(unit.host, dict(values), args, kwargs))
    return [leaves[place].squeeze(0) for place in call.edges]


def _of_examples(unit: Unit, call: Call) -> list[Tensor]:
    """What a call was given that has an example a row."""
    if len(unit.by_example) != len(call.arguments):
        raise LayerError(f"{unit.name} is called with other arguments than when the model was looked at first.")
    return [each for each, is_row in zip(call.arguments, unit.by_example, strict=True) if is_row]


def _summed(gradients: Sequence[Tensor]) -> Tensor:
    real = [each.abs() if each.is_complex() else each for each in gradients]
    parts = [each.to(torch.promote_types(each.dtype, torch.float32)).square().sum() for each in real]
    return torch.stack(parts).sum()
