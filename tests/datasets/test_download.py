"""Downloads against a local server: with and without Range, dropping connections, sending the wrong file."""

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import download
from issgd_cli.datasets.sources import silent
from issgd_cli.errors import DataError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
PAGE = b"<html>Accept our terms, please.</html>\n"


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; remembers the Range of each request."""

    content = CONTENT
    ranges_supported = True
    drop_after: int | None = None  # bytes sent before the connection is dropped
    status: int | None = None
    etag: str | None = None
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.first: list[Callable[[Handler], None] | None] = []  # how the first requests are answered; None: as usual

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
        if self.server.first and (answer := self.server.first.pop(0)):
            answer(self)
            return
        content, start = self.server.content, 0
        same = self.headers.get("If-Range") in (None, self.server.etag)
        if asked and self.server.ranges_supported and same:
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
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(content[start:][: self.server.drop_after])

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        """An answer with these headers and no others."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

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


def page(handler: Handler) -> None:
    """What a captive portal answers, whatever was asked for."""
    handler.answer(200, PAGE, Content_Type="text/html; charset=utf-8", Content_Length=str(len(PAGE)))


def page_of_no_length(handler: Handler) -> None:
    handler.answer(200, PAGE, Content_Type="text/html")


def endless_page(handler: Handler) -> None:
    handler.answer(200, CONTENT + PAGE, Content_Type="text/html")


def page_in_chunks(handler: Handler) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PAGE), PAGE)
    handler.protocol_version = "HTTP/1.1"
    handler.answer(200, chunks, Content_Type="text/html", Transfer_Encoding="chunked", Connection="close")
    handler.close_connection = True


def rest_of_another_file(handler: Handler) -> None:
    rest = PAGE[-9:]
    handler.answer(206, rest, Content_Range="bytes 400000-400008/400009", Content_Length=str(len(rest)))


def another_part(handler: Handler) -> None:
    handler.answer(206, CONTENT[:10], Content_Range=f"bytes 0-9/{len(CONTENT)}", Content_Length="10")


def part_of_nothing_known(handler: Handler) -> None:
    handler.answer(206, PAGE, Content_Length=str(len(PAGE)))


def nothing_more(handler: Handler) -> None:
    handler.answer(416, b"", Content_Range="bytes */39", Content_Length="0")


def part_of(path: Path, content: bytes, announced: object = None) -> None:
    """What an interrupted fetch leaves; `announced` (total, ETag, Last-Modified) where the size was not known."""
    path.with_name(path.name + ".part").write_bytes(content)
    if announced is not None:
        path.with_name(path.name + ".part.json").write_text(json.dumps(announced))


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


def test_goes_on_where_an_earlier_call_stopped(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "file.mat"
    part_of(path, CONTENT[:400_000])
    download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"]


ODD = [page, page_of_no_length, page_in_chunks, endless_page]
ODD_PARTS = [rest_of_another_file, another_part, part_of_nothing_known, nothing_more]


@pytest.mark.parametrize("answer", ODD)
def test_what_is_not_of_the_files_size_never_becomes_its_beginning(
    tmp_path: Path, server: Server, answer: Callable[[Handler], None]
) -> None:
    server.first = [answer]
    path = tmp_path / "file.mat"
    download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, None]
    assert [file.name for file in tmp_path.iterdir()] == ["file.mat"]


@pytest.mark.parametrize("answer", [*ODD, *ODD_PARTS])
@pytest.mark.parametrize("times", [1, download.ATTEMPTS])
def test_what_is_not_of_the_files_size_never_touches_what_has_arrived(
    tmp_path: Path, server: Server, answer: Callable[[Handler], None], times: int
) -> None:
    server.first = [answer] * times
    path = tmp_path / "file.mat"
    part_of(path, CONTENT[:400_000])
    if times == download.ATTEMPTS:
        with pytest.raises(DataError, match=r"cannot be fetched.*kept: run the same command again"):
            download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
        assert (tmp_path / "file.mat.part").read_bytes() == CONTENT[:400_000]
        assert [file.name for file in tmp_path.iterdir()] == ["file.mat.part"]
    download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert set(server.asked) == {"bytes=400000-"}


