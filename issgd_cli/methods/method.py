"""What the master asks of a method, in the order of a paper's algorithm: look, draw, weigh, combine, learn.

A method is one file with one class, and one line in issgd_cli/registries.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.losses import Objective
from issgd_cli.methods.blocks import Blocks
from issgd_cli.methods.proposal import Proposal, usable_norms
from issgd_cli.methods.smoothing import smoothing
from issgd_cli.methods.table import Float32s, Pairs, Table

# Of a minibatch's own examples: what its forward pass shows anyway ("rows": and several gradients, of losses weighted
# each time otherwise); or each one's gradient norm, which costs some more.
Needs = Literal["nothing", "outputs", "rows", "norms"]
Gradient = Sequence[Tensor]  # one part for each parameter of the network, in its shape; of J of them, (J, *shape)


class Drawn(NamedTuple):
    """A minibatch, as large as was asked for or not."""

    indices: Tensor  # int64, shape (B,), on the master's device
    factors: Tensor  # importance weights, float32, shape (B,)
    rate: float = 1.0  # what its step's learning rate is multiplied by


@dataclass(frozen=True)
class Seen:
    """What a forward pass of B examples shows, nothing with a graph.

    Attributes:
        losses: Each example's own, shape (B,).
        outputs: The network's, shape (B, ...).
        targets: The examples'.
        loss: What compares the two.
        last_inputs: What the last layer was given, shape (B, F), of a network that tells (networks.LinearAtLast).
    """

    losses: Tensor
    outputs: Tensor
    targets: Tensor
    loss: Objective
    last_inputs: Tensor | None = None

    def output_gradients(self) -> Tensor:
        """dL/dm, of each loss by the network's outputs m, shape (B, K). Analytic, without a backward pass."""
        return self.loss.output_gradients(self.outputs, self.targets).flatten(1)

    def importances(self) -> Tensor:
        """||dL/dm||, the norm of each loss's gradient by the network's outputs, float64, shape (B,).

        Source: Salaun et al. 2023.
        """
        norms: Tensor = torch.linalg.vector_norm(self.output_gradients(), dim=1, dtype=torch.float64)
        return norms


@dataclass(frozen=True)
class Refreshed:
    """What a look at the table gives: the proposal of the steps to come.

    Attributes:
        proposal: To draw from, on the master's device.
        previous: The norms before those that it was made of, NaN for examples not scored at two versions, shape (N,).
        smoothing: The constant that was added.
        values: Of it and of the table, for the trace.
    """

    proposal: Proposal
    previous: Float32s
    smoothing: float
    values: Mapping[str, float]

    def state(self) -> dict[str, Any]:
        """As numbers and arrays; the values are told already."""
        made = self.proposal
        flags = {"floored": made.floored, "fallback": made.fallback}
        return {"weights": made.weights, "previous": self.previous, "smoothing": self.smoothing, **flags}

    @classmethod
    def restored(cls, state: Mapping[str, Any], device: torch.device) -> "Refreshed":
        """From `state()`: the same draws, to the bit. (An older one knows no previous norms.)"""
        made = Proposal.of(state["weights"], int(state["floored"]), bool(state["fallback"]))
        unknown = np.full(len(made.weights), np.nan, np.float32)
        return cls(made.on(device), state.get("previous", unknown), float(state["smoothing"]), {})


