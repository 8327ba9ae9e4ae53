"""What W&B is told without an account, and where its files go."""

import time

import pytest

pytest.importorskip("wandb", reason="the extra `wandb` is not installed")

from issgd_cli.runs.folder import RunFolder
from issgd_cli.trackers import ready
from issgd_cli.trackers.following import show
from tests.rows import row, written


@pytest.mark.slow
def test_a_run_is_shown_whole_in_files_of_its_folder(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    # Audits come last, at steps that were before.
    written(folder.trace, [row(0), row(5, value=0.25), row(0, "audit/loss/train", 0.75)])
    show(ready("wandb"), folder)
    (place,) = folder.path.glob("wandb/offline-run-*")
    (content,) = place.glob("run-*.wandb")
    wanted = [f"{folder.path.parent.name}/{folder.path.name}".encode(), b"issgd-quick", b"0.5", b"0.25", b"0.75"]
    end = time.monotonic() + 20
    while missing := [part for part in wanted if part not in content.read_bytes()]:
        assert time.monotonic() < end, missing  # a process of W&B's own writes it
        time.sleep(0.05)
    said = capfd.readouterr()
    assert "audit/loss/train" in said.out + said.err  # in its summary
