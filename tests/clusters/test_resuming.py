"""Where a run goes on from, and what is cut back to it."""

from collections.abc import Callable

import pytest

from issgd_cli.clusters import resuming
from issgd_cli.config.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import Checkpoint, save_checkpoint
from issgd_cli.runs.folder import RunFolder

Configured = Callable[..., Config]
NewFolder = Callable[[str], RunFolder]
CheckpointOf = Callable[[Config, int], Checkpoint]


def test_a_run_begins_without_a_checkpoint_unless_it_had_one(new_folder: NewFolder) -> None:
    folder = new_folder("run")
    notices: list[str] = []
    assert resuming.last_checkpoint(folder, notices) is None
    folder.update_manifest(state="running")
    assert resuming.last_checkpoint(folder, notices) is None
    folder.update_manifest(checkpointed=True)
    with pytest.raises(RunError, match=r"checkpoint\.npz is gone"):
        resuming.last_checkpoint(folder, notices)
    assert notices == []


def test_a_run_is_not_gone_on_with_on_other_data(new_folder: NewFolder, data: Prepared) -> None:
    folder = new_folder("run")
    resuming.refuse_other_data(folder, data)
    folder.update_manifest(state="interrupted", dataset={"fingerprint": data.fingerprint, "files": data.stamps})
    resuming.refuse_other_data(folder, data)
    folder.update_manifest(dataset={"fingerprint": "another"})
    with pytest.raises(RunError, match="was run on other data: patterns has been prepared anew"):
        resuming.refuse_other_data(folder, data)


def test_database_and_folder_are_set_back_to_the_checkpoint(
    new_folder: NewFolder, configured: Configured, data: Prepared, checkpoint_of: CheckpointOf
) -> None:
    folder, config, database = new_folder("run"), configured(), MemoryDatabase(lambda: 100.0)
    folder.trace.write_text("step,seconds,quantity,value\n3,0.3,loss/train,1.0\n6,0.6,loss/train,0.5\n")
    for step in (3, 6):
        (folder.audits / f"step-{step:07d}.npz").touch()
    resuming.set_back(database, folder, config, Problem(config, data), checkpoint_of(config, 5))
    assert folder.trace.read_text().splitlines()[1:] == ["3,0.3,loss/train,1.0"]
    assert [path.name for path in folder.audits.iterdir()] == ["step-0000003.npz"]
    assert database.seconds() == 0.5
    assert database.get("work") == {"before": {"work/examples_trained": 40.0}}
    description = database.get("description") or {}
    assert description["resumed"] is True
    assert description["dataset"] == data.fingerprint


@pytest.mark.parametrize(("mode", "raised"), [("exact", False), ("relaxed", True)])
def test_a_lost_checkpoints_versions_are_not_given_again(
    mode: str,
    raised: bool,
    new_folder: NewFolder,
    configured: Configured,
    checkpoint_of: CheckpointOf,
) -> None:
    folder, config = new_folder("run"), configured(f"master.mode={mode}")
    save_checkpoint(folder.checkpoint, checkpoint_of(config, 3))
    notices: list[str] = []
    sound = resuming.renumbered_checkpoint(folder, config, notices)
    assert (sound and sound.version, notices) == (4, [])
    save_checkpoint(folder.checkpoint, checkpoint_of(config, 6))
    folder.checkpoint.write_bytes(b"damaged")
    older = resuming.renumbered_checkpoint(folder, config, notices)
    assert older is not None
    assert older.step == 3
    assert (older.version > 1000) is raised
    assert len(notices) == 1
    again = resuming.last_checkpoint(folder, [])
    assert again is not None
    assert again.version == older.version  # saved: one who resumes later starts there, too
