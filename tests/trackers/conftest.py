"""Pages that are empty before a test, and the folder of a run that has begun."""

from pathlib import Path

import pytest

from issgd_cli.runs.folder import RunFolder
from tests.figures.conftest import write_run
from tests.pages import Page


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """All pages of the test."""
    found: list[Page] = []
    monkeypatch.setattr(Page, "all", found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run without a trace."""
    folder = write_run(tmp_path / "results", state="interrupted", until=-1)
    folder.trace.unlink()
    return folder
