"""What meta.json says of a folder's examples is what was written, or nothing."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issgd_cli.datasets.contents import Contents, InputType, contents_of

SIZES = st.integers(1, 40)


@st.composite
def all_contents(draw: st.DrawFn) -> Contents:
    inputs = draw(st.sampled_from(get_args(InputType)))
    return Contents(
        tuple(draw(st.lists(SIZES, min_size=1, max_size=3))),
        draw(st.sampled_from([1, 3, 256, 257, 1000])),
        inputs,
        draw(st.sampled_from(["classes", "numbers"])),
        draw(SIZES) if inputs == "int32" else 0,
        draw(st.sampled_from([(), ("vocabulary.json",)])),
    )


@given(all_contents())
def test_what_is_described_is_read_again(contents: Contents) -> None:
    assert contents_of({"format": contents.format, **contents.described()}) == contents


@given(all_contents(), all_contents())
def test_other_contents_have_another_heading(one: Contents, other: Contents) -> None:
    assert (one.heading() == other.heading()) == (one == other)


def test_what_format_1_can_hold_is_of_format_1_with_its_heading_and_files() -> None:
    images = Contents((3, 32, 32), 10)
    assert (images.format, images.heading()) == (1, b"[1, [3, 32, 32], 10]")
    assert images.files_of("valid") == ("valid-images.npy", "valid-labels.npy")
    assert images.described() == {"classes": 10, "shape": [3, 32, 32]}
    for other in (
        Contents((3, 32, 32), 257),
        Contents((3, 32, 32), 10, "float32"),
        Contents((3, 32, 32), 10, targets="numbers"),
        Contents((40,), 10, "int32", tokens=9),
        Contents((3, 32, 32), 10, others=("names.json",)),
    ):
        assert other.format == 2
        assert other.files_of("valid") == ("valid-inputs.npy", "valid-targets.npy")


TOKENS = {"format": 2, **Contents((40,), 6, "int32", tokens=9, others=("vocabulary.json",)).described()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": [2]},
        {"format": 3},
        {"shape": "ab"},
        {"shape": [0]},
        {"shape": [2**20, 2**20]},
        {"inputs": "float64"},
        {"inputs": "uint8"},  # which are no tokens
        {"inputs": ["int32"]},
        {"tokens": 0},
        {"tokens": "9"},
        {"targets": "numbers"},  # without outputs
        {"classes": 0},
        {"classes": 65_537},
        {"classes": None},
        {"others": "vocabulary.json"},
        {"others": ["../vocabulary.json"]},
        {"others": [3]},
    ],
)
def test_what_makes_no_sense_is_none(wrong: dict[str, Any]) -> None:
    assert contents_of(TOKENS) is not None
    assert contents_of({**TOKENS, **wrong}) is None


def test_plain_images_that_say_format_2_are_refused() -> None:
    """One dataset has one fingerprint."""
    described = {"shape": [4], "classes": 3, "inputs": "uint8", "targets": "classes", "others": []}
    assert contents_of({"format": 1, **described}) == Contents((4,), 3)
    assert contents_of({"format": 2, **described}) is None
