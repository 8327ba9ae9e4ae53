"""The first look at a model: how its norms are to be found, and whether they are what plain autograd finds.

A few of the examples are run, in minibatches of two sizes. What has no rule and is not a whole layer's, such as a class
token, is tried as a copy an example. The squares of each unit of the plan are held against a backward pass for each
example alone; where they differ, the copy is given up for the fallback, and everything else is an error, which names
the layer. Where there is no gradient yet, as behind weights that begin at 0, there is nothing to compare: the next
minibatch is looked at, too, and then one ever more rarely. An example's loss must not depend on which others it comes
with.
"""

import copy
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from issgd_cli.errors import LayerError, LossError
from issgd_cli.losses import Loss
from issgd_cli.scores.calls import Call, Copied, recorded, weighed
from issgd_cli.scores.company import COARSE, TOLERANCES, company, put_back, relative
from issgd_cli.scores.fallback import measured
from issgd_cli.scores.forward import Forward, run, squared_rows
from issgd_cli.scores.plan import Plan, Unit, assigned, stricter
from issgd_cli.scores.refusals import differing, explained_calls, refuse_unsupported
from issgd_cli.scores.rules import PIECES, objection

# The looks' sizes: two, for an axis that is no example's can't be as long as both.
SIZES = (3, 2)
# A learned scale of (width,) is a copy of (B, 1, width) to a model that uses it on (B, T, width).
MOST_AXES = 2

# Where a part has no gradient yet, the model is looked at again after 1, 2, 4, ... minibatches, up to so many.
MOST_BETWEEN = 64


@dataclass
class _Looked:
    """What a look has found.

    Attributes:
        state: Of the model's layers.
        plan: For these.
        interval: Minibatches from this look to the next, if there is to be one.
        left: Of these.
    """

    state: Hashable
    plan: Plan
    interval: int
    left: int


_plans: "WeakKeyDictionary[nn.Module, _Looked]" = WeakKeyDictionary()


