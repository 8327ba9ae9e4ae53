"""CIFAR-10 and CIFAR-100: 32x32 RGB photographs, 50,000 for train and valid, 10,000 for test; the same shape as SVHN.

Ten classes, or a hundred (the fine labels, not the twenty coarse ones). Read are the official binary versions and the
official Python versions; the latter's batches are pickles, which are walked here without running anything they say.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html; no licence is stated, use for research is usual.
"""

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from issgd_cli.datasets import download, pickles
from issgd_cli.datasets.sources import (
    Block,
    Dataset,
    Part,
    Progress,
    Recipe,
    Request,
    described,
    identities,
    open_for_reading,
    refuse_size,
)
from issgd_cli.errors import DataError

BASE_URL = "https://www.cs.toronto.edu/~kriz/"
SHAPE = (3, 32, 32)
FEATURES = 3072


class Found(NamedTuple):
    """Files that hold a set.

    Attributes:
        files: An archive alone, or each batch.
        suffix: Of the batches' names; None: they are in an archive.
    """

    files: list[Path]
    suffix: str | None


@dataclass(frozen=True)
class Cifar:
    """One of the two sets.

    Attributes:
        name: As `issgd prepare` knows it, and the subfolder of what is fetched.
        title: For people.
        classes: How many.
        size: Bytes of the archive that is fetched, the first of `official`.
        official: md5 of the archives, the binary version's and the Python version's.
        folders: What these hold: each suffix of the batches, and their folder.
        train, test: Names of the batches.
        label: Of the Python version: where a batch has its labels.
        label_bytes: Of the binary version: bytes of labels before each image, of which the last counts.
        most: Bytes of the largest batch, with room to spare.
    """

    name: str
    title: str
    classes: int
    size: int
    official: Mapping[str, str]
    folders: Mapping[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    label: str
    label_bytes: int
    most: int

    def recipe(self, request: Request) -> Recipe:
        """The set, fetched, or read from an official archive or a folder.

        The folder may hold an archive, an extracted folder, or the batches themselves.

        Raises:
            DataError: It is not in the folder; or `size` was given.
        """
        refuse_size(self.name, request)
        if request.source is None:
            archive = next(iter(self.official))
            return Recipe(
                {"origin": "official", "files": [archive]},
                lambda progress: self.read(self.fetched(request.downloads, progress)),
            )
        found = self.found(request.source)
        return Recipe({"origin": "files", "files": identities(found.files)}, lambda progress: self.read(found))

    def fetched(self, downloads: Path, progress: Progress) -> Found:
        """The archive of the binary version, from the official site."""
        archive, md5 = next(iter(self.official.items()))
        path = downloads / self.name / archive
        return Found([download.fetch(BASE_URL + archive, path, md5, progress, size=self.size)], None)

    def found(self, source: Path) -> Found:
        """What lies in a folder, or is an archive itself.

        Raises:
            DataError: The set does not, or a batch is missing.
        """
        if source.is_file():
            return Found([source], None)
        for folder in (source, *(source / name for name in self.folders.values())):
            for suffix in self.folders:
                files = [folder / (batch + suffix) for batch in (*self.train, *self.test)]
                if any(path.is_file() for path in files):
                    for path in files:
                        if not path.is_file():
                            raise DataError(
                                f"{folder} lacks {path.name}. Fetch {self.title} again, or leave out `--from`."
                            )
                    return Found(files, suffix)
        for name in self.official:
            if (source / name).is_file():
                return Found([source / name], None)
        raise DataError(
            f"{source} holds no {self.title}: neither {' nor '.join(self.official)} nor "
            f"{' nor '.join(self.folders.values())}. Name the folder that holds one of them, or leave out `--from` to "
            "fetch it."
        )

    def read(self, found: Found) -> Dataset:
        """All examples, in 184 MB of memory.

        Raises:
            DataError: A file is damaged, or not what its name says.
        """
        archive = found.files[0]
        try:
            held = dict(self._in_archive(archive) if found.suffix is None else self._in_files(found))
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DataError(f"{archive} cannot be read as a .tar.gz ({error}): damaged. Fetch it again.") from error
        if missing := [name for name in (*self.train, *self.test) if name not in held]:
            raise DataError(f"{archive} lacks {missing[0]}: not {self.title}, or truncated. Fetch it again.")

        def part(names: tuple[str, ...]) -> Part:
            return Part(sum(len(held[name][1]) for name in names), (held[name] for name in names))

        def sources() -> list[dict[str, Any]]:
            return [described(path, self.official.values()) for path in found.files]

        return Dataset(SHAPE, self.classes, part(self.train), part(self.test), sources)

    def binary_batch(self, content: bytes, what: str) -> Block:
        """A batch of the binary version: records of the label bytes and 3072 pixels in CHW order.

        Raises:
            DataError: The content is not whole records.
        """
        record = FEATURES + self.label_bytes
        if not content or len(content) % record:
            raise DataError(
                f"{what} has {len(content):,} bytes, not a multiple of {record:,}: truncated. Fetch it again."
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, record)
        return records[:, self.label_bytes :], records[:, self.label_bytes - 1]

    def python_batch(self, content: bytes, what: str) -> Block:
        """A batch of the Python version, a pickle of {"data": uint8 (N, 3072), "labels": list, ...}.

        Raises:
            DataError: Not such a pickle.
        """
        wrong = DataError(
            f"{what} is not a {self.title} batch of the Python version, or a damaged one. Fetch it again, "
            f"or use {next(iter(self.official))}."
        )
        try:
            batch = pickles.held(content)
            images, labels = pickles.array(batch["data"]), batch[self.label]
        except (ValueError, KeyError, TypeError) as error:
            raise wrong from error
        if not isinstance(labels, list) or not labels or images.dtype != np.uint8:
            raise wrong
        if images.shape != (len(labels), FEATURES):
            raise wrong
        if not all(type(label) is int and 0 <= label < 256 for label in labels):
            raise wrong
        return images, np.array(labels, np.uint8)

    def _batch(self, file: IO[bytes], suffix: str, what: str) -> Block:
        content = file.read(self.most + 1)
        if len(content) > self.most:
            raise DataError(f"{what} has more than {self.most:,} bytes: not {self.title}'s. Fetch it again.")
        return self.binary_batch(content, what) if suffix == ".bin" else self.python_batch(content, what)

    def _in_files(self, found: Found) -> Iterator[tuple[str, Block]]:
        for path in found.files:
            with open_for_reading(path) as file:
                yield path.name.removesuffix(found.suffix or ""), self._batch(file, path.suffix, str(path))

    def _in_archive(self, path: Path) -> Iterator[tuple[str, Block]]:
        """The batches are read from the archive; nothing is extracted to the disk."""
        with open_for_reading(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                suffix = ".bin" if member.name.endswith(".bin") else ""
                batch = Path(member.name).name.removesuffix(suffix)
                known = member.isfile() and batch in (*self.train, *self.test)
                if known and (content := archive.extractfile(member)) is not None:
                    yield batch, self._batch(content, suffix, f"{path}: {batch}")


CIFAR10 = Cifar(
    "cifar10",
    "CIFAR-10",
    10,
    170_052_171,
    {
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    },
    {".bin": "cifar-10-batches-bin", "": "cifar-10-batches-py"},
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    ("test_batch",),
    "labels",
    1,
    64 * 2**20,
)
CIFAR100 = Cifar(
    "cifar100",
    "CIFAR-100",
    100,
    168_513_733,
    {
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    },
    {".bin": "cifar-100-binary", "": "cifar-100-python"},
    ("train",),
    ("test",),
    "fine_labels",
    2,
    192 * 2**20,
)
