"""Label noise and class imbalance: how much is changed, that it is by the seed, and that nothing else is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from issgd_cli import datasets
from issgd_cli.clusters.resuming import dataset_of
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.alterations import altered, noisy, thinned
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DataError
from tests.datasets.made_up import dataset, numbers, written


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    return prepared.load(written(tmp_path / "d"))


def test_without_either_the_data_are_what_they_were(data: Prepared) -> None:
    assert altered(data, 42) is data
    assert altered(data, 42, label_noise=0, imbalance=1) is data


def test_fingerprints_and_hashes_are_as_ever_unless_something_is_altered(data: Prepared) -> None:
    assert data.fingerprint == "53456d17274fc2f00a24114dd0f13580ff314efe37293fb9e8ff4282acdafd90"
    ways = [{"label_noise": 0.1}, {"label_noise": 0.2}, {"imbalance": 2.0}, {"imbalance": 2.0, "label_noise": 0.1}]
    assert len({data.fingerprint, *(altered(data, 42, **way).fingerprint for way in ways)}) == 5
    settings = [f"data.{key}={value}" for way in ways[:3] for key, value in way.items()]
    plain = resolve(assignments(["master.steps=5"]), "a test").hash()
    assert plain == "72df8f4a"
    assert resolve(assignments(["master.steps=5", "data.label_noise=0", "data.imbalance=1"]), "a test").hash() == plain
    hashes = {resolve(assignments(["master.steps=5", setting]), "a test").hash() for setting in settings}
    assert len({plain, *hashes}) == 4


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.37, 1.0])
def test_so_many_labels_are_wrong_and_every_other_class_is_as_likely(fraction: float) -> None:
    labels = np.random.default_rng(0).integers(0, 5, 20_000)
    found = noisy(labels, 5, fraction, 42)
    assert (found != labels).sum() == round(fraction * 20_000)
    assert ((found >= 0) & (found < 5)).all()
    for label in range(5):
        counts = np.bincount(found[(labels == label) & (found != labels)], minlength=5)
        assert counts[label] == 0
        expected = counts.sum() / 4
        assert (np.abs(np.delete(counts, label) - expected) <= 5 * np.sqrt(expected)).all()


def test_noise_is_by_the_seed_and_a_larger_fraction_changes_the_same_labels_and_more() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 1_000)
    some, more = noisy(labels, 5, 0.2, 42), noisy(labels, 5, 0.4, 42)
    assert_array_equal(noisy(labels, 5, 0.2, 42), some)
    changed = some != labels
    assert_array_equal(more[changed], some[changed])
    assert (noisy(labels, 5, 0.2, 43) != some).any()


def test_class_sizes_fall_exponentially_from_the_first_to_the_last() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
    left = thinned(labels, 10, 100.0)
    counts = np.bincount(labels[left])
    # Cui et al. 2019: CIFAR-10's classes at a factor of 100, of 5,000 each; a tenth of them.
    assert counts.tolist() == [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]
    assert_array_equal(left, np.sort(left))
    for label in range(10):  # the first of each class
        assert_array_equal(left[labels[left] == label], np.flatnonzero(labels == label)[: counts[label]])


def test_no_class_that_there_is_vanishes() -> None:
    assert thinned(np.array([0, 1, 1, 3, 3, 3]), 4, 1e9).tolist() == [0, 1, 3]


def test_noise_is_of_what_is_left_and_valid_and_test_stay_as_they_are(data: Prepared) -> None:
    hard = altered(data, 42, label_noise=0.3, imbalance=5.0)
    train, whole = hard.splits["train"], data.splits["train"]
    assert train.rows is not None
    assert hard.sizes == {**data.sizes, "train": len(train.rows)}
    true = whole.targets[train.rows]
    assert_array_equal(train.rows, thinned(whole.targets, 10, 5.0))
    assert (train.targets != true).sum() == round(0.3 * len(true))
    for name in ("valid", "test"):
        assert hard.splits[name] is data.splits[name]
    assert hard.mean is data.mean
    assert hard.std is data.std
    assert train.inputs is whole.inputs  # still a map: nothing was copied


@pytest.mark.parametrize("which", [slice(None), slice(3, 40), np.array([5, 1, 5]), torch.tensor([2, 0])])
def test_examples_of_it_are_those_that_are_left(data: Prepared, which: slice) -> None:
    hard = altered(data, 42, imbalance=5.0)
    rows = hard.splits["train"].rows
    assert rows is not None
    cpu = torch.device("cpu")
    found = Examples(hard, hard.splits["train"], cpu)
    inputs, targets = found[which]
    expected, labels = Examples(data, data.splits["train"], cpu)[rows[which]]
    assert len(found) == len(rows)
    assert torch.equal(inputs, expected)
    assert torch.equal(targets, labels)


def test_load_alters_what_train_size_leaves_by_the_seed_of_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "polynomial", seed=7)  # whatever a known name's folder holds
    found = datasets.load("polynomial", tmp_path, 200, label_noise=0.5, imbalance=2.0)
    plain = prepared.load(tmp_path / "polynomial", 200)
    expected = altered(plain, 7, label_noise=0.5, imbalance=2.0)
    assert found.fingerprint == expected.fingerprint
    assert_array_equal(found.splits["train"].targets, expected.splits["train"].targets)
    assert len(found.splits["train"]) < 200


def test_numbers_and_a_single_class_are_refused(tmp_path: Path) -> None:
    writing.write(tmp_path / "n", "made", numbers(), {})
    with pytest.raises(DataError, match=r"are for classes, and made has numbers as targets"):
        altered(prepared.load(tmp_path / "n"), 42, label_noise=0.1)
    one = dataset()
    blocks = [(inputs, targets * 0) for inputs, targets in one.train.blocks]
    alone = type(one)(one.shape, 1, type(one.train)(1000, blocks), type(one.train)(0, []), list)
    writing.write(tmp_path / "o", "made", alone, {})
    with pytest.raises(DataError, match="one class alone"):
        altered(prepared.load(tmp_path / "o"), 42, imbalance=3.0)


@pytest.mark.parametrize("setting", ["data.label_noise=-0.1", "data.label_noise=1.5", "data.imbalance=0.5"])
def test_values_out_of_range_are_refused(setting: str) -> None:
    from issgd_cli.errors import ConfigError

    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        resolve(assignments(["master.steps=5", setting]), "a test")


def test_a_run_learns_from_what_its_configuration_alters(tmp_path: Path) -> None:
    written(tmp_path / "polynomial")  # whatever a known name's folder holds
    place = ["master.steps=5", "data.name=polynomial", f"data.dir={tmp_path}"]
    plain = dataset_of(resolve(assignments(place), "a test"))
    hard = dataset_of(resolve(assignments([*place, "data.label_noise=0.25", "data.imbalance=4"]), "a test"))
    assert hard.fingerprint == altered(plain, 42, label_noise=0.25, imbalance=4.0).fingerprint != plain.fingerprint