@pytest.mark.parametrize("answer", [page, page_of_no_length, page_in_chunks])
def test_what_came_instead_is_said(tmp_path: Path, server: Server, answer: Callable[[Handler], None]) -> None:
    server.first = [answer] * download.ATTEMPTS
    with pytest.raises(
        DataError, match=r"fetched: 39 bytes of text/html where 1,000,000 were announced: a login page\? What"
    ):
        download.fetch(server.url, tmp_path / "file.mat", MD5, silent, size=len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_length_nobody_announces_is_fetched_whole(tmp_path: Path, server: Server) -> None:
    for size in (len(CONTENT), None):
        server.first = [lambda handler: handler.answer(200, CONTENT[:500_000]), lambda h: h.answer(200, CONTENT)]
        path = tmp_path / f"file-{size}"
        if size is None:
            server.first.pop(0)  # without a size nobody can tell that it has ended early
        download.fetch(server.url, path, MD5, silent, size=size)
        assert path.read_bytes() == CONTENT
        assert not [*tmp_path.glob("*.part*")]
    assert set(server.asked) == {None}


def test_without_a_known_size_an_earlier_call_is_gone_on_from_only_if_the_same_is_announced(
    tmp_path: Path, server: Server
) -> None:
    server.etag = '"1"'
    begin, total = CONTENT[:400_000], len(CONTENT)
    asked: dict[str, list[str | None]] = {}
    kept: dict[str, tuple[bytes, object]] = {
        "same": (begin, [total, '"1"', None]),
        "no etag then": (begin, [total, None, None]),
        "whole": (CONTENT, [total, '"1"', None]),
        "origin unknown": (begin, None),
        "record damaged": (begin, ["many", {}]),
        "another total": (b"x" * 400_000, [total + 1, None, None]),
        "another etag": (b"x" * 400_000, [total, '"0"', None]),
        "longer than announced": (CONTENT + b"x", [total, '"1"', None]),
    }
    for name, (content, record) in kept.items():
        path = tmp_path / name
        part_of(path, content, record)
        server.asked.clear()
        download.fetch(server.url, path, MD5, silent)
        assert path.read_bytes() == CONTENT
        assert not [*tmp_path.glob("*.part*")]
        asked[name] = [*server.asked]
    rest = "bytes=400000-"
    assert asked == {
        "same": [rest],
        "no etag then": [rest],
        "whole": [],
        "origin unknown": [None],
        "record damaged": [None],
        "another total": [rest, None],
        "another etag": [rest],  # the server itself sends everything
        "longer than announced": [None],
    }


def test_without_a_known_size_what_was_announced_is_kept_for_the_next_call(tmp_path: Path, server: Server) -> None:
    server.etag, server.drop_after = '"1"', 90_000
    path = tmp_path / "file.mat"

    def interrupt(_: str, done: int, __: int) -> None:
        if done >= 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch(server.url, path, MD5, interrupt)
    assert (tmp_path / "file.mat.part").stat().st_size >= 300_000
    server.asked.clear()
    download.fetch(server.url, path, MD5, silent)
    assert path.read_bytes() == CONTENT
    assert server.asked[0] is not None


@pytest.mark.parametrize("answer", ODD)
def test_without_a_known_size_a_page_in_the_middle_leaves_what_has_arrived(
    tmp_path: Path, server: Server, answer: Callable[[Handler], None]
) -> None:
    server.etag, server.first = '"1"', [answer]
    path = tmp_path / "file.mat"
    part_of(path, CONTENT[:400_000], [len(CONTENT), '"1"', None])
    download.fetch(server.url, path, MD5, silent)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"] * 2


def test_what_was_gone_on_from_and_is_wrong_is_fetched_once_more_from_the_beginning(
    tmp_path: Path, server: Server
) -> None:
    for kept in (b"x" * 400_000, b"x" * len(CONTENT)):
        path = tmp_path / f"file-{len(kept)}"
        part_of(path, kept)
        server.asked.clear()
        download.fetch(server.url, path, MD5, silent, size=len(CONTENT))
        assert path.read_bytes() == CONTENT
        assert server.asked[-1] is None
    server.content = CONTENT[:-1] + b"?"
    part_of(tmp_path / "wrong", CONTENT[:400_000])
    server.asked.clear()
    with pytest.raises(DataError, match="1,000,000 bytes, and its md5 is not"):
        download.fetch(server.url, tmp_path / "wrong", MD5, silent, size=len(CONTENT))
    assert server.asked == ["bytes=400000-", None]


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


def test_a_file_whose_md5_nobody_has_told_is_known_by_its_size(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "file.mat"
    with pytest.raises(DataError, match=r"1,000,000 bytes where 999,999 were announced"):
        download.fetch(server.url, path, None, silent, size=999_999)
    assert not path.exists()
    assert download.fetch(server.url, path, None, silent, size=len(CONTENT)).read_bytes() == CONTENT
    asked = len(server.asked)
    download.fetch(server.url, path, None, silent, size=len(CONTENT))
    assert len(server.asked) == asked
