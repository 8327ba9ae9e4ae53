"""The registry: preparing once, again when asked otherwise, and finding what was prepared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from issgd_cli import datasets
from issgd_cli.datasets import house_numbers, load, prepare, prepared
from issgd_cli.datasets.sources import Dataset, Part, Progress, Recipe, Request
from issgd_cli.errors import DataError
from tests.datasets.made_up import blocks_of


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Registers a tiny dataset, "tiny", and lists each time it is really made."""
    made: list[str] = []

    def recipe(request: Request) -> Recipe:
        def opened(_: Progress) -> Dataset:
            made.append("made")
            images = np.random.default_rng(0).integers(0, 256, (100, 12), dtype=np.uint8)
            parts = (Part(100, blocks_of(images, np.arange(100) % 10)) for _ in range(2))
            return Dataset((12,), 10, next(parts), next(parts), list)

        return Recipe({"size": request.size}, opened)

    monkeypatch.setitem(datasets.DATASETS, "tiny", recipe)
    return made


def test_prepares_once(tmp_path: Path, made: list[str]) -> None:
    directory = prepare("tiny", tmp_path)
    assert directory == tmp_path / "tiny"
    assert prepare("tiny", tmp_path) == directory
    assert made == ["made"]


@pytest.mark.parametrize("changed", [{"validation_fraction": 0.1}, {"split_seed": 1}, {"size": 3}, {"force": True}])
def test_prepares_again_when_asked_otherwise(tmp_path: Path, made: list[str], changed: dict[str, int]) -> None:
    prepare("tiny", tmp_path)
    prepare("tiny", tmp_path, **changed)  # type: ignore[arg-type]
    assert len(made) == 2
    prepare("tiny", tmp_path, **{**changed, "force": False})  # type: ignore[arg-type]
    assert len(made) == 2


def test_prepares_again_what_is_damaged(tmp_path: Path, made: list[str]) -> None:
    directory = prepare("tiny", tmp_path)
    (directory / "train-images.npy").write_bytes(b"")
    notices: list[str] = []
    prepare("tiny", tmp_path, progress=lambda message, _, total: None if total else notices.append(message))
    assert len(made) == 2
    assert "train-images.npy" in notices[0]
    load("tiny", tmp_path)


@pytest.mark.parametrize("linked", ["absolute", "relative", "twice", "data folder", "data folder and dataset"])
@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_a_link_stays_and_what_it_leads_to_is_replaced(
    tmp_path: Path, made: list[str], linked: str, there: bool
) -> None:
    disk, data = tmp_path / "disk", tmp_path / "data"
    target = disk / "deep" / "tiny"
    if there:
        target.mkdir(parents=True)
        (target / "old").touch()
    if linked.startswith("data folder"):
        data.symlink_to(target.parent)
        links = [data]
        if linked.endswith("dataset"):
            data.unlink()
            (tmp_path / "other").mkdir()
            data.symlink_to("other")
            (data / "tiny").symlink_to(target)
            links += [data / "tiny"]
    else:
        data.mkdir()
        links = [data / "tiny"]
        links[0].symlink_to({"absolute": str(target), "relative": "../disk/deep/tiny", "twice": "second"}[linked])
        if linked == "twice":
            links += [data / "second"]
            links[1].symlink_to(target)
    before = [os.readlink(link) for link in links]
    for _ in range(3):
        assert prepare("tiny", data, force=True) == data / "tiny"
        assert [os.readlink(link) for link in links] == before
        assert load("tiny", data).name == "tiny"
        assert target.is_dir()
        assert not target.is_symlink()
        assert not (target / "old").exists()
        beside = [path.name for place in (tmp_path, target.parent, data) for path in place.glob(".tiny.*")]
        assert set(beside) == {".tiny.lock"}
        assert (target.parent / ".tiny.lock").exists()
    assert len(made) == 3


def test_a_file_in_the_folders_place_is_left_alone(tmp_path: Path, made: list[str]) -> None:
    for name, content in (("tiny", b"precious"), ("elsewhere", b"precious")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"tiny is not a folder\. Move it away"):
        prepare("tiny", tmp_path)
    (tmp_path / "tiny").unlink()
    (tmp_path / "tiny").symlink_to("elsewhere")
    with pytest.raises(DataError, match=r"elsewhere is not a folder\. Move it away"):
        prepare("tiny", tmp_path)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
    (tmp_path / "tiny").unlink()
    (tmp_path / "tiny").symlink_to("tiny")
    with pytest.raises(DataError, match="tiny is not a folder"):
        prepare("tiny", tmp_path)
    assert made == []


