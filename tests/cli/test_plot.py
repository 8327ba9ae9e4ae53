"""`issgd plot`: the same verdicts from a pack as from the runs, and the page shown where there is a screen."""

import json
import shutil
import sys
import webbrowser
from pathlib import Path

import pytest

from issgd_cli import cli
from issgd_cli.claims import as_json, findings, load
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import weighed
from issgd_cli.cli import plot
from issgd_cli.figures import outputs
from tests.figures.conftest import write_runs


def issgd(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["issgd", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


@pytest.mark.long  # all figures twice
def test_from_a_pack_everything_is_made_again_without_the_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path / "results", range(1), settings=("a",), events=True)
    first, again = tmp_path / "first", tmp_path / "again"
    issgd(monkeypatch, "plot", tmp_path / "results/quick", "--pack", "--out", first)
    shutil.rmtree(tmp_path / "results")
    again.mkdir()
    shutil.copy(first / "traces.tar.gz", again)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    issgd(monkeypatch, "plot", again, "--open")
    assert f"Open {again / 'report.html'} in a browser" in capsys.readouterr().out
    made = {path.name for path in first.iterdir()}
    assert {path.name for path in again.iterdir()} == made >= {"claims.json", "report.html", "figure-1.png"}
    told = {name for name in made if not name.startswith(("figure", "staleness")) or not name.endswith(".json")}
    for name in told:  # a figure's own JSON names the command
        assert (again / name).read_bytes() == (first / name).read_bytes(), name


@pytest.mark.parametrize(
    ("what", "more", "said"),
    [
        (("quick.toml", "quick"), (), "either files or folders"),
        (("quick", "crossed"), ("--out", "there"), "Name one folder"),  # the second would overwrite the first
    ],
)
def test_what_cannot_be_shown_together_is_refused(
    what: tuple[str, ...],
    more: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["issgd", "plot", *what, *more])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert said in capsys.readouterr().err


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was asked to show."""
    addresses: list[str] = []

    def show(address: str) -> bool:
        addresses.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return addresses


def test_the_report_is_shown_in_the_browser(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    plot.show(tmp_path / "a report.html")
    assert opened == [f"file://{tmp_path}/a%20report.html"]
    assert capsys.readouterr().out == ""


def test_without_a_display_the_report_is_named(
    opened: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot.show(tmp_path / "report.html")
    assert opened == []
    assert f"Open {tmp_path / 'report.html'} in a browser." in capsys.readouterr().out


def test_a_browser_that_does_not_open_is_told_likewise(
    monkeypatch: pytest.MonkeyPatch, opened: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    plot.show(tmp_path / "report.html")
    assert "report.html in a browser." in capsys.readouterr().out


def test_claims_stand_beside_the_references_as_far_as_they_are_of_the_same_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = load(write_runs(tmp_path / "results"))
    verdicts = weighed(findings(runs, Thresholds()))
    content = as_json(verdicts, runs)
    there = tmp_path / "reference" / "quick"
    there.mkdir(parents=True)
    monkeypatch.setattr(plot, "REFERENCE", there.parent)

    def told() -> str:
        (there / "claims.json").write_text(json.dumps(outputs.finite(content)))
        plot._beside_reference(verdicts, runs, tmp_path)
        return capsys.readouterr().out

    same = told()
    assert same.count("  agrees") == 11
    assert "other runs" not in same
    by_id = {claim["id"]: claim for claim in content["claims"]}
    by_id["C2"]["verdict"] = "fails"
    by_id["C3"]["folders"] = ["a-issgd-00000000"]
    changed = told()
    assert changed.count("  agrees") == 9
    assert "DIFFERS" in changed
    assert "The reference is of other runs than these (only there: a-issgd-00000000; only here: " in changed
    assert "so that C3 cannot be compared." in (tmp_path / "reference.md").read_text()
