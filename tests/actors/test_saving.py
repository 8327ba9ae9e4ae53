"""What a master saves: checkpoints of good numbers and unchanged data, versions kept free, and audit points."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors import saving
from issgd_cli.actors.actor import Actor, Operation
from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets import prepared
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DataError, RunError
from issgd_cli.problem import Problem
from issgd_cli.runs.audits import load_audit
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder
from tests.masters import Hired, refresh, relaxed, report, score_chunk, score_everything, train

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]
Play = Callable[..., list[tuple[Actor, Operation]]]


@pytest.mark.parametrize("vector", ["parameters", "momentum"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_checkpoint_never_holds_what_is_no_number(
    hired: Hired, configured: Configured, vector: str, value: float
) -> None:
    master = hired(relaxed(configured))
    score_everything(master.database, 1)
    refresh(master)
    train(master)
    master.checkpoint(master.database.seconds())
    before = master.saving.folder.checkpoint.read_bytes()
    train(master)
    vectors = {"parameters": master.learner.parameters, **master.learner.optimizer.vectors}
    vectors[vector][17] = value
    good = master.saving.folder.checkpoint
    with pytest.raises(
        RunError, match=rf"{vector}.* not finite after step 2 .*weight.*last good checkpoint is {good}\."
    ):
        master.checkpoint(master.database.seconds())
    master.stop()  # an interrupt: nothing to save
    assert good.read_bytes() == before
    assert not list(good.parent.glob("*.partial"))


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_no_checkpoint_is_saved_that_may_be_of_changed_data(
    configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, data: Prepared, tmp_path: Path, what: str
) -> None:
    place = tmp_path / "data"
    shutil.copytree(data.directory, place)
    shutil.copytree(data.directory, tmp_path / "copy")
    config = relaxed(
        configured, "master.steps=12", "master.publish_every_steps=2", "master.checkpoint_every_seconds=1e-6"
    )
    database, folder = begun(config), new_folder("run")
    master = Master.of(config, Problem(config, prepared.load(place)), database, folder, CPU)
    path = place / "test-images.npy"

    def spoilt(actor: Actor, operation: Operation) -> bool:
        if operation.name == "train" and master.learner.step == 9:
            path.unlink() if what == "removed" else path.touch()
        return False

    with pytest.raises(DataError, match=rf"test-images\.npy has been {what} since .*--resume"):
        play(master, until=spoilt)
    assert not folder.parameters.exists()
    assert database.get("finished") is None
    checkpoint = load_checkpoint(folder.checkpoint)
    assert 0 < checkpoint.step < 10

    shutil.rmtree(place)
    (tmp_path / "copy").rename(place)
    again = begun(config)
    again.begin(again.layout(), checkpoint.seconds, checkpoint.records)
    resumed = Master.of(config, Problem(config, prepared.load(place)), again, folder, CPU, checkpoint)
    play(resumed)
    assert again.get("finished") is not None


@pytest.mark.slow
def test_a_relaxed_run_goes_on_above_every_version_that_may_have_been_issued(
    data: Prepared,
    configured: Configured,
    begun: Begun,
    new_folder: NewFolder,
    play: Play,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(saving, "RESERVED_VERSIONS", 150)
    config = relaxed(configured, "master.steps=1000000", "master.publish_every_steps=1")
    folder, database = new_folder("run"), begun(config)
    master = Master.of(config, Problem(config, data), database, folder, CPU)
    issued: list[int] = []

    def until(actor: Actor, operation: Operation) -> bool:
        if operation.name == "publish":
            issued.append(operation.version)
            score_chunk(database, 0, operation.version - 1, 1.0)
        return len(issued) == 200

    play(master, until=until)  # long enough to pass the versions that the first checkpoint reserved
    resumed = Master.of(config, Problem(config, data), database, folder, CPU, load_checkpoint(folder.checkpoint))
    assert resumed.publishing.version > max(issued)
    assert resumed.learner.step <= master.learner.step


def test_a_relaxed_masters_weights_keep_their_age_in_versions_when_it_is_resumed(
    hired: Hired, configured: Configured, begun: Begun, data: Prepared
) -> None:
    config = relaxed(configured, "proposal.staleness_limit_versions=2", "proposal.minimum_usable_fraction=0")
    master = hired(config)
    database: Any = master.database
    for number in range(5):
        score_chunk(database, number, number + 1, 1.0)
    master.publishing.version, master.learner.step = 6, 15  # version 5 was published last
    refresh(master)
    master.checkpoint(database.seconds())
    checkpoint = load_checkpoint(master.saving.folder.checkpoint)
    again = begun(config)
    again.begin(again.layout(), checkpoint.seconds, checkpoint.records)
    resumed = Master.of(config, Problem(config, data), again, master.saving.folder, CPU, checkpoint)
    refresh(resumed)
    np.testing.assert_array_equal(resumed.method.proposal.weights, master.method.proposal.weights)
    assert report(resumed)["staleness/mean_versions"] == report(master)["staleness/mean_versions"]


def test_audit_points_are_saved_at_step_0_on_the_way_and_at_the_end(
    hired: Hired, configured: Configured, play: Play
) -> None:
    master = hired(relaxed(configured, "master.steps=7", "monitor.audit_every_steps=2"))
    start = master.learner.parameters.clone().numpy()
    play(master)
    points = [load_audit(path) for path in sorted(master.saving.folder.audits.glob("step-*.npz"))]
    assert [point.step for point in points] == [0, 2, 4, 6, 7]
    np.testing.assert_array_equal(points[0].parameters, start)
    np.testing.assert_array_equal(points[-1].parameters, master.learner.parameters.numpy())
    np.testing.assert_array_equal(points[-1].weights, master.method.proposal.weights)
    assert np.isnan(points[0].previous).all()  # nothing was ever scored
