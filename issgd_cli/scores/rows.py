"""Several gradients of one minibatch, each of its losses weighted otherwise, by one backward pass.

Where examples do not mix, a linear layer's weight gradient is a product of what it was given and of the loss's gradient
at its output, whose rows the weights multiply: one pass to the layers' outputs, then a product for each weighting.
"""

from torch import Tensor, nn

from issgd_cli.scores.forward import Forward


def is_linear(model: nn.Module) -> bool:
    """Whether all parameters are of plain linear layers."""
    owners = (module for module in model.modules() if next(module.parameters(recurse=False), None) is not None)
    return all(type(owner) is nn.Linear for owner in owners)


def is_by_layers(passed: Forward) -> bool:
    """Whether `gradients` can be: each of the layers was called once, and nothing else meets its parameters."""
    return all(unit.way == "rule" and type(unit.host) is nn.Linear for unit in passed.plan.units)


def gradients(passed: Forward, coefficients: Tensor) -> list[Tensor]:
    """The gradients of `losses @ row` for each row of the coefficients, of any sign, shape (J, B).

    Returns:
        One tensor for each of the pass's parameters, shape (J, *its shape).
    """
    found: dict[int, Tensor] = {}
    for unit, (delta,) in passed.deltas().items():
        ((given,),) = (call.tensors for call in passed.record.calls[unit.host])
        if delta is None:
            continue
        weighted = coefficients.reshape(*coefficients.shape, *[1] * (delta.dim() - 1)) * delta
        rows = weighted.reshape(len(coefficients), -1, delta.shape[-1])  # (J, B or all positions, outputs)
        for name, parameter in unit.parameters.items():
            if name == "bias":
                found[id(parameter)] = rows.sum(1)
            else:
                tall = rows.mT.reshape(-1, rows.shape[1])  # one product for all J
                product = tall @ given.detach().reshape(rows.shape[1], -1)
                found[id(parameter)] = product.view(len(coefficients), *parameter.shape)
    none = (len(coefficients),)
    return [found[id(each)] if id(each) in found else each.new_zeros(none + each.shape) for each in passed.parameters]
