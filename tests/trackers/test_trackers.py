"""What is listed is there, or its error says what to install."""

import tomllib
from pathlib import Path

import pytest

from issgd_cli.errors import TrackerError
from issgd_cli.trackers import TRACKERS, ready
from issgd_cli.trackers.tracker import described
from tests.figures.conftest import write_run

ROOT = Path(__file__).parents[2]


def test_each_tracker_is_an_extra_that_brings_the_package_of_its_name() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in TRACKERS:
        (package,) = extras[name]
        assert package.partition(">=")[0] == name
        assert (ROOT / f"issgd_cli/trackers/{name}.py").exists()


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_tracker_whose_package_is_missing_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("issgd_cli.trackers.find_spec", lambda name: None)
    with pytest.raises(TrackerError, match=rf"^{name} is not installed: pip install 'issgd\[{name}\]'$"):
        ready(name)


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_package_that_cannot_be_loaded_is_told_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("issgd_cli.trackers.find_spec", lambda name: "a spec")
    monkeypatch.setattr(type(TRACKERS.parts[name]), "load", lambda part: 1 / 0)
    with pytest.raises(TrackerError, match=f"^{name} cannot be used: division by zero"):
        ready(name)


def test_nothing_of_the_database_is_told_to_a_tracker(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a", seed=3)
    told = described(folder)
    assert told["project"] == "issgd-quick"
    assert told["name"] == f"{told['group']}/seed-003"
    assert told["config"]["optimizer"]["learning_rate"] == 0.01
    assert "database" not in told["config"]
