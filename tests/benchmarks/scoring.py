"""A worker's hot path: losses, errors and gradient norms of a chunk, as a ratio to a training step's two passes."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli import datasets
from issgd_cli.datasets.examples import Examples
from issgd_cli.errors import DataError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.reduced import Reduced
from issgd_cli.scores import score
from tests.benchmarks import peers, stage
from tests.benchmarks.report import Row, cpu
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles, interleaved

PATH = "worker: scoring a chunk"
PLAIN, OURS, REDUCED = "plain forward + backward", "issgd", "issgd in bfloat16"
BARS = {OURS: 0.66, REDUCED: 0.22}
EXCESS_BAR = 1e-3
NOTES = {
    "matmuls by hand": "the floor: no weight gradients, no first input gradient; 0.625 by operation count",
    REDUCED: "the bar counts where the CPU has AMX",
}

SquaredNorms = Callable[[Tensor, Tensor], Tensor]
"""From inputs (B, features) and labels (B,) to ||g(x_n)||^2, shape (B,)."""


def rows(scale: Scale) -> list[Row]:
    """Every candidate at every batch size, and what bfloat16 costs in variance."""
    model = stage.network(scale)
    found = [row for size in scale.batches for row in _timed(scale, model, size)]
    return [*found, _excess(scale)]


def rivals(model: nn.Sequential) -> dict[str, SquaredNorms]:
    """Every way to the norms, by name; each has parameters of its own, equal to the model's."""
    reduced = Reduced(model)
    reduced.load(model)
    ways = {
        OURS: lambda inputs, labels: score(cross_entropy, model, inputs, labels).squared_norms,
        REDUCED: lambda inputs, labels: score(cross_entropy, reduced, inputs, labels).squared_norms,
        "matmuls by hand": _by_hand(copy.deepcopy(model)),
        "hooks and a full backward": _hooks(copy.deepcopy(model)),
    }
    # The peers are optional; they can't be compared with where they are not installed.
    for peer in (peers.OPACUS_GHOST, peers.BACKPACK):
        if peer.version is None:
            print(f"  {peer.name} is not installed: pip install --constraint constraints.txt '.[bench]'")
            continue
        ways[peer.name] = _squares(peers.quiet(peer.build(copy.deepcopy(model))))
    return ways


def _squares(way: peers.Way) -> SquaredNorms:
    return lambda inputs, labels: way(inputs, labels).squares


def _timed(scale: Scale, model: nn.Sequential, size: int) -> list[Row]:
    inputs, labels = stage.minibatch(scale, size)
    plain = copy.deepcopy(model)

    def forward_and_backward() -> None:
        plain.zero_grad()
        functional.cross_entropy(plain(inputs), labels).backward()  # type: ignore[no-untyped-call]

    candidates: dict[str, Callable[[], Any]] = {PLAIN: forward_and_backward}
    candidates |= {name: partial(way, inputs, labels) for name, way in rivals(model).items()}
    timings = interleaved(candidates, scale.repeats)
    amx = "amx_bf16" in cpu()["flags"]
    return [
        Row(
            PATH,
            name,
            f"batch {size}",
            timings.ratios(name, PLAIN),
            "x plain",
            timings.seconds(name).median,
            BARS.get(name),
            amx or name != REDUCED,
            NOTES.get(name, ""),
        )
        for name in candidates
    ]


def _excess(scale: Scale) -> Row:
    """By how much the second moment of draws by bfloat16 norms exceeds the least possible, on a trained network."""
    model, inputs, labels, what = _trained(scale)
    reduced = Reduced(model)
    reduced.load(model)
    q = score(cross_entropy, reduced, inputs, labels).norms.double().numpy()
    scores = score(cross_entropy, copy.deepcopy(model).double(), inputs.double(), labels)
    assert scores.errors is not None
    error = f"training error {float(scores.errors.mean()):.2f}"
    value = Quartiles.exactly(excess_second_moment(q, scores.norms.numpy()))
    note = f"mean(q) mean(n^2/q) / mean(n)^2 - 1, q the bfloat16 norms, n the float64 ones; {what}, {error}"
    return Row(PATH, REDUCED, f"{len(labels):,} examples", value, "excess second moment", bar=EXCESS_BAR, note=note)


