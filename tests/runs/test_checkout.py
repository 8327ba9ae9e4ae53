"""A checkout is dirty where what a run is made by is changed, not where results beside it are."""

import subprocess
from pathlib import Path

import pytest

from issgd_cli.runs import checkout as module
from issgd_cli.runs.checkout import checkout


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in a repository of its own, with a result beside it."""
    code, result = tmp_path / "package" / "checkout.py", tmp_path / "results" / "figure.txt"
    for path in (code, result):
        path.parent.mkdir()
        path.write_text("one\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(module, "__file__", str(code))
    return code


def test_a_changed_result_leaves_it_clean_and_changed_code_does_not(code: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=code.parent, capture_output=True, text=True, check=True)
    clean = {"commit": head.stdout.strip(), "dirty": False}
    assert checkout() == clean
    (code.parents[1] / "results" / "figure.txt").write_text("two\n")
    (code.parent / "new.py").write_text("not yet part of it\n")
    assert checkout() == clean
    code.write_text("two\n")
    assert checkout() == {**clean, "dirty": True}


def test_a_file_that_no_repository_knows_has_no_checkout(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(code.parent / "new.py"))
    assert checkout() is None
