"""How the norms of a model are found, layer by layer, and what that costs: for people who wonder."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from issgd_cli.losses import Loss
from issgd_cli.scores.first_look import plan_of
from issgd_cli.scores.forward import Forward
from issgd_cli.scores.plan import Unit, Way

REPEATS = 5


@dataclass(frozen=True)
class Explained:
    """Of one part of a model.

    Attributes:
        name: Of the module, and its type.
        parameters: How many numbers are trained there.
        way: By a rule, in pieces, by copies, by the fallback or a loop: see plan.Unit.
        why: In words.
        cost: What its norms take beside the backward pass, as a part of the model's plain forward and backward pass.
    """

    name: str
    parameters: int
    way: Way
    why: str
    cost: float


def explained(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> list[Explained]:
    """All parts of a model that have trained parameters, in the model's order, timed on a minibatch.

    Raises:
        LayerError: As `score`.
    """
    plan = plan_of(loss, model, inputs, targets)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def plain() -> Tensor:
        return torch.autograd.grad(loss(model(inputs), targets).sum(), trained, allow_unused=True)[-1]

    whole = _seconds(plain)
    forward = Forward.of(loss, model, inputs, targets, plan)
    deltas = forward.deltas()

    def cost(unit: Unit) -> float:
        if unit.way == "loop":
            return _seconds(lambda: forward.one_by_one(unit, None)) / whole
        return _seconds(lambda: forward.squares(unit, deltas[unit])) / whole if unit in deltas else 0.0

    return [
        Explained(unit.name, sum(own.numel() for own in unit.parameters.values()), unit.way, unit.why, cost(unit))
        for unit in plan.units
    ]


def _seconds(what: Callable[[], Tensor | None]) -> float:
    """The median of some repeats, after one to warm up."""
    taken = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        if (result := what()) is not None:
            result.sum().item()  # waits for the device
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])
