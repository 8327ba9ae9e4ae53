"""Trackio's database holds the trace."""

from pathlib import Path

import pytest

pytest.importorskip("trackio", reason="the extra `trackio` is not installed")

from issgd_cli.runs.folder import RunFolder
from issgd_cli.trackers import ready
from issgd_cli.trackers.following import show
from tests.rows import row, written


@pytest.mark.slow
def test_a_run_is_shown_whole(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from trackio import Api, sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    # Audits come last, at steps that were before.
    written(folder.trace, [row(0), row(5, value=0.25), row(0, "audit/loss/train", 0.75)])
    show(ready("trackio"), folder)
    (run,) = Api().runs("issgd-quick")
    assert run.name == f"{folder.path.parent.name}/{folder.path.name}"
    assert run.config is not None
    assert run.config["optimizer"]["learning_rate"] == 0.01
    points = sqlite_storage.SQLiteStorage.get_logs("issgd-quick", run.name, run_id=run.id)
    told = [(point["step"], point["seconds"], key, point[key]) for point in points for key in point if "/" in key]
    assert sorted(told) == [
        (0, 0.0, "audit/loss/train", 0.75),
        (0, 0.0, "loss/train", 0.5),
        (5, 0.5, "loss/train", 0.25),
    ]
