"""Exact norms of whatever has no rule: each example's own gradient of one module's parameters, in slices of memory.

The module is run again, on what it was given and for what it has computed, one example at a time: by torch.func for
many examples at once where the module can be so computed, else in a loop. It costs more than a rule, and never
approximates. Only this module is run again, nothing before or behind it; and where it does not compute again what it
has computed, of the same, there are no norms.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree

from issgd_cli.errors import LayerError
from issgd_cli.scores.calls import Call
from issgd_cli.scores.plan import Unit

# Gradients of so many bytes are held at once.
BUDGET = 64 * 2**20
# So many times further off than at the first look, or than one rounding, what is run again computes something else.
SLACK = 100

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
        LayerError: Run again the host is not what it was: it draws at random, looks at the other examples, or has
            changed.
    """
    return _compared(unit, calls, deltas)[0]


def measured(unit: Unit, calls: Sequence[Call], deltas: Sequence[Tensor | None]) -> Unit:
    """The unit, which from then on may be off no further than now, and some slack. Args and errors: as above."""
    _, distances = _compared(unit, calls, deltas)
    eps = max(torch.finfo(delta.dtype).eps for delta in deltas if delta is not None)
    return replace(unit, far=min(unit.far, SLACK * max(float(distances.max()), eps)))


def _compared(unit: Unit, calls: Sequence[Call], deltas: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """What `squared_norms` gives; and how far what is run again is from what it was, of each example, shape (B,)."""
    live = [delta for delta in deltas if delta is not None]
    given = [[each.detach() for each in _of_examples(unit, call)] for call in calls]
    values = {name: parameter.detach() for name, parameter in unit.parameters.items()}
    examples = len(live[0])
    if any(len(delta) != examples for delta in live):
        raise LayerError(f"{unit.name}: some of its outputs have other rows than the examples.")

    def outputs(given: Rows, values: Values) -> tuple[Tensor, ...]:
        every = [output for call, own in zip(calls, given, strict=True) for output in _again(unit, call, own, values)]
        return tuple(output for output, delta in zip(every, deltas, strict=True) if delta is not None)

    def squares(given: Rows, live: list[Tensor], known: list[Tensor]) -> tuple[Tensor, Tensor]:
        found, pull, *_ = torch.func.vjp(lambda values: outputs(given, values), values)
        return _summed(list(pull(tuple(live))[0].values())), _distance(found, places, known)

    each = [call.outputs[place] for call in calls for place in call.edges]
    of_live = [output for output, delta in zip(each, deltas, strict=True) if delta is not None]
    # What was changed in place since, as by nn.ReLU(inplace=True), can't be compared with.
    places = [place for place, (output, version) in enumerate(of_live) if output._version == version]
    known = [of_live[place][0] for place in places]

    if unit.vectorised:
        size = sum(value.numel() * value.element_size() for value in values.values())
        slices = min(examples, max(1, BUDGET // size))
        try:
            # In the midst of a backward pass gradients are switched off, and an LSTM would keep nothing for its own.
            with torch.enable_grad(), warnings.catch_warnings():  # of what is done one example after the other
                warnings.filterwarnings("ignore", "There is a performance drop")
                found, far = torch.func.vmap(squares, chunk_size=slices)(given, live, known)
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
            raise _other(unit) from None
        return found, _near(unit, far)
    alone, distances = [], []
    for number in range(examples):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        with torch.enable_grad():
            of_one = outputs([[each[number] for each in own] for own in given], leaves)
        distances.append(_distance(of_one, places, [output[number] for output in known]))
        pairs = [(output, delta[number]) for output, delta in zip(of_one, live, strict=True) if output.requires_grad]
        ends, ways = [output for output, _ in pairs], [delta for _, delta in pairs]
        gradients = torch.autograd.grad(ends, list(leaves.values()), ways, allow_unused=True) if ends else ()
        alone.append(_summed([gradient for gradient in gradients if gradient is not None]))
    return torch.stack(alone), _near(unit, torch.stack(distances))


def _distance(found: Sequence[Tensor], places: Sequence[int], known: Sequence[Tensor]) -> Tensor:
    """How far outputs are from those that are known, which stand at these places: in the mean, relative."""
    if not known:
        return torch.zeros((), device=found[0].device)
    pairs = [(found[place].detach(), then) for place, then in zip(places, known, strict=True)]
    apart = torch.stack([(again - then).abs().float().sum() for again, then in pairs]).sum()
    return apart / torch.stack([then.abs().float().sum() for then in known]).sum().clamp(min=1e-30)


def _near(unit: Unit, distances: Tensor) -> Tensor:
    """The distances, unless one is further than the unit bears."""
    if bool((distances > unit.far).any()):
        raise _other(unit)
    return distances


def _other(unit: Unit) -> LayerError:
    return LayerError(
        f"{unit.name} has no rule ({unit.why}), and run again for its norms it computes something else: it draws at "
        "random, changes itself as it is called, or looks at the other examples. Score the model in evaluation mode, "
        "set its dropout to 0, or let it compute the same of the same each time."
    )


def _again(unit: Unit, call: Call, given: Sequence[Tensor], values: Values) -> list[Tensor]:
    """What the host computes of one example by other values of the parameters: those outputs that had a gradient."""
    own = iter(given)
    filled = [
        next(own).unsqueeze(0) if is_row else each for each, is_row in zip(call.arguments, unit.by_example, strict=True)
    ]
    args, kwargs = _pytree.tree_unflatten(filled, call.spec)
    # Again from where the call began, as spectral norm wants it; what it changes is changed by the forward pass alone.
    buffers = {name: buffer.clone() for name, buffer in call.buffers.items()}
    leaves = _pytree.tree_leaves(torch.func.functional_call(unit.host, {**buffers, **values}, args, kwargs))
    return [leaves[place].squeeze(0) for place in call.edges]


def _of_examples(unit: Unit, call: Call) -> list[Tensor]:
    """What a call was given that has an example a row."""
    if len(unit.by_example) != len(call.arguments):
        raise LayerError(f"{unit.name} is called with other arguments than when the model was looked at first.")
    return [each for each, is_row in zip(call.arguments, unit.by_example, strict=True) if is_row]


def _summed(gradients: Sequence[Tensor]) -> Tensor:
    if not gradients:
        return torch.zeros(())
    real = [each.abs() if each.is_complex() else each for each in gradients]
    parts = [each.to(torch.promote_types(each.dtype, torch.float32)).square().sum() for each in real]
    return torch.stack(parts).sum()
