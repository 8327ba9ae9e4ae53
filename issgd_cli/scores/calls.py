"""What a forward pass leaves for the norms: where its modules were given what, and where their outputs stand in the
autograd graph.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils import _pytree

Squares = Callable[[Tensor], Tensor]
Pieces = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """A module's call.

    Attributes:
        module: Which.
        arguments: All tensors and other values that it was given, in one list.
        spec: How these make up its positional and keyword arguments.
        versions: Of the tensors among them, by place: an in-place operation raises a tensor's.
        edges: Of those outputs that have a gradient, by their place among all outputs: where they stand in the graph.
            An edge stays what it was where the output is changed in place later, as by nn.ReLU(inplace=True).
        rows: Of each such output, likewise by its place, the first length.
        outputs: Of each such output, likewise, what it was, and its version; none where nobody will ask.
        buffers: Of the module, by their names, as they were before, likewise.
    """

    module: nn.Module
    arguments: list[Any]
    spec: _pytree.TreeSpec
    versions: Mapping[int, int]
    edges: Mapping[int, GradientEdge]
    rows: Mapping[int, int]
    outputs: Mapping[int, tuple[Tensor, int]]
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
        buffers: Mapping[str, Tensor] | None,
    ) -> "Call":
        """A call that has just returned; with the buffers from before it, its outputs are kept, too."""
        arguments, spec = _pytree.tree_flatten((args, kwargs))
        outputs = [(place, each) for place, each in enumerate(_pytree.tree_leaves(output)) if _has_gradient(each)]
        return cls(
            module,
            arguments,
            spec,
            {place: each._version for place, each in enumerate(arguments) if isinstance(each, Tensor)},
            {place: get_gradient_edge(each) for place, each in outputs},
            {place: each.shape[0] if each.dim() else 0 for place, each in outputs},
            {} if buffers is None else {place: (each.detach(), each._version) for place, each in outputs},
            buffers or {},
        )

    @property
    def tensors(self) -> list[Tensor]:
        """Those among the arguments, in order."""
        return [self.arguments[place] for place in self.versions]

    def meets(self, examples: int) -> bool:
        """Whether each of the outputs at its edges has so many rows."""
        return all(self.rows[place] == examples for place in self.edges)

    @property
    def changed(self) -> bool:
        """Whether what it was given was changed in place since."""
        return any(self.arguments[place]._version != version for place, version in self.versions.items())

    def exits(self) -> dict[Node, list[Node]]:
        """The graph's nodes by which one enters this call from the loss -> those by which one leaves it."""
        # Of a parameter that is handed over as it is, the node AccumulateGrad.
        given = [get_gradient_edge(each).node for each in self.tensors if each.requires_grad]
        # An output that is an input is no way into the call: who stopped there would see nothing of what is before it.
        return {edge.node: given for edge in self.edges.values() if edge.node not in given}


@dataclass(frozen=True)
class Tap:
    """A place where parameters meet the data.

    Attributes:
        edge: Of what comes out of there, shape (B, ...).
        squares: The squared norms of each example's gradient over these parameters, shape (B,), of the loss's gradient
            there, shape (B, ...).
    """

    edge: GradientEdge
    squares: Squares


@dataclass(frozen=True)
class Copied:
    """A parameter that is given out as a copy an example.

    Attributes:
        owner: Whose own parameter it is.
        name: Its name there.
        axes: So many axes of length 1 stand between the examples' and its own.
    """

    owner: nn.Module
    name: str
    axes: int


@dataclass
class Record:
    """What was noted in one forward pass.

    Attributes:
        calls: By module, in order.
        taps: Of the modules that were taken apart, likewise.
        copies: Of the parameters that were given out as a copy an example, by their own number.
    """

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    taps: dict[nn.Module, list[Tap]] = field(default_factory=dict)
    copies: dict[int, GradientEdge] = field(default_factory=dict)

    def forget(self, module: nn.Module) -> None:
        """Holds what a module was given no longer."""
        self.calls.pop(module, None)
        self.taps.pop(module, None)


