"""How a run's end is told, whatever it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issgd_cli.clusters import local
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.experiments import run as training
from issgd_cli.runs.folder import RunFolder


@pytest.fixture
def fails(
    monkeypatch: pytest.MonkeyPatch, configured: Callable[..., Config], data: Prepared, tmp_path: Path
) -> Callable[[BaseException], RunFolder]:
    """Does a run that fails of an error; its folder."""

    def of(error: BaseException) -> RunFolder:
        def run(*arguments: Any) -> None:
            raise error

        monkeypatch.setattr(local, "run", run)
        monkeypatch.setattr(training, "dataset_of", lambda config: data)
        folder = RunFolder(tmp_path / "run" / "seed-000")
        training.train(configured(), folder, command=["test"])
        return folder

    return of


def test_what_the_system_refuses_is_told_with_what_to_do(fails: Callable[[BaseException], RunFolder]) -> None:
    with pytest.raises(RunError, match=r"^/proc/x cannot be used: No space left on device\. See to it, .*--resume"):
        fails(OSError(28, "No space left on device", "/proc/x"))


def test_a_manifest_that_cannot_be_written_hides_no_failure(
    fails: Callable[[BaseException], RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = RunFolder.update_manifest

    def full(self: RunFolder, **values: object) -> None:
        if values.get("state") == "failed":
            raise RunError("manifest.json cannot be written")
        update(self, **values)

    monkeypatch.setattr(RunFolder, "update_manifest", full)
    with pytest.raises(RunError, match="the true reason"):
        fails(RunError("the true reason"))
