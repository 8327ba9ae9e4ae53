"""Runs without their folders: all that figures and verdicts are made from, of an experiment, as one file."""

import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from issgd_cli.errors import RunError
from issgd_cli.files import replacing, writing
from issgd_cli.runs.folder import RunFolder

NAME = "traces.tar.gz"  # beside the report
MOST_FILES, MOST_BYTES = 100_000, 2 * 2**30  # unpacked
INDEX = "index.json"
Mode = Literal["exact", "relaxed"]


@dataclass(frozen=True)
class Sources:
    """Where an experiment's figures and verdicts come from.

    Attributes:
        folders: Its runs, in the experiment's order.
        expected: How many runs it asks for, but for those that choose.
        timelines: The runs of figure 1.
        maps: (setting, seed) -> the CSV of a staleness map.
    """

    folders: Sequence[RunFolder]
    expected: int
    timelines: Mapping[Mode, RunFolder] = field(default_factory=dict)
    maps: Mapping[tuple[str, int], Path] = field(default_factory=dict)


def pack(sources: Sources, path: Path, with_events: Sequence[RunFolder], remedy: str) -> None:
    """Writes the runs' configurations, manifests and traces into one compressed file; the same runs, the same bytes.

    Args:
        sources: What to pack.
        path: Of the file.
        with_events: Whose events go along; figure 1 needs them, and they are many.
        remedy: What to do where it cannot be written.

    Raises:
        RunError: It cannot be written.
    """
    files: dict[str, Path] = {}
    for folder in [*sources.folders, *sources.timelines.values()]:
        events = [folder.events] if folder in with_events else []
        for file in (folder.config, folder.manifest, folder.trace, *events):
            if file.exists():
                files[f"{_name(folder)}/{file.name}"] = file
    maps = {key: f"map/{number:03d}.csv" for number, key in enumerate(sources.maps)}
    files |= {name: sources.maps[key] for key, name in maps.items()}
    index = {
        "runs": [_name(folder) for folder in sources.folders],
        "expected": sources.expected,
        "timelines": {mode: _name(folder) for mode, folder in sources.timelines.items()},
        "maps": [[*key, name] for key, name in maps.items()],
    }
    with writing(path, remedy), replacing(path) as target:
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as archive,
        ):
            _add(archive, INDEX, json.dumps(index, indent=1).encode())
            for name, source in files.items():
                _add(archive, name, source.read_bytes())


@contextmanager
def unpacked(path: Path) -> Iterator[Sources]:
    """What was packed, in a folder that is gone when the block ends.

    Raises:
        RunError: It is no such file.
    """
    place = Path(tempfile.mkdtemp(prefix="issgd-"))
    try:
        yield _read(path, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _read(path: Path, place: Path) -> Sources:
    try:
        with tarfile.open(path, "r:gz") as archive:
            files: set[str] = set()
            left = MOST_BYTES
            for member in archive:
                left -= member.size
                if left < 0 or len(files) >= MOST_FILES:
                    raise ValueError("it holds more than the traces of an experiment can be")
                files.add(_extract(archive, member, place))
        index: dict[str, Any] = json.loads((place / INDEX).read_text())
        folders = [*index["runs"], *index["timelines"].values()]
        named = [*(f"{name}/manifest.json" for name in folders), *(name for _, _, name in index["maps"])]
        if absent := [name for name in named if name not in files]:  # which are within the folder, as they are checked
            raise ValueError(f"without {', '.join(absent)}")
        return Sources(
            [RunFolder(place / name) for name in index["runs"]],
            int(index["expected"]),
            {mode: RunFolder(place / name) for mode, name in index["timelines"].items()},
            {(setting, seed): place / name for setting, seed, name in index["maps"]},
        )
    except (
        OSError,
        EOFError,
        zlib.error,
        tarfile.TarError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise RunError(
            f"{path} holds no runs that can be read ({error}). Write it again with `issgd plot EXPERIMENT.toml --pack`."
        ) from None


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> str:
    """A plain file, into the folder and nowhere else; its name."""
    name = PurePosixPath(member.name)
    if not member.isreg() or member.issparse() or name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{member.name!r} is no file of a run")
    content = archive.extractfile(member)
    if content is None:
        raise ValueError(f"{member.name!r} is no file of a run")
    target = place / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)
    return str(name)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Without owner, mode and time, which differ from machine to machine."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _name(folder: RunFolder) -> str:
    """<experiment>/<run>/<seed>."""
    return "/".join(folder.path.absolute().parts[-3:])
