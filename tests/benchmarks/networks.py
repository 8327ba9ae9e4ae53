"""Scoring on networks of all kinds, as a ratio to a training step's two passes, beside the peers that run on them."""

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from tests.benchmarks import peers, processes
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.subjects import Subject, names, subject
from tests.benchmarks.timing import Quartiles, interleaved, quiet

PLAIN, OURS, COUNTED = "plain forward + backward", "issgd", "by operation count"
FIRST, MEMORY = "issgd, the first pass", "issgd, peak memory"
MOST_MEMORY = 1.3
MOST_HELD = 4 * 2**30  # bytes of examples' own gradients, of a peer that makes them
EXAMPLES = 4  # whose norms are held against plain autograd's
TOLERANCE = 1e-3  # of their squares, in float32
PASSES = 3  # of which the memory is looked at


def rows(scale: Scale) -> list[Row]:
    """Of every network in turn."""
    return [row for name in names(scale) for row in _of(scale, name)]


def plain(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """A training step's two passes."""
    model.zero_grad()
    functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]


def ours(model: nn.Module, inputs: Tensor, labels: Tensor) -> peers.Found:
    """The same network's scores."""
    return peers.Found(score(cross_entropy, model, inputs, labels).squared_norms)


def _of(scale: Scale, name: str) -> Iterator[Row]:
    it = subject(scale, name)
    yield from timed(scale, it)
    path, least = _path(it), Quartiles.exactly(counted(it))
    note = "multiplications of what issgd computes, of forward, backward and rules, over a plain pass's"
    yield Row(path, COUNTED, it.size, least, "x plain", note=note)
    yield Row(path, FIRST, it.size, Quartiles.exactly(_first(it)), "x plain", note="once, with its look at the network")
    needed = {way: processes.in_another(_peak, scale, name, way) for way in (PLAIN, OURS)}
    value = Quartiles.exactly(needed[OURS] / needed[PLAIN])
    note = "private memory at its peak, above that of the process before"
    yield Row(path, MEMORY, it.size, value, "x plain", bar=MOST_MEMORY, note=note)


def _path(it: Subject) -> str:
    return f"scoring: {it.name}"


def timed(scale: Scale, it: Subject) -> Iterator[Row]:
    """Of every way, of those that can't be timed, too; the bars are a CPU's."""
    on_gpu = it.inputs.is_cuda
    alone = functools.partial(plain, _copied(it.model), it.inputs, it.labels)
    ways: dict[str, Callable[[], Any]] = {PLAIN: alone}
    said: dict[str, tuple[str, str]] = {}
    expected = _expected(it)
    for peer in _installed():
        if peer.holds and _held(it) > MOST_HELD:
            said[peer.name] = ("not asked", f"its gradients would take {_held(it) / 1e9:.2g} GB")
            continue
        built: list[peers.Way] = []
        said[peer.name] = peers.standing(functools.partial(_built, peer, it, built), expected, TOLERANCE)
        if said[peer.name][0] != "refuses":
            ways[peer.name] = functools.partial(built[0], it.inputs, it.labels)
    repeats = scale.repeats if it.name == "mlp" else 2 * scale.long_repeats + 1
    timings = interleaved(ways, repeats, 2 if on_gpu else 1, it.inputs.device)
    rivals = [timings.ratios(name, PLAIN).median for name in ways if name not in (PLAIN, OURS)]
    bar = min([it.most, *rivals]) if it.beats else it.most
    whole, note = Quartiles.exactly(1.0), f"{it.name} is {it.built}"
    yield Row(_path(it), PLAIN, it.size, whole, "x plain", timings.seconds(PLAIN).median, note=note)
    for candidate, (outcome, why) in said.items():
        note = "" if outcome == "right" else f"on {it.name}, {it.size}: {outcome}: {why}"
        if candidate not in ways:
            yield Row(_path(it), candidate, it.size, None, outcome, note=note)
            continue
        unit = "x plain" + (", wrong norms" if note else "")
        value, seconds = timings.ratios(candidate, PLAIN), timings.seconds(candidate).median
        most = bar if candidate == OURS else None
        yield Row(_path(it), candidate, it.size, value, unit, seconds, most, not on_gpu, note)


