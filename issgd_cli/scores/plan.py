"""How the norm over each parameter of a model is found: by its layer's rule, or by a fallback that is as exact.

A parameter's host is the smallest module within whose calls all that the model does with it happens: mostly its own
layer, else a module around it, at last the model. A rule holds where the host computes what its type does, once;
everything else is run again, for each example's own gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores.calls import Call, Copied, Pieces, Record, reached, with_part
from issgd_cli.scores.rules import PIECES, objection

# Of what forward passes save, at once: minibatches that need more are gone through in slices. A CUDA device has this
# share of its memory for them, too: an H100 waits 36 ms for a slice of a ViT to be launched, however small.
BUDGET = 2**30
SHARE = 16

Way = Literal["rule", "pieces", "copies", "fallback", "loop"]


@dataclass(frozen=True, eq=False)
class Unit:
    """Parameters over which the norm is found together.

    Attributes:
        name: Of the host, for people.
        host: See the module.
        way: rule: its type's. pieces: it is taken apart, and rules are for its pieces. copies: each example gets a
            copy of the parameter, whose gradient is the example's own. fallback: the host is run again. loop: one
            backward pass an example, where nothing else can be.
        parameters: By their names in the host.
        why: In words, for people.
        axes: Of the copies: see Copied; by the parameter's name.
        by_example: Of the fallback: which arguments of the host's calls hold an example a row.
        vectorised: Of the fallback: by torch.func for many examples at once, else in a loop.
        far: Of the fallback: how far, relative, what is run again may be from what it was. Beyond half precision's
            rounding until the first look has seen how near it comes.
    """

    name: str
    _host: ReferenceType[nn.Module]  # else a model's plan would keep it alive
    way: Way
    parameters: Mapping[str, nn.Parameter]
    why: str
    axes: Mapping[str, int] = field(default_factory=dict)
    by_example: tuple[bool, ...] = ()
    vectorised: bool = True
    far: float = 0.1

    @property
    def host(self) -> nn.Module:
        """See above."""
        module = self._host()
        assert module is not None, "its model is gone"
        return module


def budget(device: torch.device) -> int:
    """Bytes that forward passes may save there at once: by the device alone, so that runs repeat to the bit."""
    if device.type != "cuda":
        return BUDGET
    return max(BUDGET, torch.cuda.get_device_properties(device).total_memory // SHARE)


@dataclass(frozen=True)
class Plan:
    """For all trained parameters of a model that have a part in the loss.

    Attributes:
        units: In the model's order.
        bytes: What a forward pass saves of an example for its backward pass.
        is_seen: Whether each unit has had a gradient, and a finite one, when it was compared with autograd's.
    """

    units: tuple[Unit, ...]
    bytes: int = 0
    is_seen: bool = True

    def slices(self, device: torch.device, passes: int = 1) -> int:
        """How many examples fit into memory at once, where what a forward pass saves is kept so many times."""
        return max(1, budget(device) // max(1, passes * self.bytes))

    def of(self, *ways: Way) -> list[Unit]:
        """The units that are found by one of these ways."""
        return [unit for unit in self.units if unit.way in ways]

    @property
    def hosts(self) -> list[nn.Module]:
        """Whose calls are to be noted."""
        return [unit.host for unit in self.of("rule", "pieces", "fallback")]

    @property
    def apart(self) -> dict[nn.Module, Pieces]:
        """What is to be taken apart, and how."""
        return {unit.host: PIECES[type(unit.host)].forward for unit in self.of("pieces")}

    @property
    def copied(self) -> list[Copied]:
        """What is to be given out as copies."""
        return [Copied(unit.host, name, unit.axes[name]) for unit in self.of("copies") for name in unit.parameters]

    def of_pass(self, model: nn.Module, record: Record, losses: Tensor) -> "Plan":
        """This plan for what a pass has done, where parameters without a part in the first look's loss may have one.

        What is called more often than at the look, or otherwise, is left to the loop.

        Raises:
            LayerError: It has used a parameter in another way than this plan is for; names the module.
        """
        closed = self.of("rule", "pieces")  # types that are known to use no parameters but their own
        calls = [call for unit in closed for call in record.calls.get(unit.host, [])]
        beside = reached(losses, calls, record.copies.values())
        looped: dict[Unit, Unit] = {}
        for unit in self.of("rule", "pieces", "copies", "fallback"):
            own = record.calls.get(unit.host, [])
            if any(call.changed for call in own):
                raise LayerError(
                    f"An in-place operation changes what {unit.name} was given, after it was. Use nn.ReLU"
                    "(inplace=False) and the like, and `x = x + y` for `x += y`."
                )
            around = beside if unit.way != "fallback" else reached(losses, own)
            live = [call for call in own if call.edges]
            is_whole = unit.way == "pieces" and bool(live) and (len(own) > 1 or unit.host not in record.taps)
            if is_whole or (unit.way == "rule" and len(live) > 1 and len(with_part(losses, live)) > 1):
                looped[unit] = replace(unit, way="loop", why="it is called otherwise than at the first look")
            elif any(id(each) in around for each in unit.parameters.values()):
                raise LayerError(used_otherwise(unit))
        left = beside - {id(each) for unit in self.units for each in unit.parameters.values()}
        new = {name: each for name, each in model.named_parameters() if id(each) in left} if left else {}
        if not new and not looped:
            return self
        late = [_loop(model, new, "they had no part in the loss when the model was looked at first")] if new else []
        return replace(self, units=(*(looped.get(unit, unit) for unit in self.units), *late))


def used_otherwise(unit: Unit) -> str:
    """What is told of a model that does not do the same with every minibatch."""
    return (
        f"{unit.name} is not used as it was when the model's norms were looked at first: it is called more often, "
        "meets other rows than the examples, or its parameters are used beside its calls. Norms are found for a model "
        "that does the same with every minibatch."
    )


def assigned(model: nn.Module, record: Record, copied: Sequence[Copied], losses: Tensor) -> Plan:
    """The plan for what a forward pass has done.

    Args:
        model: With some parameter that is trained.
        record: Of the calls of all modules that own or hold a trained parameter, with what can be taken apart taken
            apart.
        copied: What was given out as copies.
        losses: Of the examples, with their graph, shape (B,).
    """
    names = {module: name or "the model itself" for name, module in model.named_modules()}
    holders = _holders(model)
    used = reached(losses)
    _drop_dead(record, losses)
    plain = [call for host, calls in record.calls.items() if objection(host) is None for call in calls]
    beside_rules, beside_copies = reached(losses, plain), reached(losses, stops=record.copies.values())
    beside: dict[nn.Module, set[int]] = {}
    hosted: dict[tuple[nn.Module, bool], dict[str, nn.Parameter]] = {}
    lost: dict[str, nn.Parameter] = {}
    hooked: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) not in used:
            continue
        if parameter._backward_hooks:
            hooked[name] = parameter
            continue
        around = holders[id(parameter)]
        if id(parameter) in record.copies and id(parameter) not in beside_copies:
            hosted.setdefault((around[0], True), {})[name.rpartition(".")[2]] = parameter
            continue
        for host in around:
            calls = record.calls.get(host, [])
            is_apart = type(host) in PIECES and objection(host) is None and len(calls) == 1 and host in record.taps
            if not calls or not (is_apart or all(call.meets(len(losses)) for call in calls)):
                continue
            if host not in beside:
                beside[host] = beside_rules if objection(host) is None else reached(losses, calls)
            if id(parameter) not in beside[host]:
                hosted.setdefault((host, False), {})[_name_in(host, parameter)] = parameter
                break
        else:
            lost[name] = parameter
    units = [
        _copies(names[host], host, own, copied)
        if is_copied
        else _unit(names[host], host, own, record.calls[host], host in record.taps)
        for (host, is_copied), own in hosted.items()
    ]
    if lost:
        units.append(_loop(model, lost, "the rows that the model gives are not the examples"))
    if hooked:
        units.append(_loop(model, hooked, "hooks may change their gradients"))
    order = {module: place for place, module in enumerate(model.modules())}
    return Plan(tuple(sorted(units, key=lambda unit: order[unit.host])))


def stricter(one: Plan, other: Plan) -> Plan:
    """Of two plans for minibatches of two sizes, the one that holds for both.

    An axis of time may by chance be as long as the minibatch; it can't be as long as both.
    """
    if {(unit.host, unit.way, *unit.parameters) for unit in one.units} == {
        (unit.host, unit.way, *unit.parameters) for unit in other.units
    }:
        pairs = zip(one.units, other.units, strict=True)
        return Plan(tuple(replace(left, by_example=_both(left.by_example, right.by_example)) for left, right in pairs))
    sizes = [sum(len(list(unit.host.modules())) for unit in plan.units) for plan in (one, other)]
    return one if sizes[0] >= sizes[1] else other


def _both(one: tuple[bool, ...], other: tuple[bool, ...]) -> tuple[bool, ...]:
    return tuple(left and right for left, right in zip(one, other, strict=True))


def _loop(model: nn.Module, own: Mapping[str, nn.Parameter], why: str) -> Unit:
    return Unit("the model itself", ref(model), "loop", own, f"{why} ({', '.join(own)})")


def _copies(name: str, host: nn.Module, own: Mapping[str, nn.Parameter], copied: Sequence[Copied]) -> Unit:
    label, why = f"{name} ({type(host).__name__})", f"each example gets a copy of {', '.join(own)}"
    axes = {each.name: each.axes for each in copied if each.owner is host}
    return Unit(label, ref(host), "copies", own, why, axes)


def _unit(name: str, host: nn.Module, own: Mapping[str, nn.Parameter], calls: Sequence[Call], is_tapped: bool) -> Unit:
    label = f"{name} ({type(host).__name__})"
    # Pieces have a rule for each parameter, a layer has one for all of its own together.
    everything = {name for name, each in host.named_parameters() if each.requires_grad or type(host) not in PIECES}
    why = objection(host)
    if why is None and type(host) in PIECES and not is_tapped:
        why = "it is not given a minibatch of one row an example"
    if why is None and type(host) not in PIECES and len(calls[0].tensors) != 1:
        why = f"it is given {len(calls[0].tensors)} tensors"
    if why is None and len(calls) > 1:
        why = f"it is called {len(calls)} times, and the gradient is a sum over these"
    if why is None and set(own) != everything:
        why = "some of its parameters are not trained, or are used elsewhere"
    if why is None:
        return Unit(
            label, ref(host), "pieces" if type(host) in PIECES else "rule", own, f"the rule for {type(host).__name__}"
        )
    if len({len(call.arguments) for call in calls}) > 1:
        return replace(_loop(host, own, f"{why}, each time with other arguments"), name=label)
    rows = next(iter(calls[0].rows.values()))
    by_example = tuple(isinstance(each, Tensor) and each.shape[:1] == (rows,) for each in calls[0].arguments)
    return Unit(label, ref(host), "fallback", own, why, by_example=by_example)


def _drop_dead(record: Record, losses: Tensor) -> None:
    """Leaves no output in the record that has no part in the losses: its rows need not be the examples."""
    calls = [call for of_module in record.calls.values() for call in of_module]
    edges: list[Any] = [edge for call in calls for edge in call.edges.values()]
    deltas = torch.autograd.grad(losses.sum(), edges, retain_graph=True, allow_unused=True)
    live = {edge for edge, delta in zip(edges, deltas, strict=True) if delta is not None}
    for module, of_module in record.calls.items():
        kept = [
            replace(call, edges={place: edge for place, edge in call.edges.items() if edge in live})
            for call in of_module
        ]
        record.calls[module] = [call for call in kept if call.edges]


def _holders(model: nn.Module) -> dict[int, list[nn.Module]]:
    """Of each parameter, by id, all modules that hold all of its owners, the smallest first."""
    inside = {module: list(module.modules()) for module in model.modules()}
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(module)
    by_size = sorted(inside, key=lambda module: len(inside[module]))
    return {each: [module for module in by_size if own <= set(inside[module])] for each, own in owners.items()}


def _name_in(host: nn.Module, parameter: nn.Parameter) -> str:
    return next(name for name, each in host.named_parameters() if each is parameter)
