"""Which runs are done: those that are asked for, at the settings that others have chosen."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from issgd_cli.claims.choice import chosen, why
from issgd_cli.claims.loading import load
from issgd_cli.errors import ConfigError
from issgd_cli.experiments import experiment as experiments
from issgd_cli.experiments.experiment import Experiment, Run
from issgd_cli.experiments.selection import parse_only, settled
from issgd_cli.runs import folder as folders
from issgd_cli.runs.folder import Measure
from issgd_cli.runs.traces import Row, TraceWriter

PLAN = """
seeds = "0-1"
choosing_seeds = "100-101"
master.steps = 10
cluster.kind = "alone"
[[settings]]
name = "slow"
optimizer.learning_rate = 0.001
[[settings]]
name = "fast"
optimizer.learning_rate = 0.01
[[methods]]
name = "reshuffled"
proposal.method = "reshuffled"
[[methods]]
name = "dlis"
proposal.method = "dlis"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Experiment:
    path = tmp_path / "contest.toml"
    path.write_text(PLAN)
    return experiments.read(path)


def finish(
    run: Run, results: Path, errors: list[float], losses: Sequence[float] = (), failure: dict[str, str] | None = None
) -> None:
    """As if it had been done, with these validation errors and training losses."""
    folder = run.folder(results)
    folders.begin(folder, run.config, [], resume=False)
    folder.update_manifest(**run.labels)
    trace = TraceWriter(folder.trace, Row._fields)
    for quantity, values in (("error/valid", errors), ("loss/train", losses)):
        trace.append([Row(step, float(step), f"audit/{quantity}", value) for step, value in enumerate(values)])
    trace.close()
    folders.end(folder, "failed" if failure else "finished", failure)


def told(runs: list[Run]) -> list[tuple[int, str, str]]:
    return [(run.config.seed, run.setting, run.method) for run in runs]


def test_all_settings_are_run_at_the_seeds_that_choose_and_one_of_them_at_the_others(
    plan: Experiment, tmp_path: Path
) -> None:
    runs = plan.runs()
    first = settled(runs, tmp_path)
    assert told(first) == [
        (seed, setting, method)
        for seed in (100, 101)
        for setting in ("slow", "fast")
        for method in ("reshuffled", "dlis")
    ]
    assert all(run.chooses and run.labels["role"] == "choosing" for run in first)
    # By the mean over both seeds: fast for the one, slow for the other.
    wrong = {("slow", "reshuffled"): 0.3, ("fast", "reshuffled"): 0.2, ("slow", "dlis"): 0.2, ("fast", "dlis"): 0.3}
    for run in first[:-1]:
        finish(run, tmp_path, [0.9, wrong[run.setting, run.method] + (0.05 if run.config.seed == 100 else -0.05)])
    half = settled(runs, tmp_path)[len(first) :]
    assert told(half) == [(0, "fast", "reshuffled"), (1, "fast", "reshuffled")]  # dlis has not been chosen for
    finish(first[-1], tmp_path, [0.9, 0.25])
    assert told(settled(runs, tmp_path)[len(first) :]) == [
        (0, "slow", "dlis"),
        (0, "fast", "reshuffled"),
        (1, "slow", "dlis"),
        (1, "fast", "reshuffled"),
    ]


def test_a_guess_counts_the_first_setting_of_whom_nothing_is_chosen_for(plan: Experiment, tmp_path: Path) -> None:
    runs = settled(plan.runs(), tmp_path, guessing=True)
    assert len(runs) == 8 + 4
    assert {run.setting for run in runs if not run.chooses} == {"slow"}


def test_a_setting_that_diverged_is_not_chosen_and_another_failure_chooses_nothing(
    plan: Experiment, tmp_path: Path
) -> None:
    runs = plan.runs()
    reason = {"actor": "master", "reason": "The loss is not finite at step 7"}
    for run in settled(runs, tmp_path):
        if run.method == "dlis":
            other = {"actor": "master", "reason": "No space left on the disk."}
            finish(run, tmp_path, [0.9, 0.2], failure=other if run.setting == "slow" else None)
        else:
            diverges = run.setting == "slow" and run.config.seed == 100
            finish(run, tmp_path, [0.9, 0.2], failure=reason if diverges else None)
    assert told(settled(runs, tmp_path)[8:]) == [(0, "fast", "reshuffled"), (1, "fast", "reshuffled")]


