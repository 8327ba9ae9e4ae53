"""An audit: every quantity recomputed exactly, at one parameter version, over all examples."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.database import SPLITS, Split
from issgd_cli.datasets.examples import Examples
from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.equations.statistics import rank_correlation
from issgd_cli.losses import Objective
from issgd_cli.methods.method import Seen
from issgd_cli.methods.proposal import Proposal, floored
from issgd_cli.methods.smoothing import smoothed
from issgd_cli.networks.flat import trained_size
from issgd_cli.runs.audits import Audit
from issgd_cli.scores import score

AUDIT_DRAWS = 2048  # of an audit's own, a small part of its cost
AUDIT_BLOCKS = 2  # of systematic draws, where the master's are: each costs a look at all examples, or a part of them
AUDIT_MINIBATCH = 512


def exact_quantities(
    loss: Objective,
    model: torch.nn.Module,
    examples: Mapping[Split, Examples],
    point: Audit,
    extra_smoothings: tuple[float, ...],
    draws: np.random.Generator,
    block: int | None = None,
) -> Generator[Operation, None, dict[str, float]]:
    """Every quantity over all examples at one parameter version, the exact ||g_TRUE||^2 subtracted.

    Announces each minibatch, and returns the values by their names without the prefix `audit/`.

    Where the weights in use leave examples out (`drop`), `trace/in_use` is eq. 6 over the examples that can be drawn,
    about their own mean gradient, which is what the minibatches then estimate; `trace/uniform_in_use` is eq. 8 over the
    same examples, to compare it with. `estimator/error_ratio` draws anew from the weights in use and compares with
    the mean gradient of all examples, so that it shows the bias of `drop`. Where the master draws blocks of so many
    draws systematically, `trace/in_use_systematic` is what such blocks have in the place of eq. 6, by Monte Carlo.
    Their draws are of all examples: audits on a sample have no such value.
    """
    drawn = point.weights > 0  # (N,)
    found = yield from measured(loss, model, examples, drawn)
    values = {name: float(of_examples.mean()) for name, _, of_examples in found.of_splits()}
    squared_norms, gradients = found.squared_norms, found.gradients
    true_gradient = gradients.sum(0) / len(drawn)
    true_norm2 = float(true_gradient.square().sum())
    drawn_gradient = gradients[1] / int(drawn.sum())
    drawn_norm2 = float(drawn_gradient.square().sum())
    values["gradient_norm2"] = true_norm2
    values["trace/in_use"] = alain2015.trace_of_covariance(squared_norms[drawn], point.weights[drawn], drawn_norm2)
    if not drawn.all():
        values["trace/uniform_in_use"] = alain2015.uniform_trace(squared_norms[drawn], drawn_norm2)
    proposal, looked_at = Proposal.of(point.weights), (loss, model, examples["train"])
    error_norm2 = yield from _error_norm2(*looked_at, proposal.draw(draws, AUDIT_DRAWS), true_gradient)
    if values["trace/in_use"] > 0:
        values["estimator/error_ratio"] = alain2015.error_ratio(error_norm2, AUDIT_DRAWS, values["trace/in_use"])
    if block is not None:
        errors = []
        for _ in range(AUDIT_BLOCKS):
            of_block = proposal.draw_systematically(draws, block)
            errors.append((yield from _error_norm2(*looked_at, of_block, drawn_gradient)))
        values["trace/in_use_systematic"] = block * float(np.mean(errors))  # independent ones: eq. 6
    values |= ranked(found)
    if found.output_norms.any():
        by_outputs = floored(found.output_norms)[0]
        values["trace/by_outputs"] = alain2015.trace_of_covariance(squared_norms, by_outputs, true_norm2)
    return values | traces_of(squared_norms, point.previous, true_norm2, point.smoothing, extra_smoothings)


def ranked(found: "Measured") -> dict[str, float]:
    """Whether gradients by the outputs alone rank examples as the whole ones do; none where one of them ranks nothing.

    Source: the assumption of Salaun et al. 2023 and 2024.
    """
    correlation = rank_correlation(found.output_norms, found.squared_norms)
    return {} if np.isnan(correlation) else {"rank_correlation": correlation}


@dataclass(frozen=True)
class Measured:
    """Of n examples of each split, at one parameter version.

    Attributes:
        losses, errors: Of each example, shape (n,); no errors of a loss that knows none.
        squared_norms: ||g(x)||^2 of each training example, shape (n,).
        output_norms: ||dL/dm|| of each, by the network's outputs m alone, shape (n,).
        gradients: Sums over the training examples that can't be drawn, and those that can, float64, shape (2, T).
    """

    losses: Mapping[Split, Float64s]
    errors: Mapping[Split, Float64s]
    squared_norms: Float64s
    output_norms: Float64s
    gradients: torch.Tensor

    def of_splits(self) -> Iterator[tuple[str, Split, Float64s]]:
        """What a mean over a split is of: the mean's name, the split, the examples' values, shape (n,)."""
        for split, losses in self.losses.items():
            yield f"loss/{split}", split, losses
            if split in self.errors:
                yield f"error/{split}", split, self.errors[split]


def measured(
    loss: Objective,
    model: torch.nn.Module,
    examples: Mapping[Split, Examples],
    drawn: NDArray[np.bool_],
    rows: Mapping[Split, NDArray[np.int64]] | None = None,
) -> Generator[Operation, None, Measured]:
    """Looks at each example once; announces each minibatch.

    Args:
        loss: Of an example.
        model: With the parameters that are audited.
        examples: Of the three splits.
        drawn: Which training examples can be drawn, shape (N,).
        rows: Of each split, shape (n,); None: all.
    """
    device, trained = examples["train"].device, trained_size(model)
    sizes = {split: len(examples[split] if rows is None else rows[split]) for split in SPLITS}
    losses: dict[Split, Float64s] = {split: np.zeros(size) for split, size in sizes.items()}
    errors: dict[Split, Float64s] = {}
    squared_norms, output_norms = np.zeros(sizes["train"]), np.zeros(sizes["train"])
    gradients = torch.zeros((2, trained), dtype=torch.float64, device=device)

    def keep(split: Split, at: slice | NDArray[np.int64], found: torch.Tensor, wrong: torch.Tensor | None) -> None:
        losses[split][at] = found.double().cpu().numpy()
        if wrong is not None:
            errors.setdefault(split, np.zeros(sizes[split]))[at] = wrong.double().cpu().numpy()

    for split, size in sizes.items():
        for first in range(0, size, AUDIT_MINIBATCH):
            span = slice(first, min(first + AUDIT_MINIBATCH, size))
            yield Operation("audit", examples=span.stop - span.start)
            which = span if rows is None else rows[split][span]
            inputs, labels = examples[split][which]
            if split != "train":
                with torch.no_grad():  # only losses and errors are wanted: no backward pass
                    outputs = model(inputs)
                    keep(split, span, loss(outputs, labels), loss.errors(outputs, labels))
                continue
            at = np.arange(span.start, span.stop)
            for number, rows_of_part in enumerate((at[~drawn[which]], at[drawn[which]])):
                if len(rows_of_part) == 0:
                    continue
                places = torch.from_numpy(rows_of_part - span.start).to(device)
                scores = score(loss, model, inputs[places], labels[places], with_gradient=True)
                keep(split, rows_of_part, scores.losses, scores.errors)
                if (gradient := scores.gradient) is not None:
                    squared_norms[rows_of_part] = scores.squared_norms.double().cpu().numpy()
                    seen = Seen(scores.losses, scores.outputs, labels[places], loss)
                    output_norms[rows_of_part] = seen.importances().cpu().numpy()
                    gradients[number] += gradient
    return Measured(losses, errors, squared_norms, output_norms, gradients)


def _error_norm2(
    loss: Objective,
    model: torch.nn.Module,
    examples: Examples,
    drawn: tuple[torch.Tensor, torch.Tensor],
    true_gradient: torch.Tensor,
) -> Generator[Operation, None, float]:
    """Squared distance from the true gradient, shape (T,), of the mean of these draws, weighted, shapes (K,)."""
    indices, weights = drawn
    total = torch.zeros_like(true_gradient)
    for first in range(0, len(indices), AUDIT_MINIBATCH):
        part = slice(first, first + AUDIT_MINIBATCH)
        yield Operation("audit", examples=len(indices[part]))
        inputs, labels = examples[indices[part].to(examples.device)]
        scores = score(loss, model, inputs, labels, True, weights[part].to(inputs))
        if (gradient := scores.gradient) is not None:
            total += gradient
    return float((total / len(indices) - true_gradient).square().sum())


def traces_of(
    squared_norms: Float64s,
    previous: np.ndarray[Any, Any] | None,
    true_norm2: float,
    smoothing_constant: float | None,
    extra_smoothings: tuple[float, ...],
) -> dict[str, float]:
    """Eq. 7, 8 and, where every example has a previous norm, eq. 9 with each smoothing constant."""
    values = {
        "trace/ideal": alain2015.ideal_trace(squared_norms, true_norm2),
        "trace/uniform": alain2015.uniform_trace(squared_norms, true_norm2),
    }
    for name, weights in stale_weights(previous, smoothing_constant, extra_smoothings).items():
        values[name] = alain2015.stale_trace(squared_norms, weights, true_norm2)
    return values


def stale_weights(
    previous: np.ndarray[Any, Any] | None, smoothing_constant: float | None, extra_smoothings: tuple[float, ...]
) -> dict[str, Float64s]:
    """Each of eq. 9's traces by its name, and what it draws by, shape (N,).

    None where an example has no previous norm, which may be NaN, or where all of these are 0; and none of the constant
    in use where that is None, since the weights in use are no norms plus a constant.
    """
    if previous is None or np.isnan(previous).any() or not previous.any():
        return {}
    constants = {} if smoothing_constant is None else {"": smoothing_constant}
    constants |= {f"+{extra:g}": extra for extra in extra_smoothings}
    # Floored as the master's own are.
    return {f"trace/stale{name}": floored(smoothed(previous, constant))[0] for name, constant in constants.items()}
