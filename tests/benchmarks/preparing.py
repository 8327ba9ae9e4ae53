"""`issgd prepare svhn --from`: files of the official layout and size, made up, turned into prepared data."""

import itertools
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import processes
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles, interleaved

TIME, MEMORY = "prepare: time", "prepare: peak memory"
OURS, INFLATING, SCIPY = "issgd prepare svhn --from", "inflating the files", "scipy.io.loadmat + transpose + save"
BARS = {TIME: 1.5, MEMORY: 600.0}
NAMES = ("train", "extra", "test")
ROWS = 2048
NOISE = 2.0  # grey levels; the files then compress to 0.80 of their size and inflate as fast as the official ones

_RIVAL = """
import sys
from pathlib import Path
import numpy as np
import scipy.io
source, target = map(Path, sys.argv[1:])
for path in sorted(source.glob("*.mat")):
    held = scipy.io.loadmat(path)
    np.save(target / f"{path.stem}-images.npy", held["X"].transpose(3, 2, 0, 1).reshape(held["X"].shape[3], -1))
    np.save(target / f"{path.stem}-labels.npy", held["y"].ravel() % 10)
"""


def rows(scale: Scale) -> list[Row]:
    """Time and memory; the rival stops short of split, shuffling, mean, standard deviation and fingerprint."""
    with tempfile.TemporaryDirectory(prefix="issgd-bench-") as folder:
        source, target = Path(folder) / "official", Path(folder) / "rival"
        source.mkdir()
        target.mkdir()
        for name, count in zip(NAMES, scale.official, strict=True):
            official(source / f"{name}_32x32.mat", count)
        content = sum(scale.official) * 3072
        stored = sum(path.stat().st_size for path in source.iterdir())
        peaks: dict[str, list[int]] = {OURS: [], SCIPY: []}
        targets = (Path(folder) / f"prepared-{number}" for number in itertools.count())  # always a new place

        def watched(name: str, *arguments: str | Path) -> None:
            peaks[name].append(processes.command([sys.executable, *arguments]).peak_bytes)

        def ours() -> None:
            watched(OURS, "-m", "issgd_cli", "prepare", "svhn", "--from", source, "--data-dir", next(targets))

        timings = interleaved(
            {
                INFLATING: lambda: inflate(source.iterdir()),
                OURS: ours,
                SCIPY: lambda: watched(SCIPY, "-c", _RIVAL, source, target),
            },
            scale.long_repeats,
            warm_up=0,
        )
    size = f"{sum(scale.official):,} examples"
    found = [
        Row(
            TIME,
            name,
            size,
            timings.ratios(name, INFLATING),
            "x inflating",
            timings.seconds(name).median,
            BARS[TIME] if name == OURS else None,
            note=f"made up files that compress to {stored / content:.2f}" if name == INFLATING else "",
        )
        for name in timings.rounds
    ]
    return found + [
        Row(
            MEMORY,
            name,
            size,
            Quartiles.of(values).times(1e-6),
            "MB",
            bar=BARS[MEMORY] if name == OURS else None,
            note="resident, mapped libraries included" if name == OURS else "",
        )
        for name, values in peaks.items()
    ]


def inflate(paths: Iterable[Path]) -> None:
    """Inflates every element of MAT-5 files piece by piece, and forgets it."""
    for path in paths:
        with path.open("rb") as file:
            file.seek(128)
            while tag := file.read(8):
                left, stream = struct.unpack("<II", tag)[1], zlib.decompressobj()
                while left:
                    piece = file.read(min(left, 2**18))  # the fastest of 2**16, 2**18 and 2**20
                    left -= len(piece)
                    stream.decompress(piece)


def official(path: Path, count: int) -> None:
    """A MAT-5 file as the official ones: X, uint8 (32, 32, 3, count), and y, uint8 (count, 1), compressed."""
    random = np.random.default_rng(count)
    with path.open("wb") as file:
        file.write(b"MATLAB 5.0 MAT-file, made up".ljust(124) + struct.pack("<H2s", 0x0100, b"IM"))
        digits = random.integers(1, 11, count, dtype=np.uint8)
        for name, shape, content in (
            ("X", (32, 32, 3, count), (block.tobytes() for block in _images(random, count))),
            ("y", (count, 1), iter([digits.tobytes()])),
        ):
            place = file.tell()
            file.write(bytes(8))
            deflated = zlib.compressobj(1)
            for piece in _element(name, shape, content):
                file.write(deflated.compress(piece))
            file.write(deflated.flush())
            end = file.tell()
            file.seek(place)
            file.write(struct.pack("<II", 15, end - place - 8))  # miCOMPRESSED
            file.seek(end)


def _element(name: str, shape: tuple[int, ...], content: Iterator[bytes]) -> Iterator[bytes]:
    """The miMATRIX element of a uint8 array, piece by piece."""
    size = int(np.prod(shape))
    flags = struct.pack("<IIII", 6, 8, 9, 0)  # mxUINT8
    dimensions = struct.pack(f"<II{len(shape)}i", 5, 4 * len(shape), *shape)
    named = struct.pack("<HH4s", 1, len(name), name.encode())
    padding = -size % 8
    header = flags + dimensions + bytes(-len(dimensions) % 8) + named + struct.pack("<II", 2, size)
    yield struct.pack("<II", 14, len(header) + size + padding) + header
    yield from content
    yield bytes(padding)


def _images(random: np.random.Generator, count: int) -> Iterator[NDArray[np.uint8]]:
    """Smooth colours and noise, shape (b, 3, 32, 32)."""
    place = np.linspace(0, 3, 32)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(4))).astype(np.float32)  # (32, 4), linear between
    noise = random.normal(0, NOISE, 2**24).astype(np.float32)  # far longer than what zlib remembers
    for first, last in pairwise([*range(0, count, ROWS), count]):
        coarse = random.uniform(40, 215, (last - first, 3, 4, 4)).astype(np.float32)
        smooth = weights @ coarse @ weights.T
        start = random.integers(0, len(noise) - smooth.size + 1)
        smooth += noise[start : start + smooth.size].reshape(smooth.shape)
        yield smooth.clip(0, 255).astype(np.uint8)