def excess_second_moment(q: NDArray[np.float64], norms: NDArray[np.float64]) -> float:
    """What drawing in proportion to q rather than to the norms adds to E||g||^2 / q, relative to the ideal.

    Args:
        q: Approximate norms, shape (N,), zero only where the norm is.
        norms: ||g(x_n)||, shape (N,).
    """
    drawn = norms > 0
    ratio = np.zeros_like(norms)
    with np.errstate(divide="ignore"):  # a norm that q takes for zero is never drawn: infinitely bad
        ratio[drawn] = norms[drawn] ** 2 / q[drawn]
    return float(q.mean() * ratio.mean() / norms.mean() ** 2 - 1)


def _trained(scale: Scale) -> tuple[nn.Sequential, Tensor, Tensor, str]:
    """A network after some hundred steps of plain SGD, 1024 examples that it was trained on, and what they are."""
    inputs, labels, what = _learnable(scale)
    model = stage.network(scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.95, nesterov=True, fused=True)
    random = torch.Generator().manual_seed(0)
    for _ in range(scale.training_steps):
        drawn = torch.randint(len(labels), (scale.batches[0],), generator=random)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[drawn]), labels[drawn]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model, inputs[:1024], labels[:1024], f"{what}, {scale.training_steps} steps"


def _learnable(scale: Scale) -> tuple[Tensor, Tensor, str]:
    """8192 examples of house-numbers where it is prepared and fits, else noisy patterns."""
    try:
        data = datasets.load("house-numbers", Path(__file__).parents[2] / "data")
    except DataError:
        data = None
    if data is not None and (data.features, data.classes) == (scale.features, scale.classes):
        inputs, labels = Examples(data, data.splits["train"], stage.CPU)[slice(8192)]
        return inputs, labels, "house-numbers"
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(scale.classes, (8192,), generator=random)
    patterns = torch.randn(scale.classes, scale.features, generator=random)
    noise = torch.randn(len(labels), scale.features, generator=random)
    return patterns[labels] + 3 * noise, labels, "noisy patterns"


def _by_hand(model: nn.Sequential) -> SquaredNorms:
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in model if isinstance(layer, nn.Linear)]

    def squared_norms(inputs: Tensor, labels: Tensor) -> Tensor:
        activations = [inputs]
        for weight, bias in layers[:-1]:
            activations.append(torch.addmm(bias, activations[-1], weight.T).relu_())
        logits = torch.addmm(layers[-1][1], activations[-1], layers[-1][0].T)
        functional.cross_entropy(logits, labels, reduction="none")
        _ = logits.argmax(1) != labels
        delta = logits.softmax(1)
        delta[torch.arange(len(labels)), labels] -= 1
        total = torch.zeros(len(labels))
        for number in range(len(layers) - 1, -1, -1):
            activation = activations[number]
            total += delta.square().sum(1) * (activation.square().sum(1) + 1)
            if number:
                delta = (delta @ layers[number][0]).mul_(activation > 0)
        return total

    return squared_norms


def _hooks(model: nn.Sequential) -> SquaredNorms:
    """What one writes first: hooks on every layer, and an ordinary backward pass."""
    parts: list[Tensor] = []

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        def norms(delta: Tensor) -> None:
            parts.append(delta.square().sum(1) * (inputs[0].detach().square().sum(1) + 1))

        output.register_hook(norms)  # type: ignore[no-untyped-call]

    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(hook)

    def squared_norms(inputs: Tensor, labels: Tensor) -> Tensor:
        parts.clear()
        model.zero_grad()
        functional.cross_entropy(model(inputs), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
        return torch.stack(parts).sum(0)

    return squared_norms
