"""The staleness map: schedules against the real table, cells against the equations, files that are not made twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import Master
from issgd_cli.actors.worker import Worker
from issgd_cli.config.config import Config
from issgd_cli.config.sections import Clock, StalenessMap
from issgd_cli.database import SPLITS, Layout, Weights
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations import alain2015 as equations
from issgd_cli.errors import ConfigError
from issgd_cli.experiments import experiment, staleness_map
from issgd_cli.experiments.staleness_map import Trajectory, cells
from issgd_cli.methods.method import Method, Refreshed
from issgd_cli.methods.proposal import proposal
from issgd_cli.methods.table import Table
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.clock import deaths, durations, resolved
from issgd_cli.simulation.schedule import Schedule, _Notebook, schedule
from issgd_cli.simulation.virtual import VirtualTime

Configured = Callable[..., Config]
NewFolder = Callable[[str], RunFolder]

LAYOUT = Layout(95, 5, 23, 10)
CLOCK = ("step_seconds=0.01", "examples_per_second=500.0", "latency_seconds=0.001", "bytes_per_second=1e9")
SIMULATED = ["cluster.kind=simulated", *(f"cluster.clock.{item}" for item in CLOCK)]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(
    "constants",
    [
        [],
        ["cluster.clock.publish_seconds=0.07", "cluster.clock.dies={0=0.4}"],
        # A round that ends within the step before an audit: what it brings is in use from the step after on.
        ["cluster.clock.publish_seconds=0.034", "cluster.clock.refresh_seconds=0.004"],
        ["cluster.clock.publish_seconds=0.03", "cluster.clock.refresh_seconds=0.01"],
    ],
)
def test_a_schedule_is_what_the_real_actors_table_goes_through(
    data: Prepared,
    configured: Configured,
    new_folder: NewFolder,
    workers: int,
    constants: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same cluster with real training and scoring: of which version each chunk's norms in use are."""
    settings = ["master.publish_every_steps=4", "master.steps=60", "monitor.audit_every_steps=8"]
    settings += ["master.mode=relaxed", "proposal.limit_mode=fill", f"worker.count={workers}"]
    config = configured(*settings, *SIMULATED, *(constants if workers else []))
    clock = resolved(config.cluster.clock, LAYOUT.train, Clock)
    found = schedule(config, Problem(config, data), LAYOUT, clock)

    time = VirtualTime(config, durations(clock), deaths=deaths(clock))
    database = time.database = _Notebook(lambda: time.now)
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    master = Master.of(config, Problem(config, data), database, new_folder("real"), torch.device("cpu"))
    refreshed = master.method.refreshed

    def looking(table: Table) -> Refreshed:
        found = refreshed(table)
        records[id(found)] = table.workers
        return found

    records: dict[int, Weights] = {}
    monkeypatch.setattr(master.method, "refreshed", looking)
    seen: dict[int, Weights] = {}

    def audit(learner: Learner, method: Method, passes: float) -> None:
        seen[learner.step] = records[id(method.in_use)]

    monkeypatch.setattr(master.saving, "audit", audit)
    life = time.add("master", master)
    for index in range(workers):
        time.add(f"worker-{index}", Worker.of(config, Problem(config, data), database, master.examples.device))
    while not life.over:
        time.turn()
    del seen[60]  # the last step's, which is none of the map's
    assert list(found.steps) == sorted(seen)
    for step, now, before in zip(found.steps, found.scored_at, found.previous_at, strict=True):
        assert [database.step_of[version] for version in seen[step].versions.tolist()] == now.tolist()
        assert [database.step_of[version] for version in seen[step].previous_versions.tolist()] == before.tolist()
    assert (found.scored_at >= 0).any() == (workers > 0)
    assert found.since(16).steps == found.steps[2:]


def test_cells_are_eq_6_with_the_looked_up_weights() -> None:
    layout = Layout(5, 1, 1, 2)
    random = np.random.default_rng(0)
    norms = {step: random.exponential(1.0, 5).astype(np.float32) for step in (0, 4, 8)}
    path = Trajectory(norms, {8: 0.01})
    one = Schedule(1, 4, (8,), np.array([[4, 0, -1]]), np.array([[0, -1, -1]]))
    (cell,) = cells(path, one, layout, [0.5])
    table = np.array([norms[4][0], norms[4][1], norms[0][2], norms[0][3], 0.0])
    weights = proposal(table, np.array([True] * 4 + [False]), 0.5, "fill", 0.0).weights
    squared = norms[8].astype(np.float64) ** 2
    assert cell.in_use == pytest.approx(equations.trace_of_covariance(squared, weights, 0.01))
    assert cell.ideal == pytest.approx(equations.ideal_trace(squared, 0.01))
    assert cell.uniform == pytest.approx(equations.uniform_trace(squared, 0.01))
    assert cell.mean_age_steps == pytest.approx((4 * 2 + 8 * 2) / 4)
    assert (cell.smoothing, cell.step) == ("+0.5", 8)


