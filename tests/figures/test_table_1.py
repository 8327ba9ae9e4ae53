"""Table 1: the setting each method is shown in, its errors, and what it says of its sources."""

import csv
import dataclasses
import io
from collections.abc import Callable

import numpy as np
import pytest

from issgd_cli.claims import Runs, load
from issgd_cli.claims.generalisation import score
from issgd_cli.figures import table_1
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row

Change = Callable[[Row], Row | None]


def without_audits(row: Row) -> Row | None:
    return None if row.quantity.startswith("audit/") else row


def flat(valid: float, test: float) -> Change:
    """Errors that are the same at every record."""
    values = {"audit/error/valid": valid, "audit/error/test": test}
    return lambda row: row._replace(value=values.get(row.quantity, row.value))


def test_the_setting_is_chosen_by_validation_error_not_by_test_error(make_run: Callable[..., RunFolder]) -> None:
    runs = load(
        [
            *(make_run("a", "issgd", seed, change=flat(valid=0.2, test=0.1)) for seed in range(2)),
            *(make_run("b", "issgd", seed, change=flat(valid=0.1, test=0.3)) for seed in range(2)),
        ]
    )
    assert [(found.setting, found.test.values.mean()) for found in table_1.load(runs).chosen] == [("b", 0.3)]


def test_a_cell_without_a_number_is_empty(make_run: Callable[..., RunFolder]) -> None:
    runs = load([make_run(change=lambda row: None if "error/valid" in row.quantity else row)])
    table = table_1.load(runs)
    (row,) = [line for line in table_1.as_markdown(table).splitlines() if "(these runs)" in line]
    assert row.endswith("| one run |  | 1 of 1 |")
    (cells,) = [row for row in csv.DictReader(io.StringIO(table_1.as_csv(table))) if row["runs_found"]]
    assert (cells["valid_error"], cells["early_stopped_test_error"]) == ("", "")


def test_nothing_is_chosen_between_datasets(make_run: Callable[..., RunFolder]) -> None:
    runs = load([make_run(s, m, 0, change=flat(0.2 if s == "a" else 0.1, 0.1)) for s in "ab" for m in ("sgd", "issgd")])
    data = {"a": "cifar10", "b": "house-numbers"}
    of_two = [
        dataclasses.replace(
            run,
            config=run.config.model_copy(
                update={"data": run.config.data.model_copy(update={"name": data[run.setting]})}
            ),
        )
        for run in runs.runs
    ]
    table = table_1.load(dataclasses.replace(runs, runs=tuple(of_two)))
    assert [(found.setting, found.method) for found in table.chosen] == [
        ("a", "sgd"),
        ("a", "issgd"),
        ("b", "sgd"),
        ("b", "issgd"),
    ]
    assert "The settings are of 2 datasets; nothing is chosen between these." in table_1.as_markdown(table)


def test_the_papers_methods_have_their_names_whatever_their_labels(experiment: Runs) -> None:
    labels = {"issgd": "three-workers", "sgd": "baseline"}
    renamed = tuple(dataclasses.replace(run, method=labels[run.method]) for run in experiment.runs)
    table = table_1.load(dataclasses.replace(experiment, runs=renamed))
    assert table_1.as_markdown(table) == table_1.as_markdown(table_1.load(experiment))


def test_the_final_error_is_the_mean_over_the_last_tenth_of_the_records(experiment: Runs) -> None:
    found = score(experiment, "a", "issgd")
    assert found is not None
    values = experiment.of("a", "issgd")[0].series("audit/error/test").values
    assert len(values) == 13
    assert found.test.values[0] == values[-1]  # a tenth of 13 audits is one


def test_the_early_stopped_error_is_the_test_error_where_validation_was_best(
    make_run: Callable[..., RunFolder],
) -> None:
    def change(row: Row) -> Row:
        values = {"audit/error/valid": 0.1 if row.step == 500 else 0.2, "audit/error/test": row.step / 10000}
        return row._replace(value=values.get(row.quantity, row.value))

    found = score(load([make_run(change=change)]), "a", "issgd")
    assert found is not None
    assert found.early_stopped.values.tolist() == [0.05]


def test_the_papers_rows_stand_beside_ours(experiment: Runs) -> None:
    table = table_1.load(experiment)
    text = table_1.as_markdown(table)
    for number in ("0.0931", "0.0754", "0.0756", "9.31"):
        assert number in text
    assert text.index("SGD (these runs)") < text.index("Importance Sampling SGD (these runs)")
    assert f"{table.chosen[0].test.values.mean():.4f}" in text
    assert "3 of 3" in text
    assert "12 of 12 runs finished, 0 failed, 0 missing" in text


def test_every_group_is_in_the_csv_once(experiment: Runs) -> None:
    rows = list(csv.DictReader(io.StringIO(table_1.as_csv(table_1.load(experiment)))))
    ours = [row for row in rows if row["setting"]]
    assert len(ours) == 4
    assert sum(row["chosen"] == "1" for row in ours) == 2
    assert {row["records"] for row in ours} == {"audit"}
    sd = np.std([run.series("audit/error/test").values[-1] for run in experiment.of("a", "issgd")], ddof=1)
    assert float(ours[0]["test_error_sd"]) == pytest.approx(sd, abs=1e-6)


def test_database_records_are_named_where_there_are_no_audits(make_run: Callable[..., RunFolder]) -> None:
    table = table_1.load(load([make_run("a", "issgd", 0, change=without_audits), make_run("a", "sgd", 0)]))
    assert [found.source for found in table.scores] == ["database", "audit"]
    assert "not exact audits: a issgd." in table_1.as_markdown(table)


def test_unfinished_runs_are_told_and_not_averaged(make_run: Callable[..., RunFolder]) -> None:
    runs = load(
        [
            make_run("a", "sgd", 0),
            make_run("a", "sgd", 1, state="failed", until=500),
            make_run("b", "sgd", 0, state="failed"),
        ]
    )
    table = table_1.load(runs)
    text = table_1.as_markdown(table)
    assert [found.test.seeds for found in table.scores] == [(0,)]
    assert "1 of 2" in text
    assert "1 of 3 runs finished, 2 failed" in text
    assert "Without a finished run that recorded both errors: b sgd." in text
