"""A file's content is the old or the new, never a part."""

import errno
import os
from pathlib import Path

import pytest

from issgd_cli.errors import RunError
from issgd_cli.files import replacing, write_text, writing


def test_the_new_content_takes_the_files_place_only_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_the_old_content_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    path, older = tmp_path / "a.bin", tmp_path / "older.bin"
    for content in (b"1", b"2", b"3"):
        with replacing(path, older=older) as file:
            file.write(content)
        assert path.read_bytes() == content
        assert (older.read_bytes() if older.exists() else b"") == {b"1": b"", b"2": b"1", b"3": b"2"}[content]
    with pytest.raises(ValueError, match="stop"), replacing(path, older=older) as file:
        raise ValueError("stop")
    assert (path.read_bytes(), older.read_bytes()) == (b"3", b"2")
    assert len(list(tmp_path.iterdir())) == 2


def fail_in_the_middle(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as file:
        file.write(b"ne")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_the_old_content_and_no_partial_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error):
        fail_in_the_middle(path, error)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_a_failure_where_there_was_no_file_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_in_the_middle(tmp_path / "a.bin", RuntimeError)
    assert list(tmp_path.iterdir()) == []


def test_text_is_written_as_utf_8_whatever_the_platforms_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\n∑\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\n∑\n".encode()


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "Free space there"),
        (errno.EDQUOT, "Free space there"),
        (errno.EFBIG, "Free space there"),
        (errno.ENOENT, "Put its folder back"),
        (errno.EACCES, "See to it"),
        (errno.EIO, "See to it"),
    ],
)
def test_the_remedy_suits_the_reason_that_a_file_cannot_be_written(tmp_path: Path, number: int, cure: str) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(RunError) as error, writing(path):
        raise OSError(number, os.strerror(number), str(path))
    assert str(error.value) == f"{path} cannot be written: {os.strerror(number)}. {cure} and go on with `--resume`."


def test_a_remedy_that_is_given_is_the_one_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written: .* Elsewhere\.$"), writing(tmp_path, "Elsewhere."):
        (tmp_path / "gone" / "a.txt").write_text("")
