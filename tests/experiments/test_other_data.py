"""Runs on other data than images of classes, with other losses: from a user's file to what is said of the run."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli import datasets
from issgd_cli.claims import load_run
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.experiments import run as training
from issgd_cli.figures import run as run_figure
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder

POINTS = np.random.default_rng(0).uniform(-2, 2, (300, 2))


def trained(place: Path, loss: str, targets: NDArray[np.float64], *settings: str) -> RunFolder:
    """A run of some steps on the simulated cluster, on points of the plane."""
    np.savez(place / "own.npz", inputs=POINTS, targets=targets)
    data = datasets.prepare(str(place / "own.npz"), place)
    common = [
        f"data.name={data.name}",
        f"data.dir={place}",
        f"model.loss={loss}",
        "model.hidden=[16]",
        "model.initial_weight_std=0.5",
        "cluster.kind=simulated",
        "master.mode=exact",
        "master.minibatch_size=16",
        "master.steps=120",
        "master.publish_every_steps=10",
        "worker.chunk_size=20",
        "monitor.audit_every_steps=60",
        "proposal.smoothing=0.1",
    ]
    folder = RunFolder(place / "run" / "seed-000")
    training.train(resolve(assignments([*common, *settings]), "a test"), folder, command=[])
    return folder


@pytest.mark.parametrize("settings", [(), ("monitor.audit_examples=50",)])
def test_a_regression_has_losses_and_traces_and_no_errors(tmp_path: Path, settings: tuple[str, ...]) -> None:
    targets = np.stack([np.sin(2 * POINTS[:, 0]), POINTS.prod(1)], 1)
    folder = trained(tmp_path, "squared", targets, *settings)
    trace = traces.read(folder.trace)
    names = set(trace.quantity)
    for kind in ("", "audit/"):
        assert {f"{kind}loss/{split}" for split in ("train", "valid", "test")} <= names
        assert {f"{kind}trace/ideal", f"{kind}trace/uniform", f"{kind}trace/stale"} <= names
    assert not [name for name in names if "error/" in name and "standard_error" not in name]
    losses = trace[trace.quantity == "audit/loss/train"].value.to_numpy()
    assert losses[-1] < 0.5 * losses[0]
    run = load_run(folder)
    picture = run_figure.figure(run)
    assert [text.get_text() for text in picture.axes[1].texts] == ["No records."]
    assert not picture.axes[0].texts


def test_yes_or_no_is_learned_with_errors(tmp_path: Path) -> None:
    targets = np.stack([POINTS[:, 0] > 0, POINTS[:, 1] > POINTS[:, 0]], 1).astype(np.float64)
    trace = traces.read(trained(tmp_path, "binary-cross-entropy", targets, "optimizer.learning_rate=0.05").trace)
    errors = trace[trace.quantity == "audit/error/train"].value.to_numpy()
    assert errors[-1] < 0.25 < errors[0]
