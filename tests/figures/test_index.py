"""The page of an experiment on several datasets: a link to each one's report, and their verdicts in columns."""

from collections.abc import Callable
from pathlib import Path

from issgd_cli.claims import Runs, judge, load
from issgd_cli.figures import index
from issgd_cli.runs.folder import RunFolder


def test_the_verdicts_of_the_datasets_stand_side_by_side(make_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    judged = {}
    for dataset, settings in (("mnist", "ab"), ("cifar10", "a")):
        runs = load([make_run(one, method, dataset=dataset) for one in settings for method in ("issgd", "sgd")])
        judged[dataset] = runs, judge(runs)
    path = index.write({**judged, "svhn": (Runs("", (), 4), [])}, tmp_path)
    text = path.read_text()
    assert path == tmp_path / "report.md"
    assert text.startswith("# quick: ")
    assert "- [mnist](mnist/report.md): 4 of 4 runs finished" in text
    assert "- svhn: 0 of 4 runs finished, 0 failed, 4 missing." in text  # it has no report to link to
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["", "The paper says", "mnist", "cifar10"]
    columns = [[verdict.verdict for verdict in verdicts] for _, verdicts in judged.values()]
    assert [row[2:] for row in rows[2:]] == [list(both) for both in zip(*columns, strict=True)]
    assert columns[0] != columns[1]
    assert [row[0] for row in rows[2:]] == [f"C{number}" for number in range(1, 12)]


def test_data_by_another_name_than_the_datasets_are_told(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run(dataset="mnist")
    folder.update_manifest(dataset_label="digits")
    runs = load([folder])
    assert "- [digits](digits/report.md) (mnist): 1 of 1 runs finished" in index.page({"digits": (runs, judge(runs))})
