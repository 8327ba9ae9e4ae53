"""Other packages' ways to each example's squared gradient norm, for any network and cross-entropy, as they document it.

None is needed: each is imported when it is built. How a way is judged: `standing`.
"""

import re
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

# Gradients of so many bytes are held at once, where a way has a choice.
BUDGET = 2**30

Outcome = Literal["right", "refuses", "silently wrong"]


class Found(NamedTuple):
    """What a package gives for a minibatch.

    Attributes:
        squares: Squared norms, shape (B,), over all parameters that it gives something for.
        left_out: The names of the trained ones that it gives nothing for, without an error.
    """

    squares: Tensor
    left_out: tuple[str, ...] = ()


Way = Callable[[Tensor, Tensor], Found]
"""From inputs (B, ...) and labels (B,)."""


class Peer(NamedTuple):
    """A way to the norms.

    Attributes:
        name: For people.
        package: That has to be installed, and whose version counts.
        build: The way, for a model that it may change.
        holds: Whether it makes each example's own gradients, of which a minibatch's may be more than there is memory.
    """

    name: str
    package: str
    build: Callable[[nn.Module], Way]
    holds: bool = False

    @property
    def version(self) -> str | None:
        """Of the package; None: it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


class Standing(NamedTuple):
    """How a way does on some model.

    Attributes:
        outcome: refuses: it raises an error. silently wrong: it returns other norms than autograd.
        why: The error's first line, or what is wrong.
    """

    outcome: Outcome
    why: str = ""


def opacus_hooks(model: nn.Module) -> Way:
    """Per-example gradients by hooks."""
    from opacus import GradSampleModule

    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    hooked = GradSampleModule(model, loss_reduction="sum")

    def way(inputs: Tensor, labels: Tensor) -> Found:
        hooked.zero_grad()
        _backward(hooked, inputs, labels)
        own = [each for each in hooked.parameters() if each.requires_grad]
        given = [each.grad_sample for each in own if getattr(each, "grad_sample", None) is not None]
        return _found(
            [each.flatten(1).square().sum(1) for each in given],
            [names[id(each)] for each in own if getattr(each, "grad_sample", None) is None],
        )

    return way


def opacus_ghost(model: nn.Module) -> Way:
    """The first of ghost clipping's two backward passes: the norms are known after it."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    ghost = GradSampleModuleFastGradientClipping(model, use_ghost_clipping=True, loss_reduction="sum")

    def way(inputs: Tensor, labels: Tensor) -> Found:
        ghost.zero_grad()
        _backward(ghost, inputs, labels)
        norms: Tensor = ghost.get_norm_sample()
        return Found(norms.square())

    return way


def backpack(model: nn.Module) -> Way:
    """BatchL2Grad, of all parameters that get one."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    extended, loss = extend(model), extend(nn.CrossEntropyLoss(reduction="sum"))

    def way(inputs: Tensor, labels: Tensor) -> Found:
        extended.zero_grad()
        own = {name: each for name, each in extended.named_parameters() if each.requires_grad}
        for each in own.values():
            vars(each).pop("batch_l2", None)
        with backpack(BatchL2Grad()):
            loss(extended(inputs), labels).backward()
        given = [each.batch_l2 for each in own.values() if hasattr(each, "batch_l2")]
        return _found(given, [name for name, each in own.items() if not hasattr(each, "batch_l2")])

    return way


def vmapped(model: nn.Module) -> Way:
    """Per-example gradients by torch.func, as many at once as the budget holds."""
    trained = {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}
    fixed = {name: each.detach() for name, each in model.named_parameters() if not each.requires_grad}
    fixed |= dict(model.named_buffers())
    size = sum(each.numel() * each.element_size() for each in trained.values())

    def loss(values: dict[str, Tensor], inputs: Tensor, label: Tensor) -> Tensor:
        outputs = functional_call(model, {**values, **fixed}, (inputs.unsqueeze(0),))
        return functional.cross_entropy(outputs, label.unsqueeze(0))

    def squares(inputs: Tensor, label: Tensor) -> Tensor:
        return torch.stack([each.square().sum() for each in grad(loss)(trained, inputs, label).values()]).sum()

    def way(inputs: Tensor, labels: Tensor) -> Found:
        slices = max(1, min(len(inputs), BUDGET // size))
        return Found(vmap(squares, chunk_size=slices)(inputs, labels))

    return way


OPACUS_GHOST = Peer("Opacus ghost norms", "opacus", opacus_ghost)
BACKPACK = Peer("BackPACK BatchL2Grad", "backpack-for-pytorch", backpack)
PEERS = (
    Peer("Opacus hooks", "opacus", opacus_hooks, holds=True),
    OPACUS_GHOST,
    BACKPACK,
    Peer("torch.func vmap(grad)", "torch", vmapped, holds=True),
)


def quiet(way: Way) -> Way:
    """The same without its warnings, which would be told at each of many calls."""

    def silent(inputs: Tensor, labels: Tensor) -> Found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return way(inputs, labels)

    return silent


def standing(found: Callable[[], Found], expected: Tensor | None, tolerance: float) -> Standing:
    """How what is found stands beside what is right.

    Args:
        found: Builds the way and goes it.
        expected: Squared norms of the first examples, shape (b,), b <= B; None: no example has a gradient of its own.
        tolerance: The largest relative error of a right norm's square.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            squares, left_out = found()
    except Exception as error:  # of whatever kind
        return Standing("refuses", first_line(error))
    if expected is None:
        return Standing("silently wrong", "gives norms, as if an example's gradient were its own")
    if squares.dim() != 1 or len(squares) < len(expected):
        return Standing("silently wrong", f"gives squares of shape {tuple(squares.shape)}")
    off = float((squares[: len(expected)].detach().double() / expected.double() - 1).abs().max())
    if off <= tolerance:
        return Standing("right")
    more = f" and {len(left_out) - 4} more" if len(left_out) > 4 else ""
    what = f"gives nothing for {', '.join(left_out[:4])}{more}" if left_out else f"off by {off:.2g} of the square"
    return Standing("silently wrong", what)


def first_line(error: Exception) -> str:
    """Of an error's message, with its type, without addresses in memory."""
    line = next((each.strip() for each in str(error).splitlines() if each.strip()), "")
    return re.sub(r"0x[0-9a-f]+", "0x...", f"{type(error).__name__}: {line}").rstrip(": ")


def one_by_one(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """What is right: by plain autograd, each example alone, of the model's trained parameters, shape (B,)."""
    own = [each for each in model.parameters() if each.requires_grad]
    squares = []
    for number in range(len(labels)):
        loss = functional.cross_entropy(model(inputs[number : number + 1]), labels[number : number + 1])
        gradients = torch.autograd.grad(loss, own, allow_unused=True)
        squares.append(torch.stack([each.square().sum() for each in gradients if each is not None]).sum())
    return torch.stack(squares)


def _backward(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    functional.cross_entropy(model(inputs), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]


def _found(squares: list[Tensor], left_out: list[str]) -> Found:
    if len({each.shape for each in squares}) > 1:
        shapes = ", ".join(sorted({str(tuple(each.shape)) for each in squares}))
        raise ValueError(f"squares of {shapes} can't be added")
    return Found(torch.stack(squares).sum(0) if squares else torch.zeros(0), tuple(left_out))
