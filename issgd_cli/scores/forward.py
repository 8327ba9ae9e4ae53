"""A forward pass that leaves what the norms need, and the backward pass that gives them, too."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.utils import _pytree

from issgd_cli.errors import LayerError, LossError
from issgd_cli.losses import Loss
from issgd_cli.losses.per_example import require_one_each
from issgd_cli.scores import fallback
from issgd_cli.scores.calls import Record, backmost, recorded
from issgd_cli.scores.plan import Plan, Unit, used_otherwise
from issgd_cli.scores.rules import squared_norms


@dataclass(frozen=True)
class Forward:
    """A forward pass whose backward pass gives each example's gradient norm, too.

    Attributes:
        outputs: The model's, detached, shape (B, ...); or a tuple of such, or whatever the loss takes.
        losses: Each example's own, with their graph, shape (B,).
        plan: How the norms are found.
        record: What the pass has left for them.
        parameters: All that are trained, once each.
    """

    outputs: Any
    losses: Tensor
    plan: Plan
    record: Record
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, plan: Plan) -> "Forward":
        """Runs the model, and sees to it that the plan is for what it has computed.

        Raises:
            LayerError: It isn't.
        """
        again = {unit.host for unit in plan.of("fallback")}
        with recorded(len(inputs), plan.hosts, plan.apart, plan.copied, again) as record, torch.enable_grad():
            outputs, losses = run(loss, model, inputs, targets)
        plan = plan.of_pass(model, record, losses)
        trained = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
        detached = _pytree.tree_map_only(Tensor, Tensor.detach, outputs)
        return cls(detached, losses, plan, record, trained)

    def backward(
        self, factors: Tensor | None = None, with_gradient: bool = True
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Squared norms of each example's own gradient, shape (B,), and the gradient of `losses @ factors`.

        Args:
            factors: Positive, shape (B,); None: 1.
            with_gradient: Else there is no gradient, and its cost is saved.

        Raises:
            LayerError: A rule met something else than what it is for.
        """
        squares, gradients = self.backward_of_used(factors, with_gradient)
        if gradients is None:
            return squares, None
        pairs = zip(self.parameters, gradients, strict=True)
        return squares, tuple(torch.zeros_like(own) if each is None else each for own, each in pairs)

    def backward_of_used(
        self, factors: Tensor | None = None, with_gradient: bool = True
    ) -> tuple[Tensor, tuple[Tensor | None, ...] | None]:
        """The same, but None where a parameter has no part in this pass's losses, as autograd has it."""
        wide = torch.promote_types(self.losses.dtype, torch.float32)
        total = torch.zeros(len(self.losses), dtype=wide, device=self.losses.device)
        parts, gradients = self.parts(factors, with_gradient)
        for _, of_unit in parts:
            total += of_unit
        if factors is not None:  # else an ideal proposal, whose factors are as 1 / norm, would make all norms equal
            total /= factors.square()
        return total, gradients

    def parts(
        self, factors: Tensor | None = None, with_gradient: bool = False, again: bool = False
    ) -> tuple[list[tuple[Unit, Tensor]], tuple[Tensor | None, ...] | None]:
        """What each unit of the plan adds to the squares, times the factors' squares; and the gradient.

        Args:
            factors: As above.
            with_gradient: As above.
            again: Keep the graph for another call.
        """
        found = {unit: self.one_by_one(unit, factors) for unit in self.plan.of("loop")}
        edges = {unit: self._edges(unit) for unit in self.plan.units}
        waiting: dict[Unit, dict[int, Tensor]] = {unit: {} for unit in edges}

        def take(unit: Unit, number: int, delta: Tensor | None) -> None:
            """A unit's delta, as soon as there is one; with the last of them, all are done with."""
            if delta is not None:
                waiting[unit][number] = delta
            if len(waiting[unit]) == len(edges[unit]):
                finish(unit)

        def finish(unit: Unit) -> None:
            deltas = waiting.pop(unit)
            if deltas:
                found[unit] = self.squares(unit, [deltas.get(number) for number in range(len(edges[unit]))])
            if not again and unit.way != "copies":  # which need no call: another unit of the same host may
                self.record.forget(unit.host)

        gradients = self._backward(edges, take, factors, with_gradient, again)
        for unit in list(waiting):  # those of which some output has no part in the loss
            finish(unit)
        return [(unit, found[unit]) for unit in self.plan.units if unit in found], gradients

    def _backward(
        self,
        edges: Mapping[Unit, Sequence[GradientEdge]],
        take: Callable[[Unit, int, Tensor | None], None],
        factors: Tensor | None,
        with_gradient: bool,
        again: bool,
    ) -> tuple[Tensor | None, ...] | None:
        """One backward pass, which gives away each delta when it comes by, so that they are never held all at once."""
        places = [(unit, number, edge) for unit, own in edges.items() for number, edge in enumerate(own)]
        # Only what these need is computed: no weight gradient where no parameter is among them. Behind the last of the
        # edges nothing is, so their own nodes would not run.
        last = backmost(self.losses, [edge for _, _, edge in places])
        ends: list[Any] = [edge for _, _, edge in places if edge.node in last]
        ends += self.parameters if with_gradient else ()
        if not ends:
            return None
        seen: set[tuple[Unit, int]] = set()

        def come_by(unit: Unit, number: int, output: int, gradients: tuple[Tensor | None, ...]) -> None:
            seen.add((unit, number))
            take(unit, number, gradients[output])

        with ExitStack() as stack, torch.enable_grad():
            for unit, number, edge in places:
                stack.callback(edge.node.register_prehook(partial(come_by, unit, number, edge.output_nr)).remove)
            # Of a sum: for the gradient of each loss torch would load half a second of libraries.
            whole = (self.losses if factors is None else self.losses * factors).sum()
            gradients = torch.autograd.grad(whole, ends, retain_graph=again, allow_unused=True)
        given = iter(gradients)
        for unit, number, edge in places:
            # What runs after all, for the parameters behind it, has come by, as hooks on the layer's output leave it:
            # autograd gives that what it was before them.
            if edge.node in last and (delta := next(given, None)) is not None and (unit, number) not in seen:
                take(unit, number, delta)
        return tuple(given) if with_gradient else None

    def deltas(self) -> dict[Unit, list[Tensor | None]]:
        """The loss's gradients wherever a unit needs them, by a backward pass that keeps the graph: for a look at them.

        Units that have no part in this loss are left out.
        """
        edges = {unit: self._edges(unit) for unit in self.plan.units}
        found: dict[Unit, list[Tensor | None]] = {unit: [None] * len(own) for unit, own in edges.items()}
        self._backward(edges, lambda unit, number, delta: found[unit].__setitem__(number, delta), None, False, True)
        return {unit: own for unit, own in found.items() if any(delta is not None for delta in own)}

    def _edges(self, unit: Unit) -> list[GradientEdge]:
        """Where the loss's gradient is wanted for a unit."""
        if unit.way == "copies":
            return [self.record.copies[id(parameter)] for parameter in unit.parameters.values()]
        if unit.way == "pieces":
            return [tap.edge for tap in self.record.taps.get(unit.host, [])]
        calls = [] if unit.way == "loop" else self.record.calls.get(unit.host, [])
        return [edge for call in calls for edge in call.edges.values()]

    def squares(self, unit: Unit, deltas: Sequence[Tensor | None]) -> Tensor:
        """The squared norms over a unit's parameters, shape (B,), of the loss's gradient at its edges."""
        if unit.way == "copies":
            return _total(squared_rows(delta) for delta in deltas if delta is not None)
        if unit.way == "pieces":
            taps = self.record.taps[unit.host]
            pairs = zip(taps, deltas, strict=True)
            return self._of_examples(unit, _total(tap.squares(delta) for tap, delta in pairs if delta is not None))
        calls = self.record.calls[unit.host]
        if unit.way == "fallback":
            return fallback.squared_norms(unit, calls, deltas)
        of_edges = [call for call in calls for _ in call.edges]
        live = [(call, delta) for call, delta in zip(of_edges, deltas, strict=True) if delta is not None]
        if len(live) != 1:
            raise LayerError(used_otherwise(unit))
        ((call, delta),) = live
        return self._of_examples(unit, squared_norms(unit.host, call.tensors[0].detach(), delta))

    def _of_examples(self, unit: Unit, squares: Tensor) -> Tensor:
        if squares.shape != self.losses.shape:
            raise LayerError(
                f"{unit.name} meets other rows than the examples: {len(squares)} for {len(self.losses)}. Its inputs' "
                "first axis must be the minibatch's; or the second where batch_first is False, as it is by default for "
                "attention, LSTM and GRU."
            )
        return squares

    def one_by_one(self, unit: Unit, factors: Tensor | None) -> Tensor:
        """By a backward pass for each example, on this pass's own graph."""
        own = list(unit.parameters.values())
        found = []
        for loss in self.losses:
            gradients = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
            found.append(sum(squared_rows(each[None])[0] for each in gradients if each is not None))
        squares = torch.stack([torch.as_tensor(each, device=self.losses.device) for each in found])
        return squares if factors is None else squares * factors.square()


def run(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Any, Tensor]:
    """The model's outputs and each example's loss, shape (B,), with its graph.

    Raises:
        LossError: It is something else, or nothing that is trained has a part in it.
    """
    outputs = model(inputs)
    losses = loss(outputs, targets)
    require_one_each(losses, len(inputs))
    if not losses.requires_grad:
        raise LossError(
            "The losses have no gradient: nothing that is trained has a part in them. Between the parameters and the "
            "loss, take out detach(), no_grad(), argmax and whatever else cannot be differentiated."
        )
    return outputs, losses


def squared_rows(rows: Tensor) -> Tensor:
    """Of each row, on whatever axes, the sum of (absolute) squares, in float32 at least, shape (B,)."""
    rows = rows.abs() if rows.is_complex() else rows
    return rows.reshape(len(rows), -1).to(torch.promote_types(rows.dtype, torch.float32)).square().sum(1)


def _total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)
