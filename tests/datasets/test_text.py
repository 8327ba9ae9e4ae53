"""Words, and the numbers that a vocabulary gives them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issgd_cli.datasets.text import Vocabulary, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What county is Modesto , California in ?", "what county is modesto , california in ?"),
        ("it 's so laddish, don't!", "it 's so laddish , don't !"),
        ("co-writer/director (1994)", "co - writer / director ( 1994 )"),
        ("Crème  brûlée\t...", "crème brûlée . . ."),
        (" ", ""),
    ],
)
def test_words_are_lower_case_and_marks_stand_alone(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_words_are_numbered_by_how_often_they_occur_and_then_by_the_alphabet() -> None:
    vocabulary = Vocabulary.of(["b a c", "a c b a", "d"])
    assert vocabulary.names == ("<pad>", "<unknown>", "a", "b", "c", "d")
    assert Vocabulary.of(["b a c", "a c b a", "d"], most=2).names == ("<pad>", "<unknown>", "a", "b")
    assert json.loads(vocabulary.content()) == list(vocabulary.names)


def test_short_texts_are_padded_long_ones_cut_and_other_words_unknown() -> None:
    vocabulary = Vocabulary.of(["a b c"])
    rows = vocabulary.rows(["A b", "c x b a", "", "<pad>"], 3)
    assert rows.tolist() == [[2, 3, 0], [4, 1, 3], [1, 0, 0], [1, 1, 1]]


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), min_size=1, max_size=5), st.integers(1, 9))
def test_tokens_are_always_of_the_vocabulary(known: list[str], texts: list[str], length: int) -> None:
    vocabulary = Vocabulary.of(known)
    rows = vocabulary.rows(texts, length)
    assert rows.shape == (len(texts), length)
    assert rows.min() >= 0
    assert rows.max() < len(vocabulary)
    assert (rows[:, 0] > 0).all()
    for row, text in zip(rows, texts, strict=True):
        named = [vocabulary.names[token] for token in row if token]
        given = words(text)[:length] or ["<unknown>"]
        assert [one if one in vocabulary.names else "<unknown>" for one in given] == named
