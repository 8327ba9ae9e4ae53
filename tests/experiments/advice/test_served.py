"""How old the norms are that ISSGD is predicted to draw by, against its runs on the simulated cluster."""

import threading
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.config.validation import resolve
from issgd_cli.database import Split
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.prepared import Split as PreparedSplit
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.ways import Ways
from issgd_cli.methods.issgd import ISSGD
from issgd_cli.methods.method import Drawn, Refreshed, Seen
from issgd_cli.methods.table import Table
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation import cluster
from tests.trials import COSTS, EXAMPLES, SIZE, made, staying

STEPS, WARM = 560, 240  # by then all is scored


@pytest.fixture
def tiny() -> Prepared:
    random = np.random.default_rng(0)
    sizes: dict[Split, int] = {"train": EXAMPLES, "valid": 20, "test": 20}
    splits = {
        split: PreparedSplit(random.integers(0, 256, (count, 4), np.uint8), random.integers(0, 3, count))
        for split, count in sizes.items()
    }
    return Prepared("tiny", splits, np.full(4, 127.0, np.float32), np.full(4, 70.0, np.float32), 3, "tiny", (4,))


@pytest.mark.parametrize(("block", "interval", "workers"), [(16, 16, 3), (40, 64, 1)])
def test_norms_are_as_old_as_those_that_blocks_are_drawn_from(
    block: int,
    interval: int,
    workers: int,
    tiny: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = resolve(
        {
            "model": {"hidden": [4]},
            "proposal": {
                "method": "issgd",
                "draws": "systematic",
                "block": block * SIZE / EXAMPLES,
                "limit_mode": "fill",
            },
            "master": {"minibatch_size": SIZE, "steps": STEPS, "publish_every_steps": interval},
            "worker": {"count": workers, "chunk_size": 100, "pull_every_chunks": 1},
            "cluster": {
                "kind": "simulated",
                "clock": {
                    "step_seconds": 0.01,
                    "examples_per_second": SIZE / (0.01 * COSTS.scoring.seconds),
                    **dict.fromkeys(("publish_seconds", "refresh_seconds", "pull_seconds", "push_seconds"), 0.0),
                },
            },
        },
        "a test",
    )
    scored_at: list[tuple[Refreshed, Float64s]] = []  # each proposal, and the step that its norms' parameters are of
    ages: list[Float64s] = []
    refreshed, draw = ISSGD.refreshed, ISSGD.draw

    def noting(self: ISSGD, table: Table) -> Refreshed:
        found, versions = refreshed(self, table), np.repeat(table.versions, table.counts)
        scored_at.append((found, np.asarray((versions - 1) * interval, np.float64)))
        return found

    def drawing(self: ISSGD, step: int, size: int, looked: Seen | None = None) -> Drawn:
        drawn = draw(self, step, size, looked)
        assert self.blocks is not None
        if step > WARM:
            ages.extend(step - at for found, at in scored_at if found.proposal is self.blocks.proposal)
        return drawn

    monkeypatch.setattr(ISSGD, "refreshed", noting)
    monkeypatch.setattr(ISSGD, "draw", drawing)
    folder = RunFolder(tmp_path / "run" / "seed-000")
    for place in (folder.logs, folder.checkpoint.parent, folder.audits):
        place.mkdir(parents=True)
    folder.update_manifest(state="running")
    cluster.run(config, folder, Problem(config, tiny), lambda snapshot: None, threading.Event())

    trial, random = made(staying), np.random.default_rng(0)
    ways = Ways(trial, [Moment(trial, step) for step in trial.moments], config)
    sweep = ways.served(workers).sweep_steps
    assert sweep is not None
    predicted, found = ways.since_scored(200_000, sweep, interval, block, random), np.concatenate(ages)
    assert predicted.mean() == pytest.approx(found.mean(), rel=0.03)
    quantiles = [0.05, 0.5, 0.95]
    assert np.quantile(predicted, quantiles) == pytest.approx(np.quantile(found, quantiles), abs=4)
