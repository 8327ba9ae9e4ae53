"""What learns: the network's parameters, how they descend, and whether they are still numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.errors import LayerError, RunError
from issgd_cli.methods.method import Gradient, Needs, Seen
from issgd_cli.networks import LinearAtLast
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.layers import batch_normalised
from issgd_cli.optimizers import Descent
from issgd_cli.optimizers.schedules import learning_rate
from issgd_cli.problem import Problem
from issgd_cli.registries import OPTIMIZERS
from issgd_cli.runs.checkpoints import Checkpoint
from issgd_cli.scores import cost, rows
from issgd_cli.scores.forward import Forward
from issgd_cli.scores.gradient_norm import forward
from issgd_cli.scores.rows import is_by_layers, is_linear


@dataclass(frozen=True)
class Pass:
    """A minibatch's forward pass.

    Attributes:
        losses: Each example's own, with their graph, shape (B,).
        seen: What it shows, without.
        scored: The same pass, where the norms are to be taken along.
        layered: The same pass, where several gradients are to be taken of it, and one backward pass gives them.
    """

    losses: Tensor
    seen: Seen
    scored: Forward | None = None
    layered: Forward | None = None


class Learner:
    """See the module.

    Attributes:
        step: How many steps were taken.
        passes: What that has taken in this life (scores/cost.py).
        model: The network.
        parameters: Its numbers, flat, shape (P,): the model's tensors are views of it (networks/flat.py).
        trained, tensors: The parameters that descend, T of the P numbers; flat, shape (T,), and in their shapes.
        optimizer: How they descend.
        tells_last_inputs: Whether the network is a LinearAtLast.
        is_linear: Whether several gradients may be had by one backward pass (scores/rows.py).
    """

    def __init__(self, config: Config, problem: Problem, device: torch.device, checkpoint: Checkpoint | None) -> None:
        """At step 0, or where the checkpoint left off."""
        self.config, self.problem = config, problem
        self.model = problem.initial_network(config.seed, device)
        self.parameters = flatten_parameters(self.model)
        self.tensors: list[Tensor] = [one for one in self.model.parameters() if one.requires_grad]
        self.trained = self.parameters[: problem.trained_size]
        self.optimizer: Descent = OPTIMIZERS[config.optimizer.kind](config, self.trained, self.tensors)
        self.tells_last_inputs = isinstance(self.model, LinearAtLast)
        self.is_linear = is_linear(self.model) and not batch_normalised(self.model)
        self.step, self.passes = 0, 0.0
        self._norm_passes: float | None = None  # a norm's cost, once there was one
        if checkpoint is not None:
            self.step = checkpoint.step
            self.parameters.copy_(torch.from_numpy(checkpoint.parameters))
            if set(checkpoint.optimizer) != set(self.optimizer.vectors):
                raise RunError(
                    f"The run's checkpoint is of another optimiser than {config.optimizer.kind}: it holds "
                    f"{', '.join(sorted(checkpoint.optimizer))}. Remove the run's folder and start it again."
                )
            for name, vector in self.optimizer.vectors.items():
                vector.copy_(torch.from_numpy(checkpoint.optimizer[name]))

    def forward(self, inputs: Tensor, targets: Tensor, needs: Needs = "nothing") -> Pass:
        """Each example's loss, augmented where the run is; what the backward pass gives besides is told by `needs`."""
        inputs = self.problem.augmentation(inputs, self.step)
        model: Any = self.model
        self.passes += len(inputs)
        last_inputs = model.last_inputs(inputs) if needs != "nothing" and self.tells_last_inputs else None
        if needs == "norms" or (needs == "rows" and self.is_linear):
            try:
                passed = forward(self.problem.loss, model, inputs, targets)
            except LayerError:
                if needs == "norms":
                    raise
                self.is_linear = False  # examples mix, or a layer is used twice: one gradient after the other
            else:
                seen = self._seen(passed.losses, passed.outputs, targets, last_inputs)
                scored, layered = (passed, None) if needs == "norms" else (None, passed)
                if scored is not None and self._norm_passes is None:
                    self._norm_passes = cost.norms(self.problem.loss, model, inputs, targets, passed.plan)
                return Pass(passed.losses, seen, scored, layered)
        outputs = model(inputs)
        losses = self.problem.loss(outputs, targets)
        return Pass(losses, self._seen(losses, outputs, targets, last_inputs))

    @torch.no_grad()
    def look(self, inputs: Tensor, targets: Tensor) -> Seen:
        """What these examples show as they are, in evaluation mode, as workers score them: nothing is trained.

        Its passes are the step's that it is for, which is counted once, however often its look was interrupted.
        """
        self.model.eval()
        outputs = self.model(inputs)
        self.model.train()
        return self._seen(self.problem.loss(outputs, targets), outputs, targets)

    def _seen(self, losses: Tensor, outputs: Tensor, targets: Tensor, last_inputs: Tensor | None = None) -> Seen:
        return Seen(losses.detach(), outputs.detach(), targets, self.problem.loss, last_inputs)

    def backward(self, forward: Pass, coefficients: Tensor) -> tuple[Gradient, Tensor | None]:
        """The gradients of the losses, weighted by each row of the coefficients, shape (J, B).

        Returns:
            J gradients; squared norms of each example's own gradient, shape (B,), where they were asked for.
        """
        *others, last = coefficients
        by_layers = forward.layered is not None and is_by_layers(forward.layered)
        to_outputs = 1 if by_layers else len(coefficients)
        norms = 0.0 if forward.scored is None else self._norm_passes or 0.0
        self.passes += (to_outputs + len(coefficients) + norms) * len(forward.losses)
        if others and forward.layered is not None and by_layers:
            return rows.gradients(forward.layered, coefficients), None
        # Of sums: for the gradient of each loss torch would load half a second of libraries.
        found: list[Gradient] = [
            torch.autograd.grad((forward.losses * row).sum(), self.tensors, retain_graph=True) for row in others
        ]
        squared_norms = None
        if forward.scored is None:
            found.append(torch.autograd.grad((forward.losses * last).sum(), self.tensors))
        else:
            squared_norms, gradient = forward.scored.backward(last)
            assert gradient is not None
            found.append(gradient)
        return [torch.stack(parts) if others else parts[0][None] for parts in zip(*found, strict=True)], squared_norms

    def descend(self, gradient: Gradient, rate: float = 1.0) -> None:
        """One step of the optimiser, in place, at so many times the schedule's rate."""
        self.optimizer.descend(gradient, rate * learning_rate(self.config, self.step), self.step)
        self.step += 1

    def vectors(self) -> Mapping[str, Tensor]:
        """All that a checkpoint holds of it, by its name for people; each flat."""
        buffers = {f"{name.replace('_', ' ')} buffers": vector for name, vector in self.optimizer.vectors.items()}
        return {"parameters": self.parameters, **buffers}

    def trouble(self, losses: Tensor | None = None) -> str | None:
        """How its numbers show that it has diverged; None: not at all.

        Args:
            losses: Of the last steps, shape (steps,). A loss is of the parameters before its step, which may itself be
                the one that overflows.
        """
        if losses is not None and len(bad := torch.nonzero(~torch.isfinite(losses))):
            return f"The loss is not finite at step {self.step - len(losses) + int(bad[0]) + 1}"
        for name, vector in self.vectors().items():
            # A NaN anywhere makes both NaN. The least and the largest take no memory, and a tenth of isfinite's time.
            if not torch.isfinite(torch.stack(torch.aminmax(vector))).all():
                return f"The {name} are not finite after step {self.step}"
        return None
