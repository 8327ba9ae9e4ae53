"""Audits of methods that draw by several proposals: by their own formula, or where there is none by Monte Carlo.

`trace/in_use` is what compares with eq. 6 to 8: the minibatch's size times the trace of its gradient's covariance.

- `mis`: its own formula, exact where the audit is. Eq. 6 of the mixture that a minibatch is of is an upper bound: each
  proposal draws a fixed number.
- `omis`: of the minibatches that would come next, parameters and tables as they are. With beta > 0 it is of what b
  averages over several of them, as momentum of that strength does: times (1 + beta) / (1 - beta) it compares with what
  remembers nothing. `estimator/error_ratio` tells of its bias.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.auditing import AUDIT_DRAWS, AUDIT_MINIBATCH
from issgd_cli.config.config import Config
from issgd_cli.datasets.examples import Examples
from issgd_cli.equations import alain2015, salaun2024
from issgd_cli.errors import RunError
from issgd_cli.losses import Objective
from issgd_cli.methods.method import Method, Seen, relearn
from issgd_cli.methods.multiple import Multiple
from issgd_cli.methods.optimal import Optimal
from issgd_cli.registries import METHODS
from issgd_cli.runs.audits import Audit
from issgd_cli.scores import score

FORGOTTEN = 0.01  # how much of what is remembered may be left when a simulation begins to count


def restored(config: Config, point: Audit, device: torch.device) -> Multiple | None:
    """The method as it was at an audit point; None where it draws by the point's weights alone.

    Raises:
        RunError: It can't have learned what the point holds.
    """
    if not point.learned:
        return None
    method: Method = METHODS[config.proposal.method](config, len(point.weights), device)
    try:
        relearn(method, point.learned)
    except ValueError as error:
        raise RunError(f"The audit point of step {point.step} is of another run: {error}. Remove it.") from None
    return method if isinstance(method, Multiple) and method.is_filled else None


def own_quantities(
    loss: Objective,
    model: torch.nn.Module,
    examples: Examples,
    method: Multiple,
    step: int,
    rows: np.ndarray[Any, Any],
    values: dict[str, float],
) -> Generator[Operation, None, dict[str, float]]:
    """What stands in place of the audit's values, which took the weights in use for all there is; by their names.

    Announces each minibatch.

    Args:
        loss: Of an example.
        model: With the parameters that are audited.
        examples: For training, N.
        method: As it was.
        step: When.
        rows: Those that the audit is on, all or a sample of n.
        values: Of the audit.
    """
    if not isinstance(method, Optimal):
        means2 = yield from _mean_norms2(loss, model, examples, method, rows)
        counts = method.counts(method.config.master.minibatch_size).tolist()
        of_mixture = values["trace/in_use"], values["gradient_norm2"]
        own = {"trace/in_use": salaun2024.trace_of_fixed_counts(*of_mixture, counts, means2)}
        return own if len(rows) == len(examples) else own | {"trace/in_use/standard_error": math.nan}  # not known
    found = yield from _simulated(loss, model, examples, method, step)
    if len(rows) < len(examples):
        return {"trace/in_use": found.trace, "trace/in_use/standard_error": math.nan}
    gradient, _ = yield from _weighted(loss, model, examples, rows, torch.ones(len(rows)))
    error2 = float((found.mean - gradient / len(examples)).square().sum())
    draws = found.independent * method.config.master.minibatch_size
    ratio = alain2015.error_ratio(error2, 1, found.trace / draws) if found.trace > 0 else math.nan
    return {"trace/in_use": found.trace, "estimator/error_ratio": ratio}


def _mean_norms2(
    loss: Objective, model: torch.nn.Module, examples: Examples, method: Multiple, rows: np.ndarray[Any, Any]
) -> Generator[Operation, None, list[float]]:
    """||E_j||^2 of each proposal, see salaun2024; unbiased estimates of them where the rows are a sample."""
    chances = method.importances.chances()[:, torch.from_numpy(rows).to(method.device)].cpu()
    mixture = salaun2024.mixture(chances, method.counts(method.config.master.minibatch_size).cpu())
    found = []
    for share in salaun2024.shares(chances, mixture):
        gradient, squares = yield from _weighted(loss, model, examples, rows, share)
        norm2, count = float((gradient / len(rows)).square().sum()), len(rows)
        if count < len(examples):
            norm2 = alain2015.gradient_norm2_unbiased([norm2], [count], squares / count, len(examples))
        found.append(norm2)
    return found


def _weighted(
    loss: Objective, model: torch.nn.Module, examples: Examples, rows: np.ndarray[Any, Any], factors: Tensor
) -> Generator[Operation, None, tuple[Tensor, float]]:
    """The sum of these examples' gradients, so many times each, float64, shape (T,), and of these' squared norms."""
    total, squares = torch.zeros((), dtype=torch.float64, device=examples.device), 0.0
    for first in range(0, len(rows), AUDIT_MINIBATCH):
        part = slice(first, first + AUDIT_MINIBATCH)
        yield Operation("audit", examples=len(rows[part]))
        inputs, targets = examples[rows[part]]
        own = factors[part].to(examples.device)
        scores = score(loss, model, inputs, targets, True, own.float())
        if (gradient := scores.gradient) is not None:
            total = total + gradient
        squares += float(own.square().double() @ scores.squared_norms.double())
    return total, squares


@dataclass(frozen=True)
class _Simulated:
    """What some minibatches show.

    Attributes:
        trace: Of the covariance of their gradients, times their size.
        mean: Of these, float64, shape (T,).
        independent: So many that knew nothing of each other would have a mean of the same covariance.
    """

    trace: float
    mean: Tensor
    independent: float


def _simulated(
    loss: Objective, model: torch.nn.Module, examples: Examples, method: Optimal, step: int
) -> Generator[Operation, None, _Simulated]:
    """The minibatches from this step on, if nothing changed; the first of them only fill what it remembers."""
    size, beta = method.config.master.minibatch_size, method.settings.beta
    count = max(2, AUDIT_DRAWS // size)
    before = 1 + (math.ceil(math.log(FORGOTTEN) / math.log(beta)) if beta > 0 else 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    numbers = sum(parameter.numel() for parameter in trained)
    method.forget(numbers)
    total, squares = torch.zeros(numbers, dtype=torch.float64, device=examples.device), 0.0
    for number in range(before + count):
        drawn = method.draw(step + number, size)
        yield Operation("audit", examples=size)
        inputs, targets = examples[drawn.indices]
        outputs = model(inputs)
        losses = loss(outputs, targets)
        coefficients = method.weigh(drawn, Seen(losses.detach(), outputs.detach(), targets, loss))
        gradients = [
            torch.autograd.grad(losses, trained, row, retain_graph=True, materialize_grads=True) for row in coefficients
        ]
        parts = method.combine([torch.stack(of_rows) for of_rows in zip(*gradients, strict=True)])
        if number >= before:
            direction = torch.cat([part.flatten() for part in parts]).double()
            total += direction
            squares += float(direction.square().sum())
    # Two of them so many steps apart have beta^steps of what they remember in common; corrected, none of their errors.
    alike = 0.0 if method.is_corrected else beta
    steps = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    independent = count**2 / float((alike**steps).sum())
    mean = total / count
    spread = squares - count * float(mean.square().sum())
    return _Simulated(size * spread / (count - count / independent), mean, independent)