def test_runs_that_choose_are_in_no_number_that_is_shown(plan: Experiment, tmp_path: Path) -> None:
    runs = plan.runs()
    for run in settled(runs, tmp_path):
        finish(run, tmp_path, [0.9, 0.2 if run.setting == "slow" else 0.1])
    all_of_them = settled(runs, tmp_path)
    only = load([run.folder(tmp_path) for run in all_of_them if run.chooses], 4)
    assert (only.settings, len(only.runs), only.choosing) == (("slow", "fast"), 8, ())  # nothing else yet
    for run in all_of_them:
        if not run.chooses:
            finish(run, tmp_path, [0.9, 0.3])
    loaded = load([run.folder(tmp_path) for run in all_of_them], 4)
    assert loaded.settings == ("",)
    assert sorted({run.seed for run in loaded.runs}) == [0, 1]
    assert (len(loaded.choosing), loaded.expected) == (8, 4)


def test_each_measure_has_its_setting_and_runs_are_done_at_both(tmp_path: Path) -> None:
    path = tmp_path / "contest.toml"
    path.write_text('choosing_by = ["validation", "training"]\n' + PLAN)
    runs = experiments.read(path).runs()
    ends = {  # of the validation error and the training loss
        ("slow", "reshuffled"): (0.1, 0.7),
        ("fast", "reshuffled"): (0.2, 0.4),
        ("slow", "dlis"): (0.3, 0.9),
        ("fast", "dlis"): (0.2, 0.8),
    }

    def do(run: Run) -> None:
        error, loss = ends[run.setting, run.method]
        finish(run, tmp_path, [0.9, error], [2.0, loss])

    first = settled(runs, tmp_path)
    for run in first:
        do(run)
    judged = [run for run in settled(runs, tmp_path) if not run.chooses]
    assert {(run.setting, run.method) for run in judged} == {
        ("slow", "reshuffled"),
        ("fast", "reshuffled"),
        ("fast", "dlis"),
    }
    for run in judged:
        do(run)
    loaded = load([run.folder(tmp_path) for run in settled(runs, tmp_path)], 4)
    assert (len(loaded.runs), len(loaded.judged), loaded.settings) == (4, 6, ("",))
    measures: dict[Measure, tuple[str, str, float]] = {
        "validation": ("validation error", "error/valid", 0.1),
        "training": ("training loss", "loss/train", 0.4),
    }
    for measure, (words, quantity, value) in measures.items():
        assert why(chosen(loaded, measure)) == words
        reshuffled = chosen(loaded, measure).of(method="reshuffled")
        assert [run.seed for run in reshuffled] == [0, 1]
        assert all(run.series(f"audit/{quantity}").values[-1] == value for run in reshuffled)
    # Where nobody has run what has the lowest training loss, what validates best stands for it.
    fewer = load([run.folder(tmp_path) for run in settled(runs, tmp_path) if run.chooses or run.setting == "slow"], 2)
    assert {run.config.optimizer.learning_rate for run in chosen(fewer, "training").of(method="reshuffled")} == {0.001}
    assert why(chosen(fewer, "training")) == "validation error"


@pytest.mark.parametrize("by", ['"training"', "[]", '["test"]', "[1]", '[["training"]]'])
def test_other_measures_are_refused(tmp_path: Path, by: str) -> None:
    path = tmp_path / "contest.toml"
    path.write_text(f"choosing_by = {by}\n" + PLAN)
    with pytest.raises(ConfigError, match=r"write \['validation', 'training'\], or one of them"):
        experiments.read(path)


def test_a_measure_without_seeds_to_choose_at_and_a_setting_where_it_is_chosen_are_refused(
    plan: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "plain.toml"
    path.write_text('choosing_by = ["training"]\n' + PLAN.replace('choosing_seeds = "100-101"\n', ""))
    with pytest.raises(ConfigError, match="choosing_by is of runs at choosing_seeds"):
        experiments.read(path)
    with pytest.raises(ConfigError, match="Leave out `--only setting=`"):
        plan.runs(only={"setting": "fast"})


def test_without_seeds_that_choose_all_are_run(plan: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(PLAN.replace('choosing_seeds = "100-101"\n', ""))
    runs = experiments.read(path).runs()
    assert settled(runs, tmp_path) == runs
    assert len(runs) == 8


def test_only_names_a_setting_a_dataset_a_method_or_several() -> None:
    assert parse_only("") == {}
    assert parse_only("setting=a") == {"setting": "a"}
    assert parse_only("setting=a, method=issgd") == {"setting": "a", "method": "issgd"}
    assert parse_only("dataset=mnist,method=issgd") == {"dataset": "mnist", "method": "issgd"}


@pytest.mark.parametrize("text", ["a", "seed=3", "setting", "setting=a,,method=b"])
def test_other_words_after_only_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--only"):
        parse_only(text)