def test_failure_keeps_what_was_there(tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = prepared.load(prepare("tiny", tmp_path)).fingerprint

    def recipe(_: Request) -> Recipe:
        def opened(_: Progress) -> Dataset:
            raise DataError("unreachable")

        return Recipe({}, opened)

    monkeypatch.setitem(datasets.DATASETS, "tiny", recipe)
    with pytest.raises(DataError, match="unreachable"):
        prepare("tiny", tmp_path)
    assert load("tiny", tmp_path).fingerprint == fingerprint


def test_load_checks_the_split(tmp_path: Path, made: list[str]) -> None:
    prepare("tiny", tmp_path)
    assert len(load("tiny", tmp_path, 10, validation_fraction=0.05, split_seed=42).splits["train"]) == 10
    with pytest.raises(DataError, match=r"split_seed = 42, but 7 is asked for.*Set data\.split_seed = 42"):
        load("tiny", tmp_path, split_seed=7)
    with pytest.raises(DataError, match=r"validation_fraction = 0\.05, but 0\.1"):
        load("tiny", tmp_path, validation_fraction=0.1)
    assert made == ["made"]


def test_unknown_names(tmp_path: Path) -> None:
    for use in (prepare, load):
        with pytest.raises(DataError, match=r"'cifar-10'.*Did you mean cifar10"):
            use("cifar-10", tmp_path)
        with pytest.raises(
            DataError, match="Known are svhn, svhn-train, cifar10, cifar100, cifar10n-aggre, cifar10n-random1, "
        ):
            use("zzzzz", tmp_path)


def test_unprepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="issgd prepare svhn"):
        load("svhn", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "house-numbers", "source": Path()}, "reads no files"),
        ({"name": "house-numbers", "size": 0}, "size 0"),
        ({"name": "house-numbers", "size": house_numbers.LARGEST + 1}, "between 1 and 10,000,000"),
        ({"name": "svhn", "source": Path("no-such-folder")}, "no-such-folder, named by `--from`"),
        ({"name": "svhn", "split_seed": -1}, "split_seed is -1"),
        ({"name": "svhn", "validation_fraction": 1.0}, "validation_fraction is 1"),
        ({"name": "mine.npz", "source": Path()}, "is a file itself"),
    ],
)
def test_impossible_requests(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(data_dir=tmp_path, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    """Both end well, and the data is made once."""
    code = (
        "import sys; from pathlib import Path; from issgd_cli.datasets import house_numbers, prepare\n"
        "house_numbers.TEST_SIZE = 50\n"
        "seen = []\n"
        "prepare('house-numbers', Path(sys.argv[1]), size=300, progress=lambda m, d, t: seen.append(m))\n"
        "print('made' if 'preparing house-numbers' in seen else 'found')"
    )
    run = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    both = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in both) == ["found", "made"]


@pytest.mark.slow
def test_memory_stays_small(tmp_path: Path) -> None:
    """60,000 examples of 3072 bytes, 184 MB in a compressed .mat file, within 100 MB of an idle process."""
    code = """
import resource, sys
from pathlib import Path
import scipy.io, numpy as np
from issgd_cli.datasets import prepare, svhn
folder = Path(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
before = peak()
prepare("svhn", folder, source=folder)
print(peak() - before)
"""
    import scipy.io

    for name, count in (("train", 60_000), ("test", 100)):
        pixels = np.zeros((32, 32, 3, count), np.uint8, order="F")
        pixels[0] = np.arange(count) % 251
        labels = np.ones((count, 1), np.uint8)
        scipy.io.savemat(tmp_path / f"{name}_32x32.mat", {"X": pixels, "y": labels}, do_compression=True)
    run = [sys.executable, "-c", code, str(tmp_path)]
    used = float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert used < 100
    assert json.loads((tmp_path / "svhn" / "meta.json").read_text())["counts"]["train"] == 57_000


def test_importing_is_cheap() -> None:
    code = (
        "import sys, issgd_cli.datasets; "
        "print([name for name in ('torch', 'scipy', 'pooch', 'PIL', 'matplotlib', 'typer') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