def plan_of(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> Plan:
    """The plan for a model, of its first minibatch, or of the first since something about its layers was changed.

    Raises:
        LayerError: Its examples have no gradients of their own, or the norms differ from plain autograd's.
    """
    state = _state(model)
    known = _plans.get(model)
    if known is not None and known.state == state:
        known.left -= not known.plan.is_seen
        if known.left > 0:
            return known.plan
        interval = min(2 * known.interval, MOST_BETWEEN)
    else:
        interval = 1
    plan = look(loss, model, inputs, targets)
    if len(inputs) >= SIZES[0]:  # a look at one example sees no mixing
        _plans[model] = _Looked(state, plan, interval, interval)
    return plan


def look(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> Plan:
    """See the module. Draws nothing of the global generators' that it does not put back."""
    refuse_unsupported(model)
    if not len(inputs):
        raise LossError("There is no example to look at the model with: give a minibatch of one at least.")
    with put_back(inputs.device), _unchanged(model), explained_calls(model, inputs):
        plan = _planned(loss, model, inputs, targets, [])
        copies = _to_copy(plan)
        if not _borne(loss, model, inputs, targets, copies):
            # One by one, then: with so many axes between the examples' and its own that the model bears it.
            tried, copies = copies, []
            for each in tried:
                ways = [replace(each, axes=axes) for axes in range(MOST_AXES + 1)]
                borne = (way for way in ways if _borne(loss, model, inputs, targets, [*copies, way]))
                copies = [*copies, *islice(borne, 1)]
        if copies:
            plan = _planned(loss, model, inputs, targets, copies)
        plan = _settled(loss, model, inputs, targets, plan)
        wrong, is_seen = _differing(loss, model, inputs, targets, plan)
        complaint = differing(wrong) if wrong else _company(loss, model, inputs, targets, plan)
        if complaint and not _is_rounding(loss, model, inputs, targets, wrong):
            raise LayerError(complaint)
        return replace(plan, is_seen=is_seen)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Puts buffers back to what they were: running statistics, or spectral norm's vectors."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                buffer.copy_(values)


def _borne(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, copies: Sequence[Copied]) -> bool:
    """Whether the model computes with these copies what it does without, and each of them gives a gradient."""
    if not copies:
        return True
    try:
        plan = _settled(loss, model, inputs, targets, _planned(loss, model, inputs, targets, copies))
        wrong, _ = _differing(loss, model, inputs, targets, plan)
    except Exception:  # of whatever kind a model has for shapes that it does not expect
        return False
    return len(plan.copied) == len(copies) and not any(unit.way == "copies" for unit in wrong)


def _state(model: nn.Module) -> Hashable:
    """What a plan depends on of a model."""
    hooks = tuple(nn.modules.module._global_forward_hooks)  # run before a layer's own, may change what it gives
    return hooks, tuple(
        (
            *(id(layer), layer.training, objection(layer)),
            *((id(own), own.dtype, own.device, own.requires_grad, bool(own._backward_hooks)) for own in owned),
        )
        for layer in model.modules()
        if (owned := [own for own in layer._parameters.values() if own is not None]) or layer.training
    )


def _to_copy(plan: Plan) -> list[Copied]:
    """The own parameters of modules made of modules, for which the fallback would run all of these again."""
    return [
        Copied(unit.host, name, 0)
        for unit in plan.of("fallback")
        if next(unit.host.children(), None) is not None and not is_parametrized(unit.host)
        for name in unit.parameters
        if "." not in name
    ]


def _planned(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, copied: Sequence[Copied]) -> Plan:
    apart = {
        module: PIECES[type(module)].forward
        for module in model.modules()
        if type(module) in PIECES and objection(module) is None
    }
    hosts = [module for module in model.modules() if any(own.requires_grad for own in module.parameters())]
    plans = []
    for size in SIZES:
        with recorded(len(inputs[:size]), hosts, apart, copied) as record, torch.enable_grad():
            _, losses = run(loss, model, inputs[:size], targets[:size])
        plans.append(assigned(model, record, copied, losses))
    return stricter(*plans)


def _settled(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, plan: Plan) -> Plan:
    """A plan, with what its fallbacks bear, and what its forward passes save."""
    inputs, targets = inputs[: SIZES[0]], targets[: SIZES[0]]
    with weighed(model) as saved:
        Forward.of(loss, model, inputs, targets, plan)
    units = plan.units
    if plan.of("fallback"):  # whoever needs none need not load what torch.func loads
        forward = Forward.of(loss, model, inputs, targets, plan)
        deltas = forward.deltas()
        units = tuple(_runnable(unit, forward.record.calls.get(unit.host, []), deltas.get(unit)) for unit in units)
    return Plan(units, sum(saved) // len(inputs))


def _runnable(unit: Unit, calls: Sequence[Call], deltas: Sequence[Tensor | None] | None) -> Unit:
    """A unit, without torch.func where that does not bear what the host does; or one that does not run it again."""
    if unit.way != "fallback" or deltas is None:
        return unit
    why = "it can't be run again for an example alone"
    for tried in (unit, replace(unit, vectorised=False)):
        try:
            return measured(tried, calls, deltas)
        except LayerError:
            why = "run again it computes something else, as what draws at random does"
        except Exception:  # of whatever kind a module has for what it does not expect
            continue
    return replace(unit, way="loop", why=f"{unit.why}, and {why}")


def _differing(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, plan: Plan) -> tuple[list[Unit], bool]:
    """The units whose squares are not what plain autograd finds; and whether it finds something for all the others."""
    inputs, targets = inputs[: SIZES[0]], targets[: SIZES[0]]
    forward = Forward.of(loss, model, inputs, targets, plan)
    wrong, is_seen = _off(forward)
    if not wrong and plan.of("pieces", "copies"):
        with torch.enable_grad():  # some models do other things without
            plain, again = (loss(model(inputs), targets).detach() for _ in range(2))
        far = relative(plain.dtype)
        # What draws at random can't be compared with what it would have been.
        if torch.equal(plain, again) and not torch.allclose(forward.losses, plain, far, far):
            return plan.of("copies") or plan.of("pieces"), is_seen
    return wrong, is_seen


def _company(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, plan: Plan) -> str | None:
    """See company. A fallback that is a loop was not seen to give for an example alone what it gives in company."""
    is_untold = any(unit.by_example for unit in plan.of("loop"))
    return company(loss, model, inputs[: SIZES[0]], targets[: SIZES[0]], is_untold)


def _is_rounding(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, wrong: Sequence[Unit]) -> bool:
    """Whether nothing is wrong in float64, of what float32 alone may be too coarse for."""
    is_single = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    if not is_single or any(unit.way == "copies" for unit in wrong):
        return False
    try:
        look(loss, copy.deepcopy(model).double(), _wide(inputs), _wide(targets))
    except Exception:  # the norms differ there, too, or the model can't be copied so: then it is this look that counts
        return False
    return True


def _off(forward: Forward) -> tuple[list[Unit], bool]:
    """The units whose squares are not what a backward pass for each example alone gives, on the same graph.

    Also whether all others' are finite, and not all 0.
    """
    owner = {id(own): unit for unit in forward.plan.units for own in unit.parameters.values()}
    expected = {unit: torch.zeros_like(forward.losses) for unit in forward.plan.units}
    for number, loss in enumerate(forward.losses):
        gradients = torch.autograd.grad(loss, forward.parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(forward.parameters, gradients, strict=True):
            if gradient is not None:
                expected[owner[id(parameter)]][number] += squared_rows(gradient[None])[0]
        del gradients  # as large as the model: not two of them at a time
    deltas, found = forward.deltas(), dict(forward.parts(again=True)[0])
    whole = sum(expected.values(), torch.zeros_like(forward.losses))
    off = []
    for unit, right in expected.items():
        relative, absolute = TOLERANCES.get(_precision(forward, unit, deltas.get(unit, [])), COARSE)
        difference = (found.get(unit, torch.zeros_like(right)) - right).abs()
        if not bool((difference <= relative * right + absolute * whole).all()) and bool(right.isfinite().all()):
            off.append(unit)
    is_seen = all(bool(right.isfinite().all() and right.any()) for right in expected.values())
    return off, is_seen


def _precision(forward: Forward, unit: Unit, deltas: Sequence[Tensor | None]) -> torch.dtype:
    """The coarsest that this part is computed in."""
    tensors = (forward.losses, *unit.parameters.values(), *(delta for delta in deltas if delta is not None))
    return min((tensor.dtype for tensor in tensors), key=lambda dtype: -torch.finfo(dtype).eps)


def _wide(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values
