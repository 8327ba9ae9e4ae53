"""Downloads that go on where they stopped: an interrupted one keeps a `.part` file and asks for the rest."""

import errno
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from issgd_cli.datasets.sources import Progress
from issgd_cli.errors import DataError

ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
BACKOFF_SECONDS = 1.0

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR)


def fetch(url: str, path: Path, md5: str, progress: Progress, *, size: int | None = None) -> Path:
    """A file from the network, its md5 verified; nothing is fetched if it is already there and right.

    Args:
        url: Where it is.
        path: Where it goes. While unfinished it is `<path>.part`, from which a later call goes on.
        md5: What it must have, in hex.
        size: Its bytes, if known; then a file cut short is noticed before its md5 is computed.

    Raises:
        DataError: The site cannot be reached, or what it sends has another md5.
    """
    import pooch

    resuming = _Resuming(path.with_name(path.name + ".part"), size, progress)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # progress speaks for us
    try:
        pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=resuming)
    except ValueError as error:  # pooch's for a wrong hash; what was fetched is gone, so that a retry starts afresh
        raise DataError(
            f"{url} sent a file whose md5 is not {md5}; it was deleted. Try again, or get the file elsewhere and "
            "read it with `--from DIR`."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}. Free some space, or use another `--data-dir`.") from error
    finally:
        logger.setLevel(level)
    return path


class _Resuming:
    """A downloader for pooch that appends to a `.part` file, over several attempts and several calls."""

    def __init__(self, part: Path, size: int | None, progress: Progress) -> None:
        self._part = part
        self._size = size
        self._progress = progress

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        failures = 0
        while True:
            before = self._have()
            try:
                self._attempt(url)
                break
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise
                # A transfer that got further starts the count again: a slow site may drop it many times.
                failures = 1 if self._have() > before else failures + 1
                hopeless = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
                if failures >= ATTEMPTS or hopeless:
                    raise DataError(
                        f"{url} cannot be fetched: {error}. What has arrived is kept: run the same command again to "
                        "go on. Or get the file elsewhere and read it with `--from DIR`."
                    ) from error
                time.sleep(BACKOFF_SECONDS * 2 ** (failures - 1))
        os.replace(self._part, output_file)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _attempt(self, url: str) -> None:
        """Fetch what is missing; raises when the transfer ends early."""
        have = self._have()
        if self._size is not None and have >= self._size:
            if have == self._size:
                return
            self._part.unlink()
            have = 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing after what we have: whole (the md5 will tell) or another file
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                    return
                self._part.unlink()
                raise ConnectionError("the file there is shorter than what was fetched before") from error
            raise
        with response:
            sent = response.headers.get("Content-Range", "")
            resumed = have > 0 and response.status == 206 and sent.startswith(f"bytes {have}-")
            done = have if resumed else 0  # a server that ignores Range sends everything again
            length = response.headers.get("Content-Length")
            total = self._size or (done + int(length) if length is not None else 0)
            with self._part.open("ab" if resumed else "wb") as file:
                while piece := response.read(2**18):
                    file.write(piece)
                    done += len(piece)
                    self._progress(f"fetching {url.rpartition('/')[2]}", done, total or done)
            if total and done != total:
                raise ConnectionError(f"{done:,} of {total:,} bytes arrived")
