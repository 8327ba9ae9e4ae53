"""The index of results says of each experiment what its claims.json says, and every figure is there with its runs.

`python -m tests.test_results` prints the index's tables of verdicts, one a paper, from the claims.json files.
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from issgd_cli.claims import PAPERS
from issgd_cli.claims.verdicts import DECIDING_SEEDS, Outcome


def natural(text: str) -> list[tuple[int, str]]:
    """A key by which 20k comes before 160k."""
    return [(int(digits or 0), other) for digits, other in re.findall(r"(\d+)|(\D+)", text)]


RESULTS = Path(__file__).parents[1] / "results"
REFERENCE = RESULTS / "reference"
# quick, or paper-simulated/cifar10: of an experiment that lists datasets each has a folder of its own.
EXPERIMENTS = {
    path.parent.relative_to(REFERENCE).as_posix(): json.loads(path.read_text())
    for path in sorted(REFERENCE.rglob("claims.json"), key=lambda path: natural(str(path)))
}
# equal-work, and other experiments that have a scoreboard.
BOARDS = {path.parent.name: json.loads(path.read_text()) for path in sorted(REFERENCE.rglob("board.json"))}
# Of which papers a report may tell.
PARTS_OF_PAPERS = [part for size in (1, 2) for part in itertools.combinations(PAPERS.values(), size)]
WORDS = {word for words in get_args(Outcome) for word in get_args(words)}
SAID = {"untestable": "-"}
# A number of the index, and after it where it is from, which a reader doesn't see: 0.66<!--quick: C6 / b / median-->
QUOTED = re.compile(r"(?P<number>[\d.]+)(?P<percent>%?)<!--(?P<name>[^:]+): (?P<place>.+?)-->")


def verdicts() -> list[list[str]]:
    """The index's tables, one a paper: a row an experiment, a column a claim."""
    tables = []
    for paper in PAPERS.values():
        rows = [["", "runs", *paper.finders], ["---"] * (2 + len(paper.finders))]
        for name, content in EXPERIMENTS.items():
            said = {claim["id"]: claim["verdict"] for claim in content["claims"]}
            if said.keys() >= paper.finders.keys():
                runs = content["runs"].partition(" runs")[0]
                words = [SAID.get(said[claim], said[claim]) for claim in paper.finders]
                rows.append([f"[{name}](reference/{name}/report.md)", runs, *words])
        tables.append([f"| {' | '.join(row)} |" for row in rows])
    return [table for table in tables if len(table) > 2]


def quoted(text: str) -> Iterator[tuple[str, float, float]]:
    """Each quoted number as it stands there, its value, and what claims.json, or board.json, has rounded."""
    for match in QUOTED.finditer(text):
        claim, *place = match["place"].split(" / ")
        board = BOARDS.get(match["name"], {})
        content = EXPERIMENTS.get(match["name"], {})
        found: Any
        if claim in board:  # target / task / method / ratio
            found = board[claim]
        elif claim == "others":  # other methods: others / setting / method / against
            keys, place = place[:3], place[3:]
            told = content["other_methods"]
            found = next(each for each in told if [each["setting"], each["method"], each["against"]] == keys)
            found = found["relative_difference"]
        else:
            found = next(each for each in content["claims"] if each["id"] == claim)["values"]
        for key in place:
            found = found[int(key)] if isinstance(found, list) else found[key]
        digits = len(match["number"].partition(".")[2])
        known = round(abs(float(found)) * (100 if match["percent"] else 1), digits)
        yield match[0], float(match["number"]), known


def test_the_index_holds_the_tables_of_verdicts() -> None:
    text = (RESULTS / "README.md").read_text()
    assert verdicts()
    for table in verdicts():
        assert "\n".join(["", *table, ""]) in text, "put in what `python -m tests.test_results` prints"


def test_the_numbers_that_the_index_quotes_are_those_of_claims_json() -> None:
    found = list(quoted((RESULTS / "README.md").read_text()))
    assert found
    for text, number, known in found:
        assert number == known, text


