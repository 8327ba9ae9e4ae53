"""A headless Chromium, spoken to over a pipe by its DevTools protocol; no package beside the browser is needed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--hide-scrollbars",
)  # fmt: skip
PATIENCE_SECONDS = 60.0
FIRST_FREE = 10  # the browser reads from descriptor 3 and writes to 4; ours stay clear of these


class Tab:
    """One page in the browser, and what went wrong in it."""

    def __init__(self, commands: int, replies: int) -> None:
        self.complaints: list[str] = []
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._replies = os.fdopen(replies, "rb", buffering=0)
        self._read = b""
        self._count = 0
        self._loaded = False
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Loads a file, in a window of so many pixels, until all of it is there."""
        self.complaints.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self._loaded = False
        self.call("Page.navigate", url=page.as_uri())
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """What an expression of the page's script language comes to; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self) -> bytes:
        """A PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        return base64.b64decode(shot["data"])

    def paper(self) -> bytes:
        """The page printed, a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def close(self) -> None:
        """Ends the connection, and with it the browser."""
        self._commands.close()
        self._replies.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            assert select.select([self._replies], [], [], PATIENCE_SECONDS)[0], "the browser says nothing"
            block = self._replies.read(1 << 20)
            assert block, "the browser is gone"
            self._read += block
        text, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(parameters["args"]))
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent" and parameters["request"]["url"].startswith("http"):
            self.complaints.append(f"asks for {parameters['request']['url']}")


@contextlib.contextmanager
def tab(place: Path) -> Iterator[Tab]:
    """A tab of a fresh browser, whose profile lies in `place`; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    theirs_in, commands = _clear(os.pipe())
    replies, theirs_out = _clear(os.pipe())

    def connect() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    process = subprocess.Popen(
        [program, *ARGUMENTS, f"--user-data-dir={place}"],
        pass_fds=(3, 4),
        preexec_fn=connect,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        opened = Tab(commands, replies)
        yield opened
        opened.close()
    finally:
        process.terminate()
        process.wait(20)


def _clear(ends: tuple[int, int]) -> list[int]:
    """The same descriptors at numbers that nobody else asks for."""
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for end in ends]
    for end in ends:
        os.close(end)
    return moved
