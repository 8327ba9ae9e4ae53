"""What is counted as work, so that methods can be compared at equal work: passes of one example through the network.

Training on it takes three: forward, back to the layers' outputs, and the weight gradients: a matrix product a layer of
the same size each (a convention; the first layer's inputs need no gradient). Norms are counted by their operations, as
a part of a pass. What all methods do alike is left out: drawing, the optimiser's step, losses.

Actors count passes, whose sums are exact in whichever order they are added; traces tell examples that are trained on.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from issgd_cli.losses import Loss
from issgd_cli.scores.company import put_back
from issgd_cli.scores.forward import Forward
from issgd_cli.scores.plan import Plan

IN_PASSES = "work/passes"  # where an actor's are told
_GRAIN = 2.0**-20  # of a pass: so that sums are exact
EXAMPLES = 4  # whose operations are counted


def norms(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, plan: Plan) -> float:
    """What an example's gradient norm costs where its backward pass is made anyway, in its forward passes.

    Operations beyond those of plain autograd over the products of a forward pass: an addition or a multiplication is
    one. Of a linear layer of d inputs and p outputs 2 (d + p) over 2 d p.

    Args:
        loss: Of an example.
        model: As `score` takes it.
        inputs: Of some examples, shape (B, ...), of which a few are looked at.
        targets: Theirs.
        plan: How the norms are found.
    """
    inputs, targets = inputs[:EXAMPLES], targets[:EXAMPLES]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def plain() -> object:
        return torch.autograd.grad(loss(model(inputs), targets).sum(), trained, allow_unused=True)

    with put_back(inputs.device):
        forward = _operations(lambda: model(inputs)).products
        without = _operations(plain)
        along = _operations(lambda: Forward.of(loss, model, inputs, targets, plan).backward())
    return round(max(0, along.total - without.total) / forward / _GRAIN) * _GRAIN if forward else 0.0


class _Operations(TorchDispatchMode):
    """Counts what is computed within.

    Attributes:
        products: Operations of matrix products and convolutions.
        total: These, and one for each number that anything else is computed of, or gives.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's question; it would load a second of libraries for the skipping, and nothing here is compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            count = int(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=found))
            self.products += count
            self.total += count
        elif not func.is_view:
            sizes = [each.numel() for each in tree_iter((args, found)) if isinstance(each, Tensor)]
            self.total += max(sizes, default=0)
        return found


def _operations(of: Callable[[], object]) -> _Operations:
    counted = _Operations()
    with counted:
        of()
    return counted
