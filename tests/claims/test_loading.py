"""Runs are loaded one dataset at a time, so that nothing ever compares two."""

from pathlib import Path

import pytest

from issgd_cli.claims import FINDERS
from issgd_cli.claims.evidence import audits_told
from issgd_cli.claims.loading import by_dataset, load
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.errors import RunError
from issgd_cli.runs.folder import RunFolder
from tests.figures.conftest import audited_on, write_run


def write(results: Path, dataset: str, method: str = "issgd") -> RunFolder:
    return write_run(results, "a", method, name="pair", until=0, dataset=dataset)


def test_runs_of_several_datasets_are_parted_by_their_manifests(tmp_path: Path) -> None:
    mnist, cifar10 = write(tmp_path, "mnist"), write(tmp_path, "cifar10")
    plain, more = write(tmp_path, ""), write(tmp_path, "mnist", "sgd")
    assert by_dataset([mnist, cifar10, plain, more]) == {"mnist": [mnist, more], "cifar10": [cifar10], "": [plain]}


def test_a_dataset_is_loaded_with_its_name(tmp_path: Path) -> None:
    runs = load([write(tmp_path, "mnist"), write(tmp_path, "mnist", "sgd")])
    assert (runs.name, runs.settings, runs.methods) == ("pair/mnist", ("a",), ("issgd", "sgd"))
    assert {run.dataset for run in runs.runs} == {"mnist"}


def test_without_datasets_the_name_is_the_experiments(tmp_path: Path) -> None:
    runs = load([write(tmp_path, "")])
    assert (runs.name, runs.runs[0].dataset) == ("pair", "")


@pytest.mark.parametrize(("one", "other"), [("mnist", "cifar10"), ("mnist", "")])
def test_runs_of_two_datasets_are_not_loaded_as_one(tmp_path: Path, one: str, other: str) -> None:
    with pytest.raises(RunError, match=r"never compared.*mnist \(mnist\)"):
        load([write(tmp_path, one), write(tmp_path, other, "sgd")])


def test_a_name_that_has_stood_for_other_data_is_noticed(tmp_path: Path) -> None:
    old, new = write(tmp_path, "mnist"), write(tmp_path, "cifar10", "sgd")
    new.update_manifest(dataset_label="mnist")
    with pytest.raises(RunError, match=r"mnist \(mnist\), mnist \(cifar10\)"):
        load([old, new])


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.1.0", False), ("0.1", False), ("0.2.0", True), ("0.10.3", True), ("1.0.0rc1", True), (None, True)],
)
def test_stale_traces_of_audits_before_eq_9_are_never_read(tmp_path: Path, version: str | None, known: bool) -> None:
    folder = write_run(tmp_path)
    folder.update_manifest(packages={"issgd": version, "torch": "2.9.0"})
    runs = load([folder])
    for quantity in ("audit/trace/stale", "audit/trace/stale+1"):
        assert bool(len(runs.runs[0].series(quantity).values)) == known
    for quantity in ("audit/trace/in_use", "audit/trace/ideal", "trace/stale", "trace/stale+1"):
        assert len(runs.runs[0].series(quantity).values)
    finding = FINDERS["C5"](runs, Thresholds())
    assert bool(finding.parts) == known
    assert ("before 0.2" in finding.evidence()) != known


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("The loss is not finite at step 7 (largest importance weight possible: 3). Lower ...", True),
        ("The parameters are not finite after step 12 (largest importance weight possible: 3). Lower ...", True),
        # Gradients overflow before losses do: behind a barrier a worker is the first to see it.
        ("... their norms hold a value that is negative or not finite. The training may have diverged by", True),
        ("The scores of chunk 3 are not 36 values each. The training may have diverged by version 3", False),
        ("The parameters of version 4 are not all finite: the training has diverged. Lower ...", True),
        ("train:norms hold a value that is negative or not finite. Somebody else has written to it.", False),
        ("out of memory", False),
    ],
)
def test_a_run_that_diverged_is_known_by_whoever_saw_it_first(tmp_path: Path, reason: str, expected: bool) -> None:
    folder = write_run(tmp_path, state="failed", until=0)
    folder.update_manifest(failure={"actor": "worker-0", "reason": reason})
    assert load([folder]).runs[0].diverged == expected


def test_audits_on_a_sample_are_told_as_estimates(tmp_path: Path) -> None:
    (run,) = load([write(tmp_path, "")]).runs  # 19,000, 1,000 and 4,000 examples
    known = {examples: audited_on(run, examples) for examples in (None, 2_000, 18_999, 19_000)}
    assert [each.audit_sample for each in known.values()] == [None, 2_000, 18_999, None]
    exact, sampled = known[None], known[2_000]
    assert audits_told([exact]) == audits_told([known[19_000]]) == audits_told([]) == "exact audits"
    estimates = "audits that are estimates on a random sample of 2,000 examples of each split"
    assert audits_told([sampled, sampled]) == estimates
    assert audits_told([sampled, exact]) == f"exact audits and {estimates}"
    assert "of 2,000 or 18,999 examples" in audits_told([known[18_999], sampled])
