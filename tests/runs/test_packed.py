"""All runs of an experiment as one file: the same bytes from the same runs, and runs again from the file."""

import io
import tarfile
from pathlib import Path

import pytest

from issgd_cli.claims import load
from issgd_cli.errors import RunError
from issgd_cli.runs.packed import INDEX, NAME, Sources, pack, unpacked
from tests.figures.conftest import write_run


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Two runs, not in the order of their paths, one of which failed; a map; figure 1's run."""
    results = tmp_path / "results"
    folders = [write_run(results, "b", until=500, events=True), write_run(results, "a", state="failed", until=100)]
    (tmp_path / "map.csv").write_text("workers\n3\n")
    return Sources(folders, 4, {"relaxed": folders[0]}, {("b", 0): tmp_path / "map.csv"})


@pytest.fixture
def file(tmp_path: Path, sources: Sources) -> Path:
    pack(sources, tmp_path / "traces.tar.gz", [sources.folders[0]], "")
    return tmp_path / "traces.tar.gz"


def test_what_is_unpacked_is_what_was_packed(sources: Sources, file: Path) -> None:
    before = load(sources.folders, sources.expected)
    with unpacked(file) as found:
        after = load(found.folders, found.expected)
        assert [run.name for run in after.runs] == [run.name for run in before.runs]
        assert after.tally() == before.tally() == "1 of 4 runs finished, 1 failed, 2 missing"
        for one, other in zip(sources.folders, found.folders, strict=True):
            for name in ("config.toml", "manifest.json", "trace.csv"):
                assert (other.path / name).read_bytes() == (one.path / name).read_bytes()
        assert [folder.events.exists() for folder in found.folders] == [True, False]
        assert found.timelines == {"relaxed": found.folders[0]}
        assert found.maps[("b", 0)].read_text() == "workers\n3\n"
        place = found.folders[0].path
    assert not place.exists()


def test_the_same_runs_are_packed_into_the_same_bytes_also_from_a_pack(
    tmp_path: Path, sources: Sources, file: Path
) -> None:
    with unpacked(file) as found:
        pack(found, tmp_path / "again.tar.gz", [found.folders[0]], "")
    assert (tmp_path / "again.tar.gz").read_bytes() == file.read_bytes()


def test_a_pack_names_no_folder_of_the_machine(tmp_path: Path, file: Path) -> None:
    with tarfile.open(file) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if str(tmp_path) in member.name]
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}


def test_a_run_without_a_trace_is_packed_too(tmp_path: Path, sources: Sources) -> None:
    sources.folders[1].trace.unlink()
    pack(sources, tmp_path / "traces.tar.gz", [], "")
    with unpacked(tmp_path / "traces.tar.gz") as found:
        assert len(load(found.folders).runs[1].trace) == 0


def archive_of(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    "files",
    [
        {},
        {INDEX: "[]"},
        {INDEX: "{"},
        {INDEX: '{"runs": []}'},
        {INDEX: '{"runs": ["e/r/seed-000"], "expected": 1, "timelines": {}, "maps": []}'},
        {"../outside": "", INDEX: '{"runs": [], "expected": 0, "timelines": {}, "maps": []}'},
        {"/outside": "", INDEX: '{"runs": [], "expected": 0, "timelines": {}, "maps": []}'},
    ],
)
def test_an_archive_of_something_else_is_told(tmp_path: Path, files: dict[str, str]) -> None:
    path = archive_of(tmp_path / "traces.tar.gz", **files)
    with pytest.raises(RunError, match=r"traces\.tar\.gz .*--pack"), unpacked(path):
        pass
    assert not (tmp_path / "outside").exists()


def test_a_torn_file_is_told(tmp_path: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(RunError, match="--pack"), unpacked(file):
        pass


def packed_with(path: Path, index: str, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member)
        content = tarfile.TarInfo(INDEX)
        content.size = len(index)
        archive.addfile(content, io.BytesIO(index.encode()))
    return path


@pytest.mark.parametrize(
    "index",
    [
        '{"runs": ["%s"], "expected": 1, "timelines": {}, "maps": []}',
        '{"runs": [], "expected": 1, "timelines": {"exact": "%s"}, "maps": []}',
        '{"runs": [], "expected": 1, "timelines": {}, "maps": [["a", 0, "%s/manifest.json"]]}',
        "[" * 100_000,
    ],
)
def test_an_index_leads_nowhere_but_into_the_pack(tmp_path: Path, index: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("{}")
    path = packed_with(tmp_path / NAME, index.replace("%s", str(outside)))
    with pytest.raises(RunError, match="holds no runs that can be read"), unpacked(path):
        pass


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("loop")
    member.type, member.linkname = kind, "loop"
    path = packed_with(tmp_path / NAME, "{}", member)
    with pytest.raises(RunError, match="holds no runs that can be read"), unpacked(path):
        pass


def test_a_pack_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("issgd_cli.runs.packed.MOST_BYTES", 10)
    path = packed_with(tmp_path / NAME, '{"runs": [], "expected": 0, "timelines": {}, "maps": []}')
    with pytest.raises(RunError, match="more than the traces of an experiment can be"), unpacked(path):
        pass
