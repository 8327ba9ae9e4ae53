"""Steps and scoring passes on the best device: `make bench-gpu`, which needs nothing but torch and NumPy.

Everything stays on the device: uint8 examples, the weights that draws are made from, the draws themselves. Where issgd
is installed with what it needs, the other networks' scoring is timed, beside those peers that are installed, and the
methods' steps.
"""

import argparse
import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.networks.reduced import Reduced
from issgd_cli.scores import score
from tests.benchmarks.report import COLUMNS, RESULTS, Row, machine, write
from tests.benchmarks.scale import FULL, QUICK, Scale
from tests.benchmarks.timing import CALLS, interleaved

Precision = Literal["float32", "TF32", "bfloat16"]

STEP, SCORE, BOTH, DRAW = "gpu: training step", "gpu: scoring pass", "gpu: score / step", "gpu: drawing"
BATCHES = (128, 512, 2048)
# Of the networks: a CPU's, for which a GPU waits for the program, and one that is to fill it.
SIZES = {"cuda": (64, 1024), "cpu": (64,)}


class Stage:
    """A dataset, weights and a network on a device."""

    def __init__(self, scale: Scale, device: torch.device) -> None:
        """Examples and labels of no meaning, log-normal weights."""
        self.scale, self.device = scale, device
        self.random = torch.Generator(device).manual_seed(0)
        shape = (scale.examples, scale.features)
        self.images = torch.randint(256, shape, dtype=torch.uint8, device=device, generator=self.random)
        self.labels = torch.randint(scale.classes, (scale.examples,), device=device, generator=self.random)
        self.mean = torch.full((scale.features,), 127.5, device=device)
        self.inverse_std = torch.full((scale.features,), 1 / 73.9, device=device)
        # float64 decides a draw: a float32 cumulative sum of 600,000 has examples that are never drawn.
        self.omega = torch.randn(scale.examples, device=device, generator=self.random).double().exp() + 1
        self.cumulative = self.omega.cumsum(0)
        model = mlp(scale.features, scale.hidden, scale.classes)
        initialise(model, 0)
        self.model = model.to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4, 0.95, nesterov=True, fused=True)
        self.reduced = Reduced(self.model)
        self.reduced.load(self.model)

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Drawn examples and their importance weights, shape (size,) each."""
        places = torch.rand(size, dtype=torch.float64, device=self.device, generator=self.random)
        indices = torch.searchsorted(self.cumulative, places * self.cumulative[-1], right=True)
        indices.clamp_(max=len(self.cumulative) - 1)
        return indices, (self.cumulative[-1] / len(self.cumulative) / self.omega[indices]).float()

    def gather(self, which: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Standardised inputs and labels."""
        return self.images[which].float().sub_(self.mean).mul_(self.inverse_std), self.labels[which]

    def step(self, size: int, precision: Precision) -> Tensor:
        """One step of importance-sampled SGD; its loss."""
        indices, factors = self.draw(size)
        inputs, labels = self.gather(indices)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = self.model(inputs)
        loss = (factors * cross_entropy(logits.float(), labels)).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def score(self, size: int, precision: Precision) -> Tensor:
        """Norms of a chunk, shape (size,)."""
        inputs, labels = self.gather(slice(size))
        model: nn.Module = self.reduced if precision == "bfloat16" else self.model
        return score(cross_entropy, model, inputs, labels).norms


def rows(scale: Scale, device: torch.device) -> list[Row]:
    """Steps, scoring passes and draws at every batch size and precision that the device has."""
    stage = Stage(scale, device)
    precisions: tuple[Precision, ...] = ("float32", "TF32", "bfloat16")
    if device.type != "cuda":
        precisions = ("float32", "bfloat16")
    return [row for size in scale.batches for precision in precisions for row in _of(stage, size, precision)]


def of_networks(scale: Scale, device: torch.device) -> list[Row]:
    """Scoring of every network that is not the MLP above."""
    from tests.benchmarks import networks, subjects

    with matmul_precision("float32"):
        others = [name for name in subjects.names(scale) if not name.startswith("mlp")]
        found = (subjects.subject(scale, name, size).on(device) for name in others for size in SIZES[device.type])
        return [row for it in found for row in networks.timed(scale, it)]


def of_methods(scale: Scale, device: torch.device) -> list[Row]:
    """A step of every method that needs no workers."""
    from tests.benchmarks import methods

    with matmul_precision("float32"):
        return methods.rows(scale, device)


def _of(stage: Stage, size: int, precision: Precision) -> list[Row]:
    candidates: dict[str, Callable[[], Any]] = {
        STEP: lambda: stage.step(size, precision),
        SCORE: lambda: stage.score(size, precision),
        DRAW: lambda: stage.draw(size),
    }
    with matmul_precision(precision):
        timings = interleaved(candidates, stage.scale.repeats, 5, stage.device, CALLS[stage.device.type])
    batch = f"batch {size}"
    found = []
    for path in (STEP, SCORE):
        seconds = timings.seconds(path)
        note = f"{path.removeprefix('gpu: ')}, {batch}: {size / seconds.median:,.0f} examples/s"
        found.append(Row(path, precision, batch, seconds.times(1e3), "ms", note=note))
    found.append(Row(BOTH, precision, batch, timings.ratios(SCORE, STEP), "x step"))
    if precision == "float32":
        milliseconds = timings.seconds(DRAW).times(1e3)
        found.append(Row(DRAW, "float64", f"{size} of {len(stage.omega):,}", milliseconds, "ms"))
    return found


@contextlib.contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Within, float32 products are of TF32, or of all of float32's digits."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "TF32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    pages = {"gpu": rows, "gpu-networks": of_networks, "gpu-methods": of_methods}
    parser.add_argument("names", nargs="*", choices=[*pages, []], metavar="name", help=f"{', '.join(pages)}; none: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    description = machine()
    small = Scale(examples=4096, batches=(128,), repeats=15)  # of the page `gpu`: what a CPU can do in a minute
    scale = QUICK if arguments.quick else small
    if device.type == "cuda":
        description["gpu"] = torch.cuda.get_device_name()
        if not arguments.quick:
            scale = Scale(batches=BATCHES, examples=FULL.examples, repeats=50)
    where = "" if device.type == "cuda" else "-on-cpu"
    for name in arguments.names or pages:
        if pages[name] is not rows and importlib.util.find_spec("pydantic") is None:
            print(f"{name} is left out: it needs what issgd is installed with")
            continue
        start = time.monotonic()
        found = pages[name](scale, device)
        for cells in [COLUMNS, *(row.cells() for row in found)]:
            print("  ".join(f"{cell:<24}" for cell in cells).rstrip())
        paths = write(arguments.results, description, {name + where: found})
        print(f"{name}: {time.monotonic() - start:.0f} s; {', '.join(path.name for path in paths)}", flush=True)


if __name__ == "__main__":
    main()
