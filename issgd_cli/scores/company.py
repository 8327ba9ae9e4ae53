"""Whether an example's loss depends on which others it comes with: then it has no gradient of its own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from issgd_cli.losses import Loss

# How far a number may be off that is computed in other company: relative to itself, and to the largest.
TOLERANCES = {torch.float64: (1e-6, 1e-12), torch.float32: (1e-3, 1e-6)}
COARSE = (0.1, 1e-2)

EXAMPLES = 3
MIXED = (
    "An example's loss is another one when the minibatch is another: the model or the loss mixes or reorders "
    "examples, or divides by their number, so that none has a gradient of its own. Take that out; a loss is not "
    "to be averaged over examples, nor its targets, of shape (B,), broadcast against outputs of shape (B, 1)."
)
UNTOLD = (
    "A part of the model draws at random and can't be run again for an example alone, and an example's loss is another "
    "one beside others though the same is drawn: it mixes examples, or what it draws depends on them, or comes of a "
    "generator of its own. Score the model in evaluation mode, set its dropout to 0, or take the mixing out."
)


def company(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, must_tell: bool) -> str | None:
    """How an example's loss depends on which others it comes with, in words; None: it doesn't, or nobody can tell.

    Args:
        loss: Of an example.
        model: It may draw at random.
        inputs: Of EXAMPLES; of fewer nobody can tell.
        targets: Of these.
        must_tell: Where the model draws at random, what has no gradient must be the same in other company, too.
    """
    if len(inputs) < EXAMPLES:
        return None

    def losses(rows: list[int]) -> Tensor:
        with torch.enable_grad():  # some models do other things without
            return loss(model(inputs[rows]), targets[rows]).detach()

    def again(rows: list[int]) -> Tensor:
        with put_back(inputs.device):
            return losses(rows)

    everyone, others = [0, 1, 2], [1, 0]  # the third is missing, and these two are in another order
    together = losses(everyone)
    if torch.equal(together, losses(everyone)):
        return MIXED if _differs(together[others], losses(others), together) else None
    if _is_reached(loss, model, inputs, targets):
        return MIXED
    if not must_tell:
        return None
    together = again(everyone)
    # As many examples, for as many random numbers; one of them is another.
    as_alone = all(
        torch.equal(together[kept], again(rows)[kept]) for rows, kept in (([0, 1, 1], [0, 1]), ([1, 1, 2], [1, 2]))
    )
    return None if as_alone else UNTOLD


def relative(dtype: torch.dtype) -> float:
    """How far off a number of this precision may be, relative to itself."""
    return TOLERANCES.get(dtype, COARSE)[0]


def _differs(one: Tensor, other: Tensor, whole: Tensor) -> bool:
    return bool(((one - other).abs() > relative(whole.dtype) * whole.abs().max()).any())


@contextmanager
def put_back(device: torch.device) -> Iterator[None]:
    """Puts the global generators back to where they were, so that the next run draws the same."""
    own, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)


def _is_reached(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> bool:
    """Whether any example's loss has a gradient by another's inputs."""
    if not inputs.is_floating_point():
        return False
    leaf = inputs.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            losses = loss(model(leaf.clone()), targets)  # of a copy: a leaf can't be changed in place
            found = [torch.autograd.grad(own, leaf, retain_graph=True, allow_unused=True)[0] for own in losses]
    except RuntimeError:  # inputs with a gradient are more than some models bear
        return False
    for number, gradient in enumerate(found):
        if gradient is not None:
            sizes = gradient.abs().reshape(len(gradient), -1).amax(1)
            others = torch.cat([sizes[:number], sizes[number + 1 :]])
            if bool(others.amax() > 1e-6 * sizes.amax()):
                return True
    return False
