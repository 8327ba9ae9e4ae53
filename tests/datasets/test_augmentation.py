"""Crops and flips move pixels and change none; which, follows from the seed and the step."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from issgd_cli.datasets.augmentation import CHANGES, PADDING, Augmentation, crop, flip
from issgd_cli.errors import ConfigError

SHAPE = (3, 6, 5)


def images(count: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def parts_of(image: torch.Tensor) -> list[torch.Tensor]:
    """Every crop that an image may become."""
    _, height, width = image.shape
    padded = functional.pad(image, (PADDING,) * 4)
    span = range(2 * PADDING + 1)
    return [padded[:, top : top + height, left : left + width] for top in span for left in span]


def test_a_crop_is_a_part_of_the_bordered_image_each_as_likely() -> None:
    given = images(1).expand(6000, -1, -1, -1)
    found = crop(given, np.random.default_rng(0))
    assert found.shape == given.shape
    parts = parts_of(given[0])
    chosen = Counter(part.numpy().tobytes() for part in found)
    # Some of the outermost parts are the same border.
    possible = Counter(part.contiguous().numpy().tobytes() for part in parts)
    assert set(chosen) == set(possible)
    for content, ways in possible.items():
        assert chosen[content] / 6000 == pytest.approx(ways / len(parts), abs=0.01)


def test_each_image_is_cropped_by_itself() -> None:
    given = images(50)
    found = crop(given, np.random.default_rng(1))
    places = []
    for image, changed in zip(given, found, strict=True):
        (place, *_) = [number for number, part in enumerate(parts_of(image)) if torch.equal(part, changed)]
        places.append(place)
    assert len(set(places)) > 20


def test_half_of_the_images_are_mirrored_left_to_right() -> None:
    given = images(1000)
    found = flip(given, np.random.default_rng(0))
    mirrored = [torch.equal(changed, image.flip(2)) for image, changed in zip(given, found, strict=True)]
    plain = [torch.equal(changed, image) for image, changed in zip(given, found, strict=True)]
    assert [not one for one in mirrored] == plain
    assert 430 < sum(mirrored) < 570


@given(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=2, unique=True), st.integers(0, 100))
def test_a_steps_changes_depend_on_the_seed_and_the_step_alone(names: list[str], step: int) -> None:
    given = images(20)
    augmentation = Augmentation(names, 3, SHAPE)
    first = augmentation(given, step)
    augmentation(given, step + 1)
    before = given.clone()
    assert torch.equal(augmentation(given, step), first)
    assert torch.equal(Augmentation(names, 3, SHAPE)(given, step), first)
    assert torch.equal(given, before)
    assert not torch.equal(augmentation(given, step + 1), first)
    assert not torch.equal(Augmentation(names, 4, SHAPE)(given, step), first)


def test_without_changes_the_minibatch_itself_comes_back() -> None:
    given = images(3, (7,))
    assert Augmentation((), 0, (7,))(given, 5) is given


@pytest.mark.parametrize(
    ("shape", "is_text", "kind"), [((7,), False, "numbers"), ((6, 5), False, "numbers"), ((9,), True, "texts")]
)
def test_what_is_no_image_is_refused(shape: tuple[int, ...], is_text: bool, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment = \['crop'\] is for images .* the examples are {kind} of shape"):
        Augmentation(["crop"], 0, shape, is_text)
