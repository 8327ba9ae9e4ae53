"""Downloads that go on where they stopped: an interrupted one keeps a `.part` file and asks for the rest.

Not all that comes is the file: a network may answer with its login page, and a site with another version. A `.part` is
begun and continued only by what announces the file's size. Where we don't know that, `.part.json` holds what was
announced when the `.part` was begun, and the rest must announce the same.
"""

import errno
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from issgd_cli.datasets.sources import Progress
from issgd_cli.errors import DataError

ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
BACKOFF_SECONDS = 1.0

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR)
_PAGE = "text/html"


def fetch(url: str, path: Path, md5: str | None, progress: Progress, *, size: int | None = None) -> Path:
    """A file from the network, its md5 and size verified; nothing is fetched if it is already there and right.

    Args:
        url: Where it is.
        path: Where it goes. While unfinished it is `<path>.part`, from which a later call goes on.
        md5: What it must have, in hex; None where nobody has told: then only its size is looked at.
        size: Its bytes, if known; then nothing else is taken for it, and a mirror can go on where another has stopped.

    Raises:
        DataError: The site cannot be reached, or sends something else.
    """
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # progress speaks for us
    try:
        for again in (True, False):
            resuming = _Resuming(path.with_name(path.name + ".part"), size, progress)
            try:
                pooch.retrieve(url, md5 and f"md5:{md5}", fname=path.name, path=path.parent, downloader=resuming)
                resuming.clean()
                break
            except ValueError as error:  # pooch's for a wrong hash; what was fetched is gone, a retry starts afresh
                if resuming.continued and again:  # it may have begun as another file: once more from the beginning
                    continue
                raise DataError(
                    f"{url} sent {resuming.came}, and its md5 is not {md5}; it was deleted. Try again, or get the file "
                    "elsewhere and read it with `--from DIR`."
                ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}. Free some space, or use another `--data-dir`."
        ) from error
    finally:
        logger.setLevel(level)
    return path


class _Announced(NamedTuple):
    """What a reply says of the whole file. None: nothing."""

    total: int | None
    etag: str | None
    modified: str | None

    def contradicts(self, earlier: "_Announced") -> bool:
        """Whether it is another file than before; a reply with a part need not repeat everything."""
        pairs = zip(self[1:], earlier[1:], strict=True)
        return self.total != earlier.total or any(now and then and now != then for now, then in pairs)


class _Resuming:
    """A downloader for pooch that appends to a `.part` file, over several attempts and several calls.

    Attributes:
        continued: Whether what was fetched began in an earlier call.
        came: What was fetched, in words.
    """

    def __init__(self, part: Path, size: int | None, progress: Progress) -> None:
        self._part = part
        self._begun = part.with_name(part.name + ".json")
        self._aside = part.with_name(part.name + ".new")
        self._size = size
        self._progress = progress
        self.continued = self._have() > 0
        self.came = "a file"

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        failures = 0
        while True:
            before = self._have()
            try:
                whole = self._attempt(url)
                break
            except (OSError, http.client.HTTPException) as error:
                self._aside.unlink(missing_ok=True)
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise
                # A transfer that got further starts the count again: a slow site may drop it many times.
                failures = 1 if self._have() > before else failures + 1
                hopeless = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
                if failures >= ATTEMPTS or hopeless:
                    told = str(error)
                    raise DataError(
                        f"{url} cannot be fetched: {told}{'' if told.endswith('?') else '.'} What has arrived of it is "
                        "kept: run the same command again to go on. Or get the file elsewhere and read it with "
                        "`--from DIR`."
                    ) from error
                time.sleep(BACKOFF_SECONDS * 2 ** (failures - 1))
        os.replace(whole, output_file)
        if whole == self._part:
            self._begun.unlink(missing_ok=True)

    def clean(self) -> None:
        """Removes what the whole file needs no more."""
        for path in (self._part, self._begun, self._aside):
            path.unlink(missing_ok=True)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _announced_before(self) -> _Announced | None:
        """When the `.part` was begun; None where that does not matter, or is not known."""
        if self._size is not None:
            return None
        try:
            total, etag, modified = json.loads(self._begun.read_text())
            return _Announced(int(total), etag and str(etag), modified and str(modified))
        except (OSError, ValueError, TypeError):
            return None

    def _attempt(self, url: str) -> Path:
        """Fetches what is missing; the file that then holds everything.

        Raises:
            OSError, HTTPException: The transfer has ended early, or something else came.
        """
        before = self._announced_before()
        expected = before.total if before else self._size
        have = self._have()
        if expected is None or have > expected:  # the beginning of nobody knows what
            have, self.continued = 0, False
        elif have == expected:
            return self._part
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and before and (validator := before.etag or before.modified):
            headers["If-Range"] = validator
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:
                self._begun.unlink(missing_ok=True)
                raise ConnectionError(f"the file there is shorter than the {have:,} bytes fetched before") from error
            raise
        with response:
            resumed = response.status == 206
            told, kind = _announced(response, have), response.headers.get("Content-Type", "").partition(";")[0]
            if self._size is not None and told.total not in (None, self._size):
                raise ConnectionError(_instead(told.total, kind, self._size))
            if resumed and before and told.contradicts(before):
                self._begun.unlink(missing_ok=True)
                raise ConnectionError("the file there has changed since its beginning was fetched")
            # What announces nothing, or another total than before, may be no file at all: it is looked at beside it.
            known = told.total is not None and (before is None or told.total == before.total)
            place = self._part if known else self._aside
            done, total = have if resumed else 0, self._size or told.total
            if not resumed and known:
                self._begin(told)
            with place.open("ab" if resumed else "wb") as file:
                while piece := response.read(2**18):
                    file.write(piece)
                    done += len(piece)
                    if total and done > total:
                        break
                    self._progress(f"fetching {url.rpartition('/')[2]}", done, total or done)
        self.came = _sized(done, kind) + (" (a login page?)" if kind == _PAGE else "")
        if total and done != total:
            raise ConnectionError(f"{done:,} of {total:,} bytes arrived" if known else _instead(done, kind, total))
        return place

    def _begin(self, told: _Announced) -> None:
        """A `.part` from its first byte; not to be continued by what announces something else."""
        self.continued = False
        self._begun.unlink(missing_ok=True)
        self._part.write_bytes(b"")
        if self._size is None:
            self._begun.write_text(json.dumps(told))


def _announced(response: http.client.HTTPResponse, have: int) -> _Announced:
    headers = response.headers
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    if etag and etag.startswith("W/"):  # the same to a reader, but not the same bytes
        etag = None
    if response.status != 206:
        length = headers.get("Content-Length", "")
        return _Announced(int(length) if length.isdecimal() else None, etag, modified)
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
    if not have or span is None or int(span[1]) != have:
        raise ConnectionError("another part of the file came than the one asked for")
    return _Announced(int(span[2]) + 1 if span[3] == "*" else int(span[3]), etag, modified)


def _sized(size: int, kind: str) -> str:
    return f"{size:,} bytes" + (f" of {kind}" if kind.isprintable() and 0 < len(kind) < 100 else "")


def _instead(size: int | None, kind: str, wanted: int) -> str:
    page = ": a login page?" if kind == _PAGE else ""
    return f"{_sized(size or 0, kind)} where {wanted:,} were announced{page}"
