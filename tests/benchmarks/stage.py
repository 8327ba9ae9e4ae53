"""What several benchmarks play on: a synthetic dataset on disk, its tables of norms, configurations, databases."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Layout, Records, Split
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import serving
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.prepared import Split as PreparedSplit
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.runs.folder import RunFolder
from tests.benchmarks.scale import Scale

HELD_OUT = 2048  # examples of the validation and of the test split
CPU = torch.device("cpu")
NEXT_VERSION = 4  # of the parameters: `records` are of versions 1 to 3


def network(scale: Scale, seed: int = 0) -> nn.Sequential:
    """The paper's model, initialised."""
    model = mlp(scale.features, scale.hidden, scale.classes)
    initialise(model, seed)
    return model


def minibatch(scale: Scale, size: int) -> tuple[Tensor, Tensor]:
    """Standardised inputs, shape (size, features), and labels, shape (size,), of no meaning."""
    random = torch.Generator().manual_seed(size)
    inputs = torch.randn(size, scale.features, generator=random)
    return inputs, torch.randint(scale.classes, (size,), generator=random)


@contextlib.contextmanager
def dataset(scale: Scale, examples: int | None = None, sparse: bool = False) -> Iterator[Prepared]:
    """A memory-mapped uint8 dataset in a temporary folder.

    Args:
        examples: N of the training split; None: the scale's.
        sparse: Leave the images all zero, which takes no space on the disk; else noise, 1.8 GB of it.
    """
    count = scale.examples if examples is None else examples
    with tempfile.TemporaryDirectory(prefix="issgd-bench-") as folder:
        for name, rows in (("train", count), ("held-out", HELD_OUT)):
            _write_images(Path(folder) / f"{name}.npy", rows, scale.features, sparse)
        yield opened(Path(folder), scale.classes)


def opened(folder: Path, classes: int) -> Prepared:
    """The dataset in a folder that `dataset` has made; for processes that share it."""
    random = np.random.default_rng(1)
    splits: dict[Split, PreparedSplit] = {}
    for split in SPLITS:
        images = np.load(folder / ("train.npy" if split == "train" else "held-out.npy"), mmap_mode="r")
        splits[split] = PreparedSplit(images, random.integers(0, classes, len(images)))
    features = images.shape[1]
    mean, std = np.full(features, 127.5, np.float32), np.full(features, 73.9, np.float32)
    return Prepared("synthetic", splits, mean, std, classes, "synthetic", (features,))


def folder_of(data: Prepared) -> Path:
    """Where `dataset` has made it."""
    images = data.splits["train"].inputs
    if not isinstance(images, np.memmap) or images.filename is None:
        raise TypeError("This dataset is not in a file.")
    return Path(images.filename).parent


def _write_images(path: Path, rows: int, features: int, sparse: bool) -> None:
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, features)}
        np.lib.format.write_array_header_1_0(file, header)
        if sparse:
            file.truncate(file.tell() + rows * features)
            return
        random = np.random.default_rng(0)
        for first in range(0, rows, 8192):
            file.write(random.bytes((min(rows, first + 8192) - first) * features))


def config(scale: Scale, *settings: str) -> Config:
    """A relaxed run of the scale's network, `section.key=value` strings on top.

    Raises:
        ConfigError: This version knows no such setting.
    """
    base = [
        f"model.hidden={list(scale.hidden)}",
        f"worker.chunk_size={scale.chunk_size}",
        f"master.minibatch_size={scale.batches[0]}",
        "optimizer.learning_rate=0.0001",  # the labels mean nothing: at 0.01 some hundred steps could diverge
        "master.mode=relaxed",
        "master.seconds=100000",
        "master.checkpoint_every_seconds=100000",
    ]
    nested = assignments([*base, *settings])
    return resolve(nested, "benchmark")


def layout(scale: Scale, examples: int | None = None) -> Layout:
    """Of `dataset(scale, examples)`."""
    return Layout(scale.examples if examples is None else examples, HELD_OUT, HELD_OUT, scale.chunk_size)


def layout_of(data: Prepared, config: Config) -> Layout:
    """Of a dataset under a configuration."""
    return Layout(**data.sizes, chunk_size=config.worker.chunk_size)


def records(layout: Layout, split: Split) -> Records:
    """Every example of a split scored at two versions: log-normal norms, a factor 1.3 or so between the versions."""
    random = np.random.default_rng([len(split), layout.examples(split)])
    examples, chunks = layout.examples(split), layout.chunks(split)
    norms = random.lognormal(0, 1.5, examples)
    return Records(
        norms=norms.astype(np.float32),
        previous_norms=(norms * random.lognormal(0, 0.3, examples)).astype(np.float32),
        losses=random.exponential(1, examples).astype(np.float32),
        errors=random.integers(0, 2, examples, dtype=np.uint8),
        versions=random.integers(2, 4, chunks).astype(np.int32),
        previous_versions=np.ones(chunks, np.int32),
        seconds=random.uniform(0, 1, chunks),
        gradient_norms2=random.exponential(1, chunks),
        gradient_versions=np.ones(chunks, np.int32),
    )


def all_records(layout: Layout) -> dict[Split, Records]:
    """Of every split."""
    return {split: records(layout, split) for split in SPLITS}


def memory_database(layout: Layout) -> MemoryDatabase:
    """A database within this process, everything scored."""
    database = MemoryDatabase(time.monotonic)
    database.begin(layout, 10.0, all_records(layout))
    return database


@contextlib.contextmanager
def run_folder() -> Iterator[RunFolder]:
    """A run's folder for an actor to write to."""
    with tempfile.TemporaryDirectory(prefix="issgd-bench-") as place:
        folder = RunFolder(Path(place))
        for path in (folder.logs, folder.checkpoint.parent, folder.audits):
            path.mkdir()
        yield folder


@contextlib.contextmanager
def real_database(layout: Layout) -> Iterator[tuple[RedisDatabase, str, int]]:
    """A database in a server of its own, everything scored; with it the server's URL and process number."""
    with tempfile.TemporaryDirectory(prefix="issgd-bench-") as folder, serving(Path(folder) / "log") as server:
        database = RedisDatabase(server.url, "bench")
        database.begin(layout, 10.0, all_records(layout))
        try:
            yield database, server.url, server.process.pid
        finally:
            database.close()


def norms_of(layout: Layout) -> NDArray[np.float64]:
    """The training split's norms of `records`, shape (N,)."""
    return records(layout, "train").norms.astype(np.float64)