class Method(ABC):
    """How the master draws its minibatches, and what it makes of them. A method says what it promises about bias.

    Attributes:
        needs: What it wants to know of its own minibatches.
        reads_pairs: Whether it looks at norms of two versions.
        in_use: What it draws from; None before the first look at the table, while draws are uniform.
        proposal: Its distribution.
        blocks: Minibatches that are drawn many at once, if `proposal.draws` has it so.
        examples: N.
        epochs: How many of its own it has made; None: an epoch is N draws.
        remembers: How many gradients it keeps from step to step; 0: none, as most.
        remembered: These, T numbers each, float32, shape (remembers, T). The master makes room for them; checkpoints
            have them in a file of their own.
    """

    needs: Needs = "nothing"
    remembers = 0

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        """Of N examples, for a master on this device."""
        self.config, self.examples, self.device = config, examples, device
        self.smoothing = smoothing(config.proposal.smoothing)
        self.reads_pairs = config.proposal.smoothing in ("variance-optimal", "second-moment")
        self.in_use: Refreshed | None = None
        self.epochs: float | None = None
        self.proposal = Proposal.uniform(examples).on(device)
        self.remembered = torch.zeros((0, 0), device=device)
        self.blocks = None if config.proposal.draws == "independent" else Blocks(config, examples, device)

    @abstractmethod
    def propose(self, norms: Float32s, usable: NDArray[np.bool_], constant: float) -> Proposal:
        """The distribution to draw from. Asked beside the training: what `learn` changes must not be read here.

        Args:
            norms: The table's, shape (N,).
            usable: Which of them may be looked at, shape (N,).
            constant: The smoothing constant that the configuration asks for.
        """

    def presample(self, step: int, size: int) -> Tensor | None:
        """Which examples it wants to see before it draws the minibatch of a step, int64, shape (C,); None: none.

        Their forward pass takes time, and counts as work.
        """
        return None

    @abstractmethod
    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        """The minibatch of a step: a function of the seed, the step, what is in use and what was learned alone.

        It changes nothing of these: an interrupted run draws the same minibatch once more.

        Args:
            step: Steps taken.
            size: How many examples are asked for.
            looked: What the examples of `presample` have shown.
        """

    def weigh(self, drawn: Drawn, seen: Seen) -> Tensor:
        """What each example's loss counts for in each of J gradients, shape (J, B); here the mean of section 4.1.

        Of any sign, and 0; but positive in the last of them where norms are needed, which are taken along with it.
        """
        return drawn.factors[None] * (1 / len(seen.losses))

    def combine(self, gradients: Gradient) -> Gradient:
        """The direction to descend, of J gradients, parts of shape (J, *its shape); the only one there is."""
        return [part.squeeze(0) for part in gradients]

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        """Takes in what the minibatch of a step has given, norms where it needs them, shape (B,). Most don't care."""
        if self.blocks is not None:
            self.blocks.taken(step)

    def settle(self, version: int, seconds: float) -> None:  # noqa: B027
        """Told at each publication of which version the minibatches since the last one were; nobody asks meanwhile."""

    def refreshed(self, table: Table) -> Refreshed:
        """What the table gives. It may be asked beside the training: nothing that draws are made of is changed."""
        settings = self.config.proposal
        fresh = table.fresh(settings)
        usable = table.spread(fresh)  # (N,)
        norms = table.shuffled(usable, self.config.seed) if settings.source == "shuffled" else table.norms
        constant = 0.0
        if usable.any():
            pairs = table.pairs(settings) if self.reads_pairs else Pairs.none()
            constant = self.smoothing(usable_norms(norms, usable), pairs.old, pairs.new)
            if settings.smoothing == "second-moment":
                norms = table.expected(norms, usable, pairs)
        made = self.propose(norms, usable, constant)
        values = {
            "proposal/entropy": alain2015.entropy(made.weights),
            "proposal/effective_sample_size": alain2015.effective_sample_size(made.weights),
            "proposal/kept_fraction": float(usable.mean()),
            "proposal/smoothing": constant,
            "proposal/floored": float(made.floored),
            "proposal/fallback": float(made.fallback),
            **table.ages(fresh),
        }
        return Refreshed(made.on(self.device), table.previous(), constant, values)

    def adopt(self, refreshed: Refreshed) -> None:
        """Draws from this from now on."""
        self.in_use, self.proposal = refreshed, refreshed.proposal

    def weights_in_use(self) -> Float64s:
        """What the next minibatch's examples are drawn in proportion to, for audits, shape (N,)."""
        return self.proposal.weights if self.blocks is None else self.blocks.weights_or(self.proposal.weights)

    def learned(self) -> dict[str, NDArray[Any]]:
        """What its own minibatches have taught it, numbers alone: in every checkpoint, of the same shapes all run long.

        A run goes on from it to the bit, from the middle of an epoch, too.
        """
        return {} if self.blocks is None else self.blocks.learned()

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from `learned()`, whose names, types and shapes have been checked.

        Raises:
            ValueError: A value that it can't have learned.
        """
        if self.blocks is not None:
            self.blocks.recall(learned)

    def state(self, about_to: Refreshed | None = None) -> dict[str, Any]:
        """What it goes on from besides, as numbers and arrays: what was made of the table, and what stands above that.

        The simulated cluster's checkpoints hold it. On the local one a run that is resumed reads the table anew.

        Args:
            about_to: What it is going to adopt before it draws again, if anything.
        """
        in_use = about_to or self.in_use
        return {} if in_use is None else {"in_use": in_use.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`, to the bit."""
        if "in_use" in state:
            self.adopt(Refreshed.restored(state["in_use"], self.device))


def relearn(method: Method, learned: Mapping[str, NDArray[Any]]) -> None:
    """Gives a method, made anew, back what it had learned.

    Raises:
        ValueError: No such method can have learned that.
    """
    expected, held = ({name: (a.dtype, a.shape) for name, a in each.items()} for each in (method.learned(), learned))
    if expected != held:
        raise ValueError(f"what its method has learned is {held}, not {expected}")
    method.recall(learned)


def epoch_of(step: int, size: int, examples: int) -> int:
    """Which epoch a step begins in, from 0 on, where one is as many draws as there are examples."""
    return step * size // examples
