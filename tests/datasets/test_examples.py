"""Stored examples as a model's inputs: in their shape, standardised, or as the tokens that they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.examples import Examples, Which
from issgd_cli.datasets.sources import Dataset
from tests.datasets.made_up import SHAPE, dataset, numbers, sentences

CPU = torch.device("cpu")


def prepared_of(made: Dataset, place: Path) -> prepared.Prepared:
    writing.write(place, "made", made, {})
    return prepared.load(place)


@pytest.mark.parametrize("which", [slice(3, 9), np.array([5, 1, 5]), torch.tensor([2, 0])])
def test_images_come_in_their_shape_less_their_mean_over_their_std(tmp_path: Path, which: Which) -> None:
    data = prepared_of(dataset(), tmp_path / "d")
    inputs, labels = Examples(data, data.splits["train"], CPU)[which]
    pixels = torch.from_numpy(np.array(data.splits["train"].inputs[which])).float()
    expected = (pixels - torch.from_numpy(data.mean)) * (1 / torch.from_numpy(data.std))
    assert torch.equal(inputs, expected.reshape(-1, *SHAPE))
    assert labels.dtype == torch.int64
    assert labels.tolist() == data.splits["train"].targets[which].tolist()


def test_numbers_are_standardised_and_their_targets_given_as_they_are(tmp_path: Path) -> None:
    data = prepared_of(numbers(), tmp_path / "d")
    examples = Examples(data, data.splits["train"], CPU)
    inputs, targets = examples[:]
    assert (inputs.shape, inputs.dtype) == ((190, 3, 2), torch.float32)
    torch.testing.assert_close(inputs.mean(0), torch.zeros(3, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(3, 2))
    assert (targets.shape, targets.dtype) == ((190, 2), torch.float32)
    assert torch.equal(targets, torch.from_numpy(np.array(data.splits["train"].targets)))
    raw = prepared_of(numbers(standardise=False), tmp_path / "raw")
    plain, _ = Examples(raw, raw.splits["train"], CPU)[:]
    assert torch.equal(plain.flatten(1), torch.from_numpy(np.array(raw.splits["train"].inputs)))
    assert data.fingerprint != raw.fingerprint


def test_tokens_are_given_as_they_are(tmp_path: Path) -> None:
    data = prepared_of(sentences(), tmp_path / "d")
    inputs, labels = Examples(data, data.splits["test"], CPU)[:5]
    assert (inputs.shape, inputs.dtype) == ((5, 7), torch.int64)
    assert torch.equal(inputs[:, 0] % 3, labels)


@pytest.mark.parametrize("made", [dataset, numbers, sentences])
def test_a_minibatch_is_its_callers_own(tmp_path: Path, made: Callable[[], Dataset]) -> None:
    data = prepared_of(made(), tmp_path / "d")
    examples = Examples(data, data.splits["train"], CPU)
    for which in (slice(0, 4), torch.arange(4)):
        before = examples[which]
        kept = [part.clone() for part in before]
        for part in before:
            part.zero_()
        assert all(torch.equal(now, then) for now, then in zip(examples[which], kept, strict=True))
