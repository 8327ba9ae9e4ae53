"""An audit: every quantity recomputed exactly, at one parameter version, over all examples."""

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch

from issgd_cli.actors.actor import Operation
from issgd_cli.database import SPLITS, Layout, Split
from issgd_cli.datasets.examples import Examples
from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.losses import Loss
from issgd_cli.methods.proposal import Proposal, floored
from issgd_cli.methods.smoothing import smoothed
from issgd_cli.runs.audits import Audit
from issgd_cli.scores import score

AUDIT_DRAWS = 2048  # of an audit's own, a small part of its cost
AUDIT_MINIBATCH = 512


def exact_quantities(
    loss: Loss,
    model: torch.nn.Module,
    examples: Mapping[Split, Examples],
    layout: Layout,
    point: Audit,
    extra_smoothings: tuple[float, ...],
    draws: np.random.Generator,
) -> Generator[Operation, None, dict[str, float]]:
    """Every quantity over all examples at one parameter version, the exact ||g_TRUE||^2 subtracted.

    Announces each minibatch, and returns the values by their names without the prefix `audit/`.

    Where the weights in use leave examples out (`drop`), `trace/in_use` is eq. 6 over the examples that can be drawn,
    about their own mean gradient, which is what the minibatches then estimate; `trace/uniform_in_use` is eq. 8 over the
    same examples, to compare it with. `estimator/error_ratio` draws anew from the weights in use and compares with
    the mean gradient of all examples, so that it shows the bias of `drop`.
    """
    values: dict[str, float] = {}
    device = examples["train"].device
    drawn = point.weights > 0  # (N,)
    squared_norms = np.zeros(layout.train)
    gradients = torch.zeros((2, len(point.parameters)), dtype=torch.float64, device=device)  # left out, drawn
    for split in SPLITS:
        losses, errors = np.zeros(layout.examples(split)), np.zeros(layout.examples(split))
        for first in range(0, layout.examples(split), AUDIT_MINIBATCH):
            span = slice(first, min(first + AUDIT_MINIBATCH, layout.examples(split)))
            yield Operation("audit", examples=span.stop - span.start)
            inputs, labels = examples[split][span]
            parts = [np.arange(span.stop - span.start)]
            if split == "train":
                parts = [np.flatnonzero(~drawn[span]), np.flatnonzero(drawn[span])]
            for number, part in enumerate(parts):
                if len(part) == 0:
                    continue
                rows = torch.from_numpy(part).to(device)
                scores = score(loss, model, inputs[rows], labels[rows], with_gradient=split == "train")
                losses[span.start + part] = scores.losses.double().cpu().numpy()
                errors[span.start + part] = scores.errors.double().cpu().numpy()
                if (gradient := scores.gradient) is not None:
                    squared_norms[span.start + part] = scores.squared_norms.double().cpu().numpy()
                    gradients[number] += gradient
        values[f"loss/{split}"], values[f"error/{split}"] = float(losses.mean()), float(errors.mean())
    true_norm2 = float((gradients.sum(0) / layout.train).square().sum())
    drawn_norm2 = float((gradients[1] / int(drawn.sum())).square().sum())
    values["gradient_norm2"] = true_norm2
    values["trace/in_use"] = alain2015.trace_of_covariance(squared_norms[drawn], point.weights[drawn], drawn_norm2)
    if not drawn.all():
        values["trace/uniform_in_use"] = alain2015.uniform_trace(squared_norms[drawn], drawn_norm2)
    error_norm2 = yield from _error_norm2(loss, model, examples["train"], point, gradients.sum(0) / layout.train, draws)
    if values["trace/in_use"] > 0:
        values["estimator/error_ratio"] = alain2015.error_ratio(error_norm2, AUDIT_DRAWS, values["trace/in_use"])
    previous = None if np.isnan(point.previous).any() else point.previous
    return values | traces_of(squared_norms, previous, true_norm2, point.smoothing, extra_smoothings)


def _error_norm2(
    loss: Loss,
    model: torch.nn.Module,
    examples: Examples,
    point: Audit,
    true_gradient: torch.Tensor,
    draws: np.random.Generator,
) -> Generator[Operation, None, float]:
    """Squared distance from the true gradient, shape (P,), of a mean gradient over draws by the weights in use."""
    indices, weights = Proposal.of(point.weights).draw(draws, AUDIT_DRAWS)
    total = torch.zeros_like(true_gradient)
    for first in range(0, AUDIT_DRAWS, AUDIT_MINIBATCH):
        part = slice(first, first + AUDIT_MINIBATCH)
        yield Operation("audit", examples=len(indices[part]))
        inputs, labels = examples[indices[part].to(examples.device)]
        scores = score(loss, model, inputs, labels, True, weights[part].to(inputs))
        if (gradient := scores.gradient) is not None:
            total += gradient
    return float((total / AUDIT_DRAWS - true_gradient).square().sum())


def traces_of(
    squared_norms: Float64s,
    previous: np.ndarray[Any, Any] | None,
    true_norm2: float,
    smoothing_constant: float,
    extra_smoothings: tuple[float, ...],
) -> dict[str, float]:
    """Eq. 7, 8 and, where every example has a previous norm, eq. 9 with each smoothing constant."""
    values = {
        "trace/ideal": alain2015.ideal_trace(squared_norms, true_norm2),
        "trace/uniform": alain2015.uniform_trace(squared_norms, true_norm2),
    }
    if previous is not None and previous.any():
        constants = {"": smoothing_constant} | {f"+{extra:g}": extra for extra in extra_smoothings}
        for name, constant in constants.items():
            weights, _ = floored(smoothed(previous, constant))  # as the master's own
            values[f"trace/stale{name}"] = alain2015.stale_trace(squared_norms, weights, true_norm2)
    return values