def _built(peer: peers.Peer, it: Subject, built: list[peers.Way]) -> peers.Found:
    """What a peer gives, by a way that is kept for more."""
    built.append(peers.quiet(peer.build(_copied(it.model))))
    return built[0](it.inputs, it.labels)


def _copied(model: nn.Module) -> nn.Module:
    """With a recurrent layer's weights in one piece of memory, as cuDNN wants them and as a copy's are not."""
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if isinstance(layer, nn.RNNBase):
            layer.flatten_parameters()
    return copied


def _installed() -> list[peers.Peer]:
    """Ours, and those peers that are."""
    found = [peers.Peer(OURS, "issgd", lambda model: functools.partial(ours, model))]
    for peer in peers.PEERS:
        if peer.version is None:
            print(f"  {peer.name} is not installed: pip install --constraint constraints.txt '.[bench]'")
        else:
            found.append(peer)
    return found


def _held(it: Subject) -> int:
    """Bytes of all examples' own gradients."""
    return len(it.labels) * sum(each.numel() * each.element_size() for each in it.model.parameters())


def _expected(it: Subject) -> Tensor:
    """Squared norms of the first examples by plain autograd in float64."""
    inputs = it.inputs[:EXAMPLES]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return peers.one_by_one(copy.deepcopy(it.model).double(), inputs, it.labels[:EXAMPLES])


def counted(it: Subject) -> float:
    """Multiplications of scoring over those of a plain pass: what the ratio of their times can come to at best."""
    model = copy.deepcopy(it.model)
    ours(model, it.inputs, it.labels)  # the look at the network comes once
    counts = [_multiplications(way, model, it) for way in (ours, plain)]
    return counts[0] / counts[1]


def _multiplications(way: Callable[..., Any], model: nn.Module, it: Subject) -> int:
    aten = torch.ops.aten
    # What torch has no formula for, or a wrong one.
    formulas = {
        aten.convolution_backward: _convolution_backward,
        aten.mkldnn_rnn_layer: _recurrent,
        aten.mkldnn_rnn_layer_backward: lambda *args, **options: 2 * _recurrent(*args, **options),
    }
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with sdpa_kernel(SDPBackend.MATH), counter:  # nor for a CPU's fused attention
        way(model, it.inputs, it.labels)
    return int(counter.get_total_flops()) // 2


def _recurrent(
    inputs: Sequence[int], of_inputs: Sequence[int], of_state: Sequence[int], *_: Any, **options: Any
) -> int:
    """Of one layer, by the shapes of its inputs (T, B, d) and of its weights."""
    return 2 * inputs[0] * inputs[1] * (math.prod(of_inputs) + math.prod(of_state))


def _convolution_backward(*args: Any, out_shape: Any = None, **options: Any) -> int:
    """As torch's formula, which takes each group's weights to meet all channels."""
    *head, groups, (of_inputs, of_weights, _) = args
    formula: Callable[..., Any] = conv_backward_flop
    # The formula takes values, and shapes in their place as well.
    inputs: int = formula(*head, groups, [of_inputs, False, False], out_val=out_shape)
    weights: int = formula(*head, groups, [False, of_weights, False], out_val=out_shape)
    return inputs + weights // int(groups)


def _first(it: Subject) -> float:
    """How many plain passes the very first one of scoring takes."""
    fresh = [copy.deepcopy(it.model) for _ in range(2)]
    first = interleaved({OURS: lambda: ours(fresh[0], it.inputs, it.labels)}, 1, warm_up=0)
    once = interleaved({PLAIN: lambda: plain(fresh[1], it.inputs, it.labels)}, 3, warm_up=1)
    return first.seconds(OURS).median / once.seconds(PLAIN).median


def _peak(scale: Scale, name: str, way: str) -> int:
    """In a process of its own: bytes of private memory that some passes need, with the network and the minibatch."""
    before = processes.private_bytes()
    it = subject(scale, name)
    with quiet(), processes.PeakWatch() as watch:
        for _ in range(PASSES):
            (plain if way == PLAIN else ours)(it.model, it.inputs, it.labels)
        settled = processes.private_bytes()
    return max(1, max(watch.peak_bytes, settled) - before)
