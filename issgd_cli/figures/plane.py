"""Examples that are points of a plane, in classes: what a run's network makes of them and of the places between.

From the run's final parameters: its trace knows of no single example.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli import datasets
from issgd_cli.claims.evidence import Run
from issgd_cli.config.values import is_place
from issgd_cli.datasets import Prepared
from issgd_cli.errors import DataError
from issgd_cli.runs.folder import RunFolder, hash_of

if TYPE_CHECKING:
    from torch import nn

    from issgd_cli.problem import Problem

MOST_EXAMPLES = 2_000  # the stored order is random, so that the first ones are a fair sample
RESOLUTION = 240  # places along each axis
NEIGHBOURS = 25  # by whose classes that of a place is told
BLOCK = 4096  # places that the network sees at once

Array = NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """What there is to draw, of K classes: n training examples, and R places along each axis, from the bottom up.

    Attributes:
        classes: K.
        examples: How many training examples there are in all.
        points: As they are stored, shape (n, 2).
        labels: Theirs, shape (n,).
        importances: Theirs: ||dL/dm||, and after it |dL/dm_j| of each output node, shape (n, 1 + K).
        extent: Left, right, bottom, top.
        known: The class at each place, by the training examples about it, shape (R, R).
        decided: The network's, shape (R, R).
        field: What an example of the known class would have for importances there, shape (R, R, 1 + K).
    """

    classes: int
    examples: int
    points: Array
    labels: Array
    importances: Array
    extent: tuple[float, float, float, float]
    known: Array
    decided: Array
    field: Array


def data_of(run: Run) -> Prepared | None:
    """The run's dataset if its examples are points of a plane, in classes; None: they are not, or not at hand."""
    settings = run.config.data
    if datasets.is_file(settings.name):  # which would be prepared
        return None
    try:
        data = datasets.load(
            settings.name,
            Path(settings.dir),
            settings.train_size,
            label_noise=settings.label_noise,
            imbalance=settings.imbalance,
        )
    except DataError:
        return None
    return data if data.features == 2 and data.classes and not data.tokens else None


def made_of(run: Run, data: Prepared) -> dict[str, object]:
    """What the picture comes from beside the run's trace, for its provenance."""
    parameters = RunFolder(run.path).parameters
    return {
        "parameters": {"sha256": hash_of(parameters) if parameters.exists() else None},
        "dataset": {"name": data.name, "fingerprint": data.fingerprint},
    }


def trouble(run: Run, data: Prepared) -> str | None:
    """Why there is no picture of a run on these data; None: there is."""
    noted = (run.manifest.get("dataset") or {}).get("fingerprint")
    if noted not in (None, data.fingerprint):
        return f"{data.name} has been prepared anew since this run: these are other examples."
    if not RunFolder(run.path).parameters.exists():
        return f"No final parameters: the run is {run.state}."
    if is_place(run.config.model.network):
        return "The network is the user's own code, which no picture runs."
    return None


def load(run: Run, data: Prepared) -> Plane:
    """By the final parameters.

    Raises:
        RunError: They are damaged, or another network's.
        ConfigError: The network is not for such data.
    """
    import torch

    from issgd_cli.problem import Problem
    from issgd_cli.runs.parameters import load_parameters

    problem = Problem(run.config, data)
    model = problem.network(torch.device("cpu"))
    load_parameters(RunFolder(run.path).parameters, model)
    train = data.splits["train"]
    rows = slice(MOST_EXAMPLES) if train.rows is None else train.rows[:MOST_EXAMPLES]
    points, labels = np.asarray(train.inputs[rows], np.float64), train.targets[:MOST_EXAMPLES]
    low, high = points.min(0), points.max(0)
    margin = 0.02 * np.where(high > low, high - low, 1.0)
    (left, bottom), (right, top) = low - margin, high + margin
    axes = np.linspace(left, right, RESOLUTION), np.linspace(bottom, top, RESOLUTION)
    places = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)  # row by row, from the bottom
    known = nearest_classes(points, labels, places, data.classes)
    field, decided = _seen(problem, model, places, known)
    square = RESOLUTION, RESOLUTION
    return Plane(
        classes=data.classes,
        examples=len(train),
        points=points,
        labels=labels,
        importances=_seen(problem, model, points, labels)[0],
        extent=(left, right, bottom, top),
        known=known.reshape(square),
        decided=decided.reshape(square),
        field=field.reshape(*square, -1),
    )


def nearest_classes(points: Array, labels: Array, places: Array, classes: int) -> Array:
    """The class of the points nearest to each place, of which the nearer ones count for more, shape (m,).

    Args:
        points: Shape (n, 2).
        labels: Theirs, shape (n,).
        places: Shape (m, 2).
        classes: How many there are.
    """
    from scipy.spatial import KDTree

    count, spread = min(NEIGHBOURS, len(points)), points.std(0)
    scale = np.where(spread > 0, spread, 1.0)  # both axes count alike, whatever their units
    distances, nearest = KDTree(points / scale).query(places / scale, range(1, count + 1))  # (m, count)
    weights = np.exp(-2 * (distances / np.maximum(distances[:, -1:], 1e-12)) ** 2)
    votes = np.zeros((len(places), classes))
    for neighbour in range(count):
        votes[np.arange(len(places)), labels[nearest[:, neighbour]]] += weights[:, neighbour]
    return np.asarray(votes.argmax(1))


def _seen(problem: "Problem", model: "nn.Module", points: Array, labels: Array) -> tuple[Array, Array]:
    """||dL/dm|| and each |dL/dm_j|, shape (n, 1 + K), and the class that the network decides for, shape (n,)."""
    import torch

    from issgd_cli.methods.method import Seen

    inputs = ((points - problem.data.mean) / problem.data.std).astype(np.float32).reshape(-1, *problem.data.shape)
    targets = torch.from_numpy(labels)
    with torch.no_grad():
        outputs = torch.cat([model(block) for block in torch.split(torch.from_numpy(inputs), BLOCK)])
        seen = Seen(problem.loss(outputs, targets), outputs, targets, problem.loss)
        nodes = problem.loss.output_gradients(outputs, targets).abs()
    return np.column_stack([seen.importances().numpy(), nodes.numpy()]), outputs.argmax(1).numpy()
