"""Small networks, each with something that a way to per-example gradients may get wrong: what is asked of a package."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

EXAMPLES, POSITIONS, WIDTH, TOKENS, CLASSES = 5, 4, 6, 7, 3


class Situation(NamedTuple):
    """What is asked.

    Attributes:
        name: For people.
        model: Makes it; inputs (B, ...) to logits (B, CLASSES).
        shape: Of an example's input; None: POSITIONS tokens.
        mixes: Whether no example has a gradient of its own, so that only a refusal is right.
    """

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...] | None = (WIDTH,)
    mixes: bool = False

    def made(self, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor, Tensor]:
        """The same model, inputs and labels each time."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = self.model()
            with torch.no_grad():  # fresh scales of 1 and shifts of 0 would hide mistakes
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            if self.shape is None:
                inputs = torch.randint(TOKENS, (EXAMPLES, POSITIONS))
            else:
                inputs = torch.randn(EXAMPLES, *self.shape).to(dtype)
            return model.to(dtype), inputs, torch.randint(CLASSES, (EXAMPLES,))


class Via(nn.Module):
    """A network whose forward is a function of its modules: what models are like that are no nn.Sequential."""

    def __init__(self, compute: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.compute(self, inputs)


class Token(nn.Module):
    """A vision transformer's class token and positions: parameters of a module that has others within it."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(torch.zeros(1, POSITIONS + 1, WIDTH))
        self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, of the token's place and the others'."""
        rows = torch.cat([self.token.expand(len(inputs), -1, -1), inputs], 1) + self.places
        return self.head(self.inner(rows).tanh().mean(1))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """A parameter of its own kind, by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        """Scaled."""
        return inputs * self.scale


class Doubling(nn.Linear):
    """A layer that derives from another and computes something else."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Twice."""
        return super().forward(2 * inputs)


class LowRank(nn.Module):
    """A frozen layer and what is learned beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The sum of both."""
        return self.base(inputs) + self.up(self.down(inputs))  # type: ignore[no-any-return]


def headed(*layers: nn.Module, features: int = WIDTH) -> nn.Module:
    """These, and a classifier of so many features."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, CLASSES))


def of_sequence(layer: nn.Module, apply: Callable[[nn.Module, Tensor], Tensor], features: int = WIDTH) -> nn.Module:
    """A classifier of the mean over time of what a layer makes of inputs (B, T, d)."""
    head = nn.Linear(features, CLASSES)
    return Via(lambda own, inputs: own.head(apply(own.layer, inputs).mean(1)), layer=layer, head=head)


def recurrent(layer: nn.RNNBase) -> nn.Module:
    """Of a layer that returns its state, too; time first unless it says otherwise."""

    def apply(layer: nn.Module, inputs: Tensor) -> Tensor:
        if layer.batch_first:
            return layer(inputs)[0]  # type: ignore[no-any-return]
        return layer(inputs.transpose(0, 1))[0].transpose(0, 1)  # type: ignore[no-any-return]

    return of_sequence(layer, apply, layer.hidden_size * (2 if layer.bidirectional else 1))


def reading(kind: Callable[..., nn.RNNBase]) -> nn.Module:
    """Of one layer, one direction, examples first."""
    return recurrent(kind(WIDTH, 5, batch_first=True))


def convolving(kind: str, **options: int) -> nn.Module:
    """A convolution from 4 to 6 channels, and the mean over its positions."""
    layer: nn.Module = getattr(nn, kind)(4, 6, **options)
    return headed(layer, *_pooled(int(kind[-2])))


def bagging(mode: str) -> nn.Module:
    """Tokens in bags."""
    return headed(nn.EmbeddingBag(TOKENS, WIDTH, mode=mode))


def attending(batch_first: bool) -> nn.Module:
    """Self-attention."""

    def apply(layer: nn.Module, inputs: Tensor) -> Tensor:
        rows = inputs if batch_first else inputs.transpose(0, 1)
        found: Tensor = layer(rows, rows, rows, need_weights=False)[0]
        return found if batch_first else found.transpose(0, 1)

    return of_sequence(nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first), apply)


def two_layers(compute: Callable[..., Tensor], first: nn.Module | None = None) -> nn.Module:
    """`compute(module, inputs)` of a square layer and a classifier."""
    return Via(compute, inner=first or nn.Linear(WIDTH, WIDTH), head=nn.Linear(WIDTH, CLASSES))


def changed(layer: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    """The layer, after the change."""
    change(layer)
    return layer


def _tied() -> nn.Module:
    table, decoder = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)
    decoder.weight = table.weight
    return Via(lambda own, tokens: own.decoder(own.table(tokens).mean(1))[:, :CLASSES], table=table, decoder=decoder)


def _no_bias_learned(layer: nn.Module) -> None:
    assert isinstance(layer.bias, Tensor)
    layer.bias.requires_grad_(False)


SEQUENCE, IMAGE = (POSITIONS, WIDTH), (4, 6, 6)
SPATIAL = {1: (4, 8), 2: IMAGE, 3: (4, 4, 4, 4)}

LAYERS = (
    Situation("Linear", lambda: headed(nn.Linear(WIDTH, WIDTH), nn.Tanh())),
    Situation("Linear on (B, T, d)", lambda: headed(nn.Linear(WIDTH, WIDTH), features=POSITIONS * WIDTH), SEQUENCE),
    *(
        Situation(f"Conv{n}d", partial(convolving, f"Conv{n}d", kernel_size=3, padding=1), shape)
        for n, shape in SPATIAL.items()
    ),
    Situation(
        "Conv2d: groups, stride, dilation",
        lambda: headed(nn.Conv2d(4, 6, 2, 2, 1, 2, 2), *_pooled(2)),
        IMAGE,
    ),
    Situation(
        "Conv2d: reflected padding",
        lambda: headed(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), *_pooled(2)),
        IMAGE,
    ),
    *(
        Situation(f"ConvTranspose{n}d", partial(convolving, f"ConvTranspose{n}d", kernel_size=2, stride=2), shape)
        for n, shape in SPATIAL.items()
    ),
    Situation("Embedding", lambda: headed(nn.Embedding(TOKENS, WIDTH), features=POSITIONS * WIDTH), None),
    Situation(
        "Embedding: padding_idx",
        lambda: headed(nn.Embedding(TOKENS, WIDTH, padding_idx=1), features=POSITIONS * WIDTH),
        None,
    ),
    *(Situation(f"EmbeddingBag: {mode}", partial(bagging, mode), None) for mode in ("sum", "mean", "max")),
    Situation("LayerNorm", lambda: headed(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Tanh())),
    Situation("RMSNorm", lambda: headed(nn.Linear(WIDTH, WIDTH), nn.RMSNorm(WIDTH), nn.Tanh())),
    Situation("GroupNorm", lambda: headed(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), *_pooled(2)), IMAGE),
    Situation(
        "InstanceNorm2d", lambda: headed(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True), *_pooled(2)), IMAGE
    ),
    Situation(
        "BatchNorm2d, evaluating", lambda: headed(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6).eval(), *_pooled(2)), IMAGE
    ),
    Situation(
        "BatchNorm2d, training", lambda: headed(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), *_pooled(2)), IMAGE, mixes=True
    ),
    Situation("MultiheadAttention", lambda: attending(True), SEQUENCE),
    Situation("MultiheadAttention: batch second", lambda: attending(False), SEQUENCE),
    Situation(
        "TransformerEncoderLayer",
        lambda: of_sequence(
            nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.0, batch_first=True), lambda layer, inputs: layer(inputs)
        ),
        SEQUENCE,
    ),
    *(Situation(kind.__name__, partial(reading, kind), SEQUENCE) for kind in (nn.LSTM, nn.GRU, nn.RNN)),
    Situation("LSTM: batch second", lambda: recurrent(nn.LSTM(WIDTH, 5)), SEQUENCE),
    Situation(
        "LSTM: two layers, both directions",
        lambda: recurrent(nn.LSTM(WIDTH, 5, 2, batch_first=True, bidirectional=True)),
        SEQUENCE,
    ),
    Situation("PReLU", lambda: headed(nn.Linear(WIDTH, WIDTH), nn.PReLU(WIDTH))),
    Situation(
        "Bilinear",
        lambda: Via(
            lambda own, inputs: own.head(own.layer(inputs, inputs.flip(1))),
            layer=nn.Bilinear(WIDTH, WIDTH, 4),
            head=nn.Linear(4, CLASSES),
        ),
    ),
)

USES = (
    Situation("tied weights", _tied, None),
    Situation("a layer used twice", lambda: two_layers(lambda own, x: own.head(own.inner(own.inner(x).tanh())))),
    Situation(
        "a weight used functionally, too",
        lambda: two_layers(
            lambda own, x: own.head(functional.linear(own.inner(x).tanh(), own.inner.weight, own.inner.bias))
        ),
    ),
    Situation(
        "a weight used functionally only",
        lambda: two_layers(lambda own, x: own.head(functional.linear(x, own.inner.weight).tanh())),
    ),
    Situation(
        "a weight's transpose used, too",
        lambda: two_layers(lambda own, x: own.head(own.inner(x).tanh() @ own.inner.weight)),
    ),
    Situation(
        "pruned",
        lambda: headed(changed(nn.Linear(WIDTH, WIDTH), _pruned)),
    ),
    Situation("weight_norm", lambda: headed(parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)), nn.Tanh())),
    Situation("a bias is frozen", lambda: headed(changed(nn.Linear(WIDTH, WIDTH), _no_bias_learned), nn.Tanh())),
    Situation("a layer is frozen", lambda: headed(nn.Linear(WIDTH, WIDTH).requires_grad_(False), nn.Tanh())),
    Situation("low-rank additions to a frozen layer", lambda: headed(LowRank(), nn.Tanh())),
    Situation("a layer that has no part in the loss", lambda: two_layers(lambda own, x: own.head(x))),
    Situation("class token and positions", Token, SEQUENCE),
    Situation("a scale of its own kind", lambda: headed(nn.Linear(WIDTH, WIDTH), Scale())),
    Situation("a subclass with its own forward", lambda: headed(Doubling(WIDTH, WIDTH), nn.Tanh())),
    Situation("in-place ReLU", lambda: headed(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True))),
    Situation(
        "a residual added in place",
        lambda: two_layers(lambda own, x: own.head(own.inner(x).add_(x).tanh())),
    ),
    Situation(
        "positions along the first axis",
        lambda: two_layers(lambda own, x: own.head(own.inner(x.transpose(0, 1)).tanh().mean(0))),
        SEQUENCE,
    ),
    Situation(
        "as many positions along the first axis as examples",
        lambda: two_layers(lambda own, x: own.head(own.inner(x.transpose(0, 1)).tanh().mean(0))),
        (EXAMPLES, WIDTH),
    ),
    Situation(
        "positions folded into the examples",
        lambda: two_layers(lambda own, x: own.head(own.inner(x.flatten(0, 1)).tanh().unflatten(0, x.shape[:2]).sum(1))),
        SEQUENCE,
    ),
    Situation("less the minibatch's mean", lambda: two_layers(lambda own, x: _mean_taken(own, x)), mixes=True),
    Situation("attention among the examples", lambda: two_layers(lambda own, x: _attended(own, x)), mixes=True),
    Situation("examples reordered", lambda: two_layers(lambda own, x: own.head(own.inner(x).flip(0))), mixes=True),
)

SITUATIONS = {situation.name: situation for situation in (*LAYERS, *USES)}


def _pooled(axes: int) -> tuple[nn.Module, ...]:
    pool: nn.Module = getattr(nn, f"AdaptiveAvgPool{axes}d")(1)
    return nn.Tanh(), pool


def _mean_taken(own: Any, inputs: Tensor) -> Tensor:
    values = own.inner(inputs)
    return own.head((values - values.mean(0)).tanh())  # type: ignore[no-any-return]


def _attended(own: Any, inputs: Tensor) -> Tensor:
    values = own.inner(inputs)
    return own.head((values @ values.mT).softmax(1) @ values)  # type: ignore[no-any-return]


def _pruned(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
