"""Sets of sentences are read from small files of their official layouts."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import prepare, prepared
from issgd_cli.datasets.contents import SplitName
from issgd_cli.datasets.sentences import QUESTIONS, read_lines
from issgd_cli.datasets.text import words
from issgd_cli.errors import DataError

ASKED = {
    "ABBR": "abb What does NAFTA stand for ?",
    "DESC": "manner How did serfdom develop in Russia ?",
    "ENTY": "cremat What films featured the character Popeye Doyle ?",
    "HUM": "desc Who was Galileo ?",
    "LOC": "city What county is Modesto , California in ?",
    "NUM": "dist How far is it from Denver to Aspen ?",
}
QUESTION_LINES = [f"{kind}:{ASKED[kind]} {number}" for number in range(5) for kind in QUESTIONS]
REVIEWS = [f"{number % 2} film number{number} is {'good' if number % 2 else 'bad'} ." for number in range(40)]


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder with the files of all three, in their official names and encodings."""
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "TREC.train").write_text("\n".join(QUESTION_LINES) + "\nHUM:ind Who is Beyoncé ?\n", encoding="latin-1")
    (folder / "TREC.test").write_text("\n".join(QUESTION_LINES[:6]) + "\n")
    for part, lines in {"train": REVIEWS, "dev": REVIEWS[:8], "test": REVIEWS[:4]}.items():
        (folder / f"stsa.binary.{part}").write_text("\n".join([*lines, "1 crème brûlée"]) + "\n", encoding="utf-8")
    (folder / "rt-polarity.neg").write_bytes(b"".join(b"dull number%d\x85 . \n" % number for number in range(30)))
    (folder / "rt-polarity.pos").write_bytes(b"".join(b"witty number%d . \n" % number for number in range(30)))
    return folder


def sentences(data: prepared.Prepared, split: SplitName) -> list[tuple[int, str]]:
    """Labels and what the vocabulary says of the tokens."""
    names = json.loads((data.directory / "vocabulary.json").read_text(encoding="utf-8"))
    held = data.splits[split]
    return [
        (int(label), " ".join(names[token] for token in row if token))
        for row, label in zip(held.inputs, held.targets, strict=True)
    ]


def test_questions_are_told_apart_by_what_they_ask_for(official: Path, tmp_path: Path) -> None:
    data = prepared.load(prepare("trec", tmp_path / "data", source=official))
    assert (data.classes, data.shape, data.targets) == (6, (40,), "classes")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 29, "valid": 2, "test": 6}
    for label, sentence in sentences(data, "test"):
        kind = QUESTIONS[label]
        expected = " ".join(words(ASKED[kind].partition(" ")[2] + " 0"))
        assert sentence == expected
    everything = [*sentences(data, "train"), *sentences(data, "valid")]
    assert Counter(QUESTIONS[label] for label, _ in everything) == {kind: 5 + (kind == "HUM") for kind in QUESTIONS}


@pytest.mark.parametrize("name", ["trec", "sst2", "mr"])
def test_the_vocabulary_knows_the_words_of_the_train_part_alone(official: Path, tmp_path: Path, name: str) -> None:
    data = prepared.load(prepare(name, tmp_path / "data", source=official, validation_fraction=0.3))
    names = json.loads((data.directory / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(names) == data.tokens
    used = set(np.unique(data.splits["train"].inputs))
    assert used | {0, 1} == set(range(data.tokens))
    assert 1 not in used
    if name != "trec":  # whose numbered reviews are each in one part
        assert 1 in data.splits["valid"].inputs


def test_reviews_are_negative_or_positive_and_the_development_part_is_trained_on(
    official: Path, tmp_path: Path
) -> None:
    data = prepared.load(prepare("sst2", tmp_path / "data", source=official))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 47, "valid": 3, "test": 5}
    for label, sentence in sentences(data, "train"):
        assert ("good" in sentence or "brûlée" in sentence) == bool(label)


def test_a_set_without_a_test_part_has_a_tenth_held_out(official: Path, tmp_path: Path) -> None:
    data = prepared.load(prepare("mr", tmp_path / "data", source=official))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 51, "valid": 3, "test": 6}
    for split in ("train", "valid", "test"):
        for label, sentence in sentences(data, split):
            assert sentence.startswith("witty" if label else "dull")
    other = prepared.load(prepare("mr", tmp_path / "other", source=official, split_seed=1))
    assert other.fingerprint != data.fingerprint


def test_files_may_lie_in_a_subfolder_under_their_older_names(official: Path, tmp_path: Path) -> None:
    first = prepared.load(prepare("trec", tmp_path / "a", source=official))
    moved = tmp_path / "moved" / "sentences"
    moved.mkdir(parents=True)
    (official / "TREC.train").rename(moved / "train_5500.label")
    (official / "TREC.test").rename(moved / "TREC_10.label")
    assert prepared.load(prepare("trec", tmp_path / "b", source=tmp_path / "moved")).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("name", "missing"),
    [("trec", "TREC.test or TREC_10.label"), ("sst2", "stsa.binary.dev"), ("mr", "rt-polarity.pos")],
)
def test_what_is_missing_is_named_with_where_to_get_it(official: Path, tmp_path: Path, name: str, missing: str) -> None:
    (official / missing.split()[0]).unlink()
    with pytest.raises(DataError, match=f"holds no {missing}. Name the folder .* https://"):
        prepare(name, tmp_path, source=official)
    with pytest.raises(DataError, match=f"{name} is not fetched. Get .* from https://.* by `--from`"):
        prepare(name, tmp_path)
    with pytest.raises(DataError, match=f"Prepare it with `issgd prepare {name} --from PATH`"):
        prepared.load(tmp_path / name)


@pytest.mark.parametrize("line", ["WHAT:is this ?", "2 of a kind", "no label", "LOC"])
def test_a_line_that_does_not_begin_with_a_class_is_named(official: Path, tmp_path: Path, line: str) -> None:
    for name, file in (("trec", "TREC.train"), ("sst2", "stsa.binary.test")):
        path = official / file
        before = path.read_bytes()
        path.write_bytes(before + b"\n" + line.encode() + b"\n")
        if line == "LOC" and name == "trec":
            continue  # a class, and a question without words
        with pytest.raises(DataError, match=rf"{file}, line \d+: '{line[:5]}.*does not begin with a class"):
            prepare(name, tmp_path, source=official)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        read_lines(tmp_path / "empty", lambda line: (0, line))