@contextmanager
def recorded(
    examples: int,
    modules: Iterable[nn.Module],
    apart: Mapping[nn.Module, Pieces],
    copied: Iterable[Copied],
    kept: Container[nn.Module] = (),
) -> Iterator[Record]:
    """Within, a forward pass is recorded.

    Args:
        examples: B.
        modules: Whose calls.
        apart: Modules that compute what they do in pieces of which each is tapped -> how.
        copied: What is given out as a copy an example.
        kept: Modules whose outputs, and buffers from before, are kept.
    """
    record = Record()
    before: dict[nn.Module, dict[str, Tensor]] = {}

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        before[module] = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        record.calls.setdefault(module, []).append(Call.of(module, args, kwargs, output, before.pop(module, None)))

    def tap(module: nn.Module, output: Tensor, squares: Squares) -> Tensor:
        if output.requires_grad:
            record.taps.setdefault(module, []).append(Tap(get_gradient_edge(output), squares))
        return output

    with ExitStack() as stack:
        for module, pieces in apart.items():
            module.forward = partial(pieces, module, partial(tap, module))
            stack.callback(module.__dict__.pop, "forward")
        for each in copied:
            parameter = each.owner._parameters[each.name]
            assert parameter is not None
            copy = copy_an_example(parameter, examples, each.axes)
            record.copies[id(parameter)] = get_gradient_edge(copy)
            each.owner._parameters[each.name] = copy  # type: ignore[assignment]
            stack.callback(each.owner._parameters.__setitem__, each.name, parameter)
        for module in modules:
            # Before all other hooks, which may return something else than what the layer has computed.
            if module in kept:
                stack.callback(module.register_forward_pre_hook(keep).remove)
            stack.callback(module.register_forward_hook(note, prepend=True, with_kwargs=True).remove)
        yield record


def backmost(losses: Tensor, edges: Iterable[GradientEdge]) -> set[Node]:
    """Of the edges' nodes those behind which, seen from the losses, there is no other; all that are leaves."""
    nodes = {edge.node for edge in edges}
    leads: dict[Node, bool] = {}  # whether one of the nodes is behind this one
    waiting = [(losses.grad_fn, False)]
    while waiting:
        node, is_open = waiting.pop()
        if node is None or (node in leads and not is_open):
            continue
        behind = [following for following, _ in node.next_functions if following is not None]
        if is_open:
            leads[node] = any(each in nodes or leads[each] for each in behind)
        else:
            leads[node] = False
            waiting.append((node, True))
            waiting += [(each, False) for each in behind]
    return {node for node in nodes if not leads.get(node, False)}


@contextmanager
def weighed(model: nn.Module) -> Iterator[list[int]]:
    """Within, forward passes note the bytes of each tensor that they would save for their backward passes, once each.

    Those of the parameters, which are there anyhow, are left out. Nothing is saved: there is no backward pass.
    """
    sizes: list[int] = []
    seen = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}

    def note(saved: Tensor) -> None:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            sizes.append(min(storage.nbytes(), saved.numel() * saved.element_size()))  # it may be a part of all inputs

    def never(nothing: None) -> Tensor:
        raise AssertionError("there is no backward pass")

    with torch.autograd.graph.saved_tensors_hooks(note, never):
        yield sizes


def copy_an_example(parameter: Tensor, examples: int, axes: int = 0) -> Tensor:
    """The parameter once for each example, on a first axis, its own if that has length 1; takes no memory."""
    shape = parameter.shape[1:] if parameter.shape[:1] == (1,) else parameter.shape
    return parameter.reshape(1, *(1,) * axes, *shape).expand(examples, *(-1,) * (axes + len(shape)))


def reached(losses: Tensor, calls: Iterable[Call] = (), stops: Iterable[GradientEdge] = ()) -> set[int]:
    """The parameters, by id, that have a part in the losses by another way than through these calls, or stops.

    Args:
        losses: With their graph.
        calls: Jumped over: what they were given still counts.
        stops: Not looked behind.
    """
    exits = {node: given for call in calls for node, given in call.exits().items()}
    seen, waiting, found = {edge.node for edge in stops}, [losses.grad_fn], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (parameter := getattr(node, "variable", None)) is not None:  # the node AccumulateGrad
            found.add(id(parameter))
        waiting += exits[node] if node in exits else [following for following, _ in node.next_functions]
    return found


def with_part(losses: Tensor, calls: Iterable[Call]) -> list[Call]:
    """The calls of which some output has a part in the losses."""
    seen, waiting = set[Node](), [losses.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return [call for call in calls if any(edge.node in seen for edge in call.edges.values())]


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
