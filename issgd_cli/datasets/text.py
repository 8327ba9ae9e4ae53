"""Sentences as rows of tokens: a simple tokenizer, and the vocabulary that numbers its words.

A text is lower-cased and cut into words (letters and digits, with apostrophes within or before: don't, 's) and single
marks. Words are numbered from 2 by how often they occur in the train part alone, ties by the alphabet, up to a most
number of words; 0 pads a short text at its end, 1 stands for every other word.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # of the rules: another one makes other data
PADDING, UNKNOWN = "<pad>", "<unknown>"
MOST_WORDS = 20_000

_WORD = re.compile(r"\w+(?:'\w+)*|'\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Of a text, in order; see the module."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words that have a number of their own: their place in `names`, which begins with PADDING and UNKNOWN."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], most: int = MOST_WORDS) -> "Vocabulary":
        """The most frequent words of these texts, at most so many."""
        counts = Counter(word for text in texts for word in words(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((PADDING, UNKNOWN, *ranked[:most]))

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, texts: Sequence[str], length: int) -> NDArray[np.int32]:
        """Tokens of each text, (N, length): what is longer is cut off, and a text without words is one unknown word."""
        number = {word: place for place, word in enumerate(self.names)}
        found = np.zeros((len(texts), length), np.int32)
        for row, text in zip(found, texts, strict=True):
            tokens = [number.get(word, 1) for word in words(text)[:length]] or [1]
            row[: len(tokens)] = tokens
        return found

    def content(self) -> bytes:
        """Of the file that belongs to the data: the words by their numbers, as JSON."""
        return (json.dumps(list(self.names), ensure_ascii=False, indent=0) + "\n").encode()
