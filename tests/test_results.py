"""The index of results says of each experiment what its claims.json says, and every figure is there with its runs."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "results"
EXPERIMENTS = sorted(path.parent.name for path in (RESULTS / "reference").glob("*/claims.json"))


def row_of(name: str) -> str:
    """The experiment's row of the index, from its claims.json."""
    claims = json.loads((RESULTS / "reference" / name / "claims.json").read_text())["claims"]
    columns = [
        ", ".join(claim["id"] for claim in claims if claim["verdict"] == verdict) or "-"
        for verdict in ("holds", "fails", "undecided", "untestable")
    ]
    return " | ".join(columns) + " |"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_index_tells_the_verdicts_of_claims_json(name: str) -> None:
    lines = (RESULTS / "README.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith("| [") and f"(reference/{name}/" in line]
    assert row.endswith(row_of(name)), row_of(name)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_figure_names_its_runs_and_no_machine(name: str) -> None:
    folder = RESULTS / "reference" / name
    figures = sorted(folder.glob("figure-*.json"))
    assert len(figures) >= 4
    for path in figures:
        figure = json.loads(path.read_text())
        assert figure["command"][0] == "issgd"
        assert all(len(run["sha256"]["trace.csv"]) == 64 for run in figure["runs"])
    manifests = json.loads((folder / "manifests.json").read_text())
    assert all(manifest["state"] == "finished" for manifest in manifests.values())


def test_no_reference_file_names_a_folder_of_the_machine_that_it_was_made_on() -> None:
    files = sorted((RESULTS / "reference").glob("*/*.json"))
    assert files
    assert not [path for path in files if '"/' in path.read_text()]


def test_what_is_no_experiment_is_indexed_too() -> None:
    index = (RESULTS / "README.md").read_text()
    others = {path.name for path in (RESULTS / "reference").iterdir()} - set(EXPERIMENTS)
    assert not [name for name in others if f"(reference/{name}/README.md)" not in index]
