"""Everything that an experiment leaves: the files, the same bytes each time, their provenance, the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest

from issgd_cli.claims import Runs, load
from issgd_cli.errors import RunError
from issgd_cli.figures import outputs, report
from issgd_cli.runs.folder import RunFolder, hash_of

COMMAND = ["issgd", "plot", "quick"]

pytestmark = pytest.mark.slow  # figures are drawn


@pytest.fixture(scope="module")
def written(experiment: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    paths, _ = outputs.write_all(experiment, out, command=COMMAND)
    assert sorted(paths) == sorted(out.iterdir())
    return out


def test_all_files_are_written(written: Path) -> None:
    figures = ["figure-1", *(f"figure-{number}{kind}" for number in (2, 3, 4) for kind in ("", "-audit"))]
    expected = [f"{figure}.{kind}" for figure in figures for kind in ("png", "pdf", "json")]
    expected += ["table-1.md", "table-1.csv", "claims.json", "manifests.json", "report.md", "report.html"]
    assert {path.name for path in written.iterdir()} == set(expected)


def test_the_same_runs_give_the_same_bytes(experiment: Runs, written: Path, tmp_path: Path) -> None:
    outputs.plot_experiment(experiment, tmp_path, "steps", command=COMMAND)
    for name in ("figure-1.pdf", "figure-2.png", "figure-2.pdf", "figure-4-audit.png", "figure-3.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_each_figure_says_which_runs_it_is_made_of(experiment: Runs, written: Path) -> None:
    content = json.loads((written / "figure-2.json").read_text())
    assert content["command"] == COMMAND
    assert (content["axis"], content["source"], content["interval"]) == ("steps", "database", False)
    assert content["hardware"] == [{"system": "Linux", "cpu": "Example CPU", "cores": 2}]
    assert len(content["runs"]) == 12
    first = content["runs"][0]
    assert first["path"] == experiment.runs[0].name
    assert first["state"] == "finished"
    assert first["sha256"]["trace.csv"] == hash_of(RunFolder(experiment.runs[0].path).trace)
    assert len(json.loads((written / "figure-4.json").read_text())["runs"]) == 6  # ISSGD's


def test_no_file_names_the_machines_folders(experiment: Runs, written: Path) -> None:
    place = str(experiment.runs[0].path.parents[2])
    for path in written.iterdir():
        assert place.encode() not in path.read_bytes(), path.name


def test_figure_1_finds_its_runs_by_mode(make_run: Callable[..., RunFolder]) -> None:
    exact = make_run("a", events=True, mode="exact")
    relaxed = make_run("b", events=True)
    found = outputs.found_timelines(load([exact, relaxed]))
    assert found == {"exact": exact, "relaxed": relaxed}


def test_figure_1_takes_any_method_that_draws_by_scores_and_the_papers_first(
    make_run: Callable[..., RunFolder],
) -> None:
    sgd, ours = make_run("a", "sgd", events=True), make_run("a", "issgd-optimal", events=True)
    assert outputs.found_timelines(load([sgd, ours]))["relaxed"] == ours
    papers = make_run("a", "issgd", events=True)
    assert outputs.found_timelines(load([sgd, ours, papers]))["relaxed"] == papers


def test_claims_are_json_without_infinities(written: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    content = json.loads((written / "claims.json").read_text(), parse_constant=refuse)
    assert [claim["id"] for claim in content["claims"]] == [f"C{number}" for number in range(1, 12)]
    assert {claim["verdict"] for claim in content["claims"]} <= set(report.MARKS)
    assert {"p", "brief", "evidence", "sensitivity", "values"} <= set(content["claims"][0])
    assert content["thresholds"]["visible"]["value"] == 0.02
    assert content["runs"] == "12 of 12 runs finished, 0 failed, 0 missing"


def test_the_report_links_figures_that_exist_and_tells_every_claim(written: Path) -> None:
    text = (written / "report.md").read_text()
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert len(links) == 7
    assert all((written / link).exists() for link in links)
    rows = [line for line in text.splitlines() if line.startswith("| C")]
    assert len(rows) == 11
    assert all(row.replace("\\|", "").count("|") == 7 for row in rows)
    assert [line.split(".")[0] for line in text.splitlines() if line.startswith("### ")] == [
        f"### C{number}" for number in range(1, 12)
    ]
    assert "12 of 12 runs finished, 0 failed, 0 missing" in text
    assert "house-numbers (19,000 train, 1,000 valid, 4,000 test)" in text
    assert "Example CPU, 2 cores" in text
    assert "10.4 minutes of runs in all" in text
    assert "Seeds: 3, the paper has 50." in text


def test_the_report_names_runs_that_failed_and_why(
    make_run: Callable[..., RunFolder], tmp_path: Path, unrendered: None
) -> None:
    folders = [make_run("a", "issgd", 0), make_run("a", "sgd", 0, state="failed", until=100)]
    outputs.write_all(load(folders, expected=4), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "1 of 4 runs finished, 1 failed, 2 missing" in text
    assert "failed (worker-1: out of memory)" in text


def test_without_runs_there_is_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="issgd reproduce"):
        outputs.write_all(Runs("quick", (), 12), tmp_path)


def test_plotting_leaves_matplotlibs_settings_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    outputs.plot_timelines({"exact": None, "relaxed": None}, tmp_path)
    assert dict(mpl.rcParams) == before


def test_one_run_is_plotted_into_its_own_folder(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run()
    paths = outputs.plot_run(folder)
    assert [path.name for path in paths] == ["run.png", "run.pdf", "run.json"]
    assert all(path.parent == folder.path for path in paths)


def test_two_configurations_of_one_setting_are_never_mixed(make_run: Callable[..., RunFolder]) -> None:
    folders = [make_run("a", "issgd", 0), make_run("a", "issgd", 0, overrides={"smoothing": 2.0})]
    with pytest.raises(RunError, match="2 configurations"):
        load(folders)


def test_a_run_without_a_setting_is_read_by_its_folders_name(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run("a", "issgd-variance-optimal", 0)
    folder.update_manifest(setting="", method=None)
    assert load([folder]).runs[0].setting == ""
    manifest = json.loads(folder.manifest.read_text())
    del manifest["setting"], manifest["method"]
    folder.manifest.write_text(json.dumps(manifest))
    shutil.move(folder.path.parent, folder.path.parents[1] / "left-issgd-12345678")
    assert load([RunFolder(folder.path.parents[1] / "left-issgd-12345678" / "seed-000")]).runs[0].setting == "left"
