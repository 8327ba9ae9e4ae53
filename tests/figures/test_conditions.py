"""What the report says of the conditions of its runs, and what of these is not as in the paper."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from issgd_cli.claims import Runs, load
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.figures.conditions import ranges, scale, what_was_run
from issgd_cli.figures.differences import differences
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row

MakeRun = Callable[..., RunFolder]


def changed(
    runs: Runs, manifest: Mapping[str, Any] | None = None, method: str | None = None, **sections: Mapping[str, Any]
) -> Runs:
    """The same runs, or those of one method, with other values in their manifests and configurations."""

    def update(run: Any) -> Any:
        if method not in (None, run.method):
            return run
        parts = {name: getattr(run.config, name).model_copy(update=dict(keys)) for name, keys in sections.items()}
        return replace(run, config=run.config.model_copy(update=parts), manifest={**run.manifest, **(manifest or {})})

    return replace(runs, runs=tuple(update(run) for run in runs.runs))


def about(lines: list[str], word: str) -> list[str]:
    return [line for line in lines if line.startswith(word)]


def test_staleness_is_told_in_epochs_beside_the_papers(experiment: Runs) -> None:
    # 3 workers score 6,300 examples a second, 20 of 22 for training; the master trains on 8,000.
    assert scale(experiment) == [
        "Scale: the 32 steps between publications are 0.22 epochs of these 19,000 training examples; the paper's 32 "
        "are 0.0072 of its 570,000. 3 workers score everything once in 1.4 epochs, the paper's 3 in about 0.23."
    ]
    assert about(what_was_run(experiment), "Scale") == scale(experiment)


def test_behind_barriers_every_split_is_scored(experiment: Runs) -> None:
    (line,) = scale(changed(experiment, master={"mode": "exact"}))
    assert "everything once in 1.6 epochs" in line  # 19,000 of 24,000


@pytest.mark.parametrize(
    ("git", "expected"),
    [
        ([{"commit": "a" * 40, "dirty": False}], "Code: commit aaaaaaaaaaaa (2 runs); nothing uncommitted."),
        (
            [{"commit": "a" * 40, "dirty": True}, {"commit": "b" * 40, "dirty": False}],
            "Code: commit aaaaaaaaaaaa (1 run, 1 of them with uncommitted changes); commit bbbbbbbbbbbb (1 run).",
        ),
        ([None], "Code: commit not recorded."),
    ],
)
def test_which_commits_made_the_runs(git: list[dict[str, Any] | None], expected: str, make_run: MakeRun) -> None:
    runs = load([make_run(seed=seed) for seed in range(2)])
    told = [
        replace(run, manifest={**run.manifest, "git": git[place % len(git)]}) for place, run in enumerate(runs.runs)
    ]
    assert about(what_was_run(replace(runs, runs=tuple(told))), "Code") == [expected]


def test_settings_that_hardly_learned_are_warned_of(make_run: MakeRun) -> None:
    def stuck(row: Row) -> Row:
        return row._replace(value=2.3) if row.quantity == "audit/loss/train" else row

    lines = what_was_run(load([make_run("a"), make_run("b", change=stuck)]))
    assert [line for line in lines if "hardly" in line] == [
        "Setting (b) had hardly begun to learn at the end (training loss 2.30 to 2.30): its verdicts say little."
    ]


def test_the_network_is_told_with_its_settings(experiment: Runs) -> None:
    (line,) = about(what_was_run(changed(experiment, model={"hidden": (8, 4)})), "Model")
    assert line.startswith("Model: 8-4 hidden ReLU units; minibatches of ")
    own = changed(experiment, model={"network": "mine:net", "arguments": {"width": 3}})
    (line,) = about(what_was_run(own), "Model")
    assert line.startswith("Model: mine:net (width 3); minibatches of ")
    assert about(differences(own), "Model") == ["Model: mine:net, the paper's: 4 hidden layers of 2048."]
    residual = resolve(assignments(["master.steps=5", "model.network=resnet18", "resnet18.width=8"]), "a test")
    runs = [experiment.runs[0], replace(experiment.runs[1], config=residual)]
    (line,) = about(what_was_run(replace(experiment, runs=tuple(runs))), "Model")
    assert "hidden ReLU units, resnet18 (width 8, norm group); minibatches of " in line


def test_initial_weights_that_are_not_the_originals(experiment: Runs) -> None:
    (scaled,) = about(differences(experiment), "Initial weights")
    assert "sqrt(2048 / width)" in scaled
    (given,) = about(differences(changed(experiment, model={"initial_weight_std": 0.05})), "Initial weights")
    assert given == "Initial weights: standard deviation 0.05, the original's 0.01."
    assert not about(differences(changed(experiment, model={"hidden": (2048,) * 4})), "Initial weights")


def test_publishing_that_is_not_the_originals(experiment: Runs) -> None:
    assert not [line for line in differences(experiment) if "publishes" in line]
    often = changed(experiment, method="sgd", master={"publish_every_steps": 32})
    assert about(differences(often), "SGD publishes") == ["SGD publishes every 32 steps, the original every 512."]


def test_steps_and_chunks_that_are_not_the_originals(experiment: Runs) -> None:
    words = ("Optimiser", "Minibatches", "Chunks")
    assert not [line for line in differences(experiment) if line.startswith(words)]
    other = changed(experiment, master={"minibatch_size": 64}, worker={"chunk_size": 72}, optimizer={"kind": "adam"})
    assert [line for line in differences(other) if line.startswith(words)] == [
        "Optimiser: adam, the paper's: sgd.",
        "Minibatches: 64 examples, the original's 128.",
        "Chunks that workers score: 72 examples, the original's 2,048; B.2's bound is by chunks.",
    ]
    measuring = changed(experiment, method="sgd", worker={"chunk_size": 72})
    assert not about(differences(measuring), "Chunks")


@pytest.mark.parametrize(
    ("name", "test", "crops", "official"),
    [
        ("svhn", 26_032, False, True),
        ("svhn", 2_000, True, False),
        ("svhn-small-0a1b2c3d", 2_000, True, False),
        ("svhn", 500, False, False),
        ("cifar10", 2_000, False, False),
    ],
)
def test_official_test_crops_among_the_training_examples(
    name: str, test: int, crops: bool, official: bool, experiment: Runs
) -> None:
    dataset = {"name": name, "train": 7_500, "valid": 405, "test": test}
    lines = differences(changed(experiment, manifest={"dataset": dataset}, data={"name": name}))
    assert bool(about(lines, "Official test crops are among the training examples")) == crops
    assert bool(about(lines, "Data: ")) != official


def test_work_is_said_to_charge_each_method_for_what_it_needs(experiment: Runs) -> None:
    assert "SGD's are those that it trains on, since its worker only measures" in " ".join(differences(experiment))


def test_smoothings_of_ours_are_no_difference_of_the_papers_methods(make_run: MakeRun) -> None:
    runs = load([make_run("a", method) for method in ("issgd", "issgd-variance-optimal")])
    assert not about(differences(runs), "Learning rates or smoothings")
    other = changed(runs, optimizer={"learning_rate": 0.1})
    assert about(differences(other), "Learning rates or smoothings")


def test_without_runs_there_is_little_to_say() -> None:
    assert what_was_run(Runs("quick", (), 3)) == ["0 of 3 runs finished, 0 failed, 3 missing: nothing to show yet."]
    assert differences(Runs("quick", (), 3)) == []


def test_numbers_in_short() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
