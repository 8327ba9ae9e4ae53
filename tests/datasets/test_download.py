"""Downloads against a local server: with and without Range, dropping connections, sending the wrong file."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import download
from issgd_cli.datasets.sources import silent
from issgd_cli.errors import DataError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; remembers the Range of each request."""

    content = CONTENT
    ranges_supported = True
    drop_after: int | None = None  # bytes sent before the connection is dropped
    status: int | None = None
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.mat"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status is not None:
            self.send_error(self.server.status)
            return
        content, start = self.server.content, 0
        if asked and self.server.ranges_supported:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.drop_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def part_of(path: Path, content: bytes) -> None:
    path.with_name(path.name + ".part").write_bytes(content)


def test_fetches_once(tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    path = tmp_path / "downloads" / "file.mat"
    download.fetch(server.url, path, MD5, lambda *step: seen.append(step), size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("fetching file.mat", len(CONTENT), len(CONTENT))
    download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
    assert server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["file.mat"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_goes_on_where_an_earlier_call_stopped(tmp_path: Path, server: Server, size: int | None) -> None:
    path = tmp_path / "file.mat"
    part_of(path, CONTENT[:400_000])
    download.fetch(server.url, path, MD5, silent, size=size)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"]


def test_goes_on_after_dropped_connections(tmp_path: Path, server: Server) -> None:
    server.drop_after = 90_000
    path = tmp_path / "file.mat"
    download.fetch(server.url, path, MD5, silent)
    assert path.read_bytes() == CONTENT
    assert server.asked[:3] == [None, "bytes=90000-", "bytes=180000-"]
    assert len(server.asked) == 12  # more than ATTEMPTS: each of them got further


def test_server_that_ignores_range(tmp_path: Path, server: Server) -> None:
    server.ranges_supported = False
    path = tmp_path / "file.mat"
    part_of(path, b"x" * 400_000)
    download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_part_that_is_already_whole(tmp_path: Path, server: Server, size: int | None) -> None:
    path = tmp_path / "file.mat"
    part_of(path, CONTENT)
    download.fetch(server.url, path, MD5, silent, size=size)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_part_that_is_too_long(tmp_path: Path, server: Server, size: int | None) -> None:
    path = tmp_path / "file.mat"
    part_of(path, CONTENT + b"more")
    download.fetch(server.url, path, MD5, silent, size=size)
    assert path.read_bytes() == CONTENT


def test_wrong_md5_is_deleted_so_that_a_retry_starts_afresh(tmp_path: Path, server: Server) -> None:
    server.content = CONTENT[:-1] + b"?"
    path = tmp_path / "file.mat"
    with pytest.raises(DataError, match=f"md5 is not {MD5}.*--from DIR"):
        download.fetch(server.url, path, MD5, silent)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    download.fetch(server.url, path, MD5, silent)
    assert path.read_bytes() == CONTENT


def test_damaged_file_from_before_is_replaced(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "file.mat"
    path.write_bytes(b"damaged")
    download.fetch(server.url, path, MD5, silent)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, download.ATTEMPTS)])
def test_errors_of_the_site(tmp_path: Path, server: Server, status: int, requests: int) -> None:
    server.status = status
    part_of(tmp_path / "file.mat", CONTENT[:10])
    with pytest.raises(DataError, match=f"{status}.*--from DIR"):
        download.fetch(server.url, tmp_path / "file.mat", MD5, silent)
    assert len(server.asked) == requests
    assert (tmp_path / "file.mat.part").read_bytes() == CONTENT[:10]


def test_unreachable_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    with pytest.raises(DataError, match=r"cannot be fetched.*--from DIR"):
        download.fetch("http://127.0.0.1:9/file.mat", tmp_path / "file.mat", MD5, silent)