COUNTED = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def test_the_first_page_says_of_the_scoreboard_what_that_says() -> None:
    board = BOARDS["equal-work"]
    rows = [row["looking"] for row in board["training loss"].values()]
    won = sorted(row["ratio"] for row in rows if float(row["high"]) < 1)
    others = sorted(row["ratio"] for row in rows if float(row["high"]) >= 1)
    assert {row["seeds"] for row in rows} == {6}
    by_loss, by_validation = (
        "{ratio:.2f} ({low:.2f} to {high:.2f}".format(**board["over tasks"][target]["looking"])
        for target in ("training loss", "training loss, rates by validation")
    )
    told = (
        f"with {by_loss} over six seeds) of its work in the median of {COUNTED[len(rows)]} tasks, each method at the "
        f"learning rate of its lowest training loss: {won[0]:.2f} to {won[-1]:.2f} on {COUNTED[len(won)]} of them, "
        f"{others[0]:.2f} to {others[-1]:.2f} on the other {COUNTED[len(others)]}. At the rates that validate best it "
        f"is {by_validation})"
    )
    assert told in " ".join((RESULTS.parent / "README.md").read_text().split())


def test_a_quoted_number_that_is_another_is_noticed() -> None:
    name, content = next(iter(EXPERIMENTS.items()))
    claim = next(claim for claim in content["claims"] if claim["values"])
    first: Any = claim["values"]
    keys: list[str] = []
    while isinstance(first, dict | list):
        keys.append(next(iter(first)) if isinstance(first, dict) else "0")
        first = first[keys[-1]] if isinstance(first, dict) else first[0]
    place = f"<!--{name}: {' / '.join([claim['id'], *keys])}-->"
    right = f"{abs(float(first)):.2f}"
    ((_, number, known),) = quoted(f"it is {right}{place} so")
    assert number == known
    ((_, number, known),) = quoted(f"it is {float(right) + 0.01:.2f}{place} so")
    assert number != known


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_verdict_is_one_of_todays_and_could_have_been_reached(name: str) -> None:
    content = EXPERIMENTS[name]
    claims = [claim["id"] for claim in content["claims"]]
    assert claims in [[each for paper in some for each in paper.finders] for some in PARTS_OF_PAPERS]
    seeds = {path.split("/")[-1] for path in json.loads((REFERENCE / name / "manifests.json").read_text())}
    for claim in content["claims"]:
        assert claim["verdict"] in WORDS, claim["id"]
        if claim["verdict"] in ("holds", "fails"):
            assert claim["p"] < 0.05, claim["id"]
            assert len(seeds) >= DECIDING_SEEDS, claim["id"]
        if claim["verdict"] in ("untestable", "proved"):
            assert claim["p"] is None, claim["id"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_of_one_commit_and_the_index_names_those_beside_which_something_was_changed(name: str) -> None:
    manifests = json.loads((REFERENCE / name / "manifests.json").read_text()).values()
    assert len({manifest["git"]["commit"] for manifest in manifests}) == 1
    told = (RESULTS / "README.md").read_text().partition("figures of other experiments were made again")[0]
    told = told.rpartition("made by one commit.")[2]
    dirty = any(manifest["git"]["dirty"] for manifest in manifests)
    assert dirty == bool(re.search(rf"\b{name.partition('/')[0]}\b", told))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_figure_names_its_runs_and_no_machine(name: str) -> None:
    folder = REFERENCE / name
    figures = sorted(folder.glob("figure-*.json"))
    of_the_first_paper = any(claim["id"] == "C1" for claim in EXPERIMENTS[name]["claims"])
    assert len(figures) >= (4 if of_the_first_paper else 2)  # papers without workers have no figures 1 to 3
    for path in figures:
        figure = json.loads(path.read_text())
        assert figure["command"][0] == "issgd"
        assert all(len(run["sha256"]["trace.csv"]) == 64 for run in figure["runs"])
    for manifest in json.loads((folder / "manifests.json").read_text()).values():
        diverged = "not finite" in str((manifest["failure"] or {}).get("reason"))  # an outcome like any other
        assert manifest["state"] == "finished" or diverged


def test_no_reference_file_names_a_folder_of_the_machine_that_it_was_made_on() -> None:
    files = sorted(REFERENCE.rglob("*.json"))
    assert files
    assert not [path for path in files if '"/' in path.read_text()]


def test_what_is_no_experiment_is_indexed_too() -> None:
    index = (RESULTS / "README.md").read_text()
    others = {path.name for path in REFERENCE.iterdir()} - {name.partition("/")[0] for name in EXPERIMENTS}
    assert not [name for name in others if f"(reference/{name}/README.md)" not in index]


if __name__ == "__main__":
    print("\n\n".join("\n".join(table) for table in verdicts()))
