"""The networks on which scoring is timed: issgd's own, as a run builds them, and an LSTM, of which it has none."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from issgd_cli.networks import Network, Sizes
from issgd_cli.registries import NETWORKS
from tests.benchmarks import stage
from tests.benchmarks.scale import Scale

CLASSES, TOKENS = 10, 10_000
MOST = {"resnet18": 1.3, "vit": 1.0, "text": 1.0}


class Subject(NamedTuple):
    """A network, and a minibatch of no meaning.

    Attributes:
        name: For people.
        built: Of what, for people.
        model: Initialised.
        inputs: Shape (B, ...).
        labels: Shape (B,).
        most: Times a plain pass that scoring may take at most.
        beats: Whether it is to be faster than every peer, too.
    """

    name: str
    built: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    most: float
    beats: bool = True

    def on(self, device: torch.device) -> "Subject":
        """The same, there."""
        inputs, labels = self.inputs.to(device), self.labels.to(device)
        return self._replace(model=self.model.to(device), inputs=inputs, labels=labels)

    @property
    def size(self) -> str:
        """Of the minibatch."""
        return f"batch {len(self.labels)}"


class Recurrent(nn.Module):
    """Embedded tokens, an LSTM, the mean of its outputs."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(TOKENS, width), nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.lstm(self.table(tokens))[0].mean(1))  # type: ignore[no-any-return]


def names(scale: Scale) -> list[str]:
    """Of all subjects."""
    return [*(f"mlp, {size}" for size in scale.batches), *MOST, "LSTM"]


def subject(scale: Scale, name: str, examples: int = 64) -> Subject:
    """The same each time, but for the mlp with a minibatch of so many examples, or half as many texts, shrunk."""
    small = scale.shrink
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if name.startswith("mlp"):
            inputs, labels = stage.minibatch(scale, int(name.split()[1]))
            built = f"issgd's own mlp (hidden = {list(scale.hidden)})"
            return Subject("mlp", built, stage.network(scale), inputs, labels, 0.66, beats=False)
        size, labels = examples // small, torch.randint(CLASSES, (examples // small,))
        texts = torch.randint(1, TOKENS, (size // 2, 128 // small))
        if name == "LSTM":
            width, hidden, steps = 128 // small, 256 // small, 100 // small
            built = f"an embedding of width {width}, nn.LSTM of {hidden}, the mean of {steps} outputs, a linear layer"
            return Subject(name, built, Recurrent(width, hidden), texts[:, :steps], labels[: size // 2], 1.0)
        if name == "text":
            sizes = Sizes(tuple(texts.shape[1:]), CLASSES, TOKENS)
            settings = {"width": 256 // small, "depth": max(1, 4 // small)}
            return _own(scale, name, sizes, settings, texts, labels[: size // 2])
        settings = {
            "resnet18": {"width": 32 // small},
            "vit": {"patch": 4, "width": 192 // small, "depth": max(1, 6 // small)},
        }[name]
        shape = 3, 32 // small, 32 // small
        return _own(scale, name, Sizes(shape, CLASSES), settings, torch.randn(size, *shape), labels)


def _own(scale: Scale, name: str, sizes: Sizes, settings: Mapping[str, int], inputs: Tensor, labels: Tensor) -> Subject:
    """One of the registry, by its settings."""
    config = stage.config(scale, f"model.network={name}", *(f"{name}.{key}={of}" for key, of in settings.items()))
    network: Network = NETWORKS[name](config, sizes)
    model = network.build()
    network.initialise(model, 0)
    built = f"issgd's own {name} ({', '.join(f'{key} = {of}' for key, of in settings.items())})"
    return Subject(name, built, model, inputs, labels, MOST[name])