def test_variance_optimal_learns_from_the_pairs_that_the_table_would_hold() -> None:
    """Norms that a version's age turns upside down: uniform draws are best."""
    layout = Layout(4, 1, 1, 2)
    path = Trajectory(
        {
            0: np.array([9, 1, 9, 1], np.float32),
            4: np.array([1, 9, 1, 9], np.float32),
            8: np.array([9, 1, 9, 1], np.float32),
        },
        {8: 0.0},
    )
    swapped = Schedule(1, 4, (8,), np.array([[4, 4]]), np.array([[0, 0]]))
    optimal, none = cells(path, swapped, layout, ["variance-optimal", 0.0])
    assert optimal.in_use == pytest.approx(optimal.uniform)
    assert none.in_use > none.uniform


def test_no_weights_are_uniform_draws() -> None:
    path = Trajectory({8: np.array([1, 2, 3, 4], np.float32)}, {8: 0.5})
    one = Schedule(0, 4, (8,), np.array([[-1, -1]]), np.array([[-1, -1]]))
    (cell,) = cells(path, one, Layout(4, 1, 1, 2), [0.0])
    assert cell.in_use == pytest.approx(cell.uniform)
    assert np.isnan(cell.mean_age_steps)


def test_intervals_that_the_trajectory_has_no_norms_for_are_refused() -> None:
    values = {"workers": [1], "smoothings": [0.0], "steps": 640, "audit_every_steps": 64}
    StalenessMap.model_validate({**values, "publish_every_steps": [32, 64]})
    with pytest.raises(ValueError, match="multiples of the shortest"):
        StalenessMap.model_validate({**values, "publish_every_steps": [32, 48]})
    with pytest.raises(ValueError, match="adds no constant"):
        StalenessMap.model_validate({**values, "publish_every_steps": [32], "smoothings": [1.0, "second-moment"]})


def test_the_map_of_an_experiment_is_one_file_a_setting_and_seed_made_once(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.experiments.staleness_map.dataset_of", lambda config: data)
    file = tmp_path / "tiny.toml"
    file.write_text(
        f"""seeds = "0-1"
data.name = "{data.name}"
model.hidden = [7]
worker.chunk_size = 10
master.steps = 40
cluster.kind = "simulated"
proposal.limit_mode = "fill"
[map]
workers = [0, 2]
publish_every_steps = [4, 8]
smoothings = [1.0]
steps = 40
audit_every_steps = 8
audit_from_step = 8
"""
    )
    plan = experiment.read(file)
    assert plan.map is not None
    wanted = staleness_map.parts(plan, tmp_path, None, {})
    assert [(part.setting, part.seed) for part in wanted] == [("", 0), ("", 1)]
    said: list[str] = []
    staleness_map.compute(wanted, plan.map, said.append)
    text = wanted[0].path.read_text()
    assert len(text.splitlines()) == 1 + 2 * 2 * 5  # steps 8, 16, ..., 40
    assert text != wanted[1].path.read_text()
    said.clear()
    staleness_map.compute(wanted, plan.map, said.append)
    assert not said
    wanted[1].path.unlink()
    staleness_map.compute(wanted, plan.map, said.append)
    assert not any("seed 0" in words for words in said)
    file.write_text(file.read_text().replace("smoothings = [1.0]", "smoothings = [-1.0]"))
    with pytest.raises(ConfigError, match=r"\[map\]"):
        experiment.read(file)


def test_settings_of_different_datasets_or_clusters_need_maps_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(
        """cluster.kind = "simulated"
master.steps = 40
settings = [{name = "one", worker.chunk_size = 10}, {name = "two", worker.chunk_size = 20}]
[map]
workers = [1]
publish_every_steps = [4]
smoothings = [1.0]
steps = 40
audit_every_steps = 8
"""
    )
    with pytest.raises(ConfigError, match="share their schedules"):
        staleness_map.parts(experiment.read(file), tmp_path, None, {})
