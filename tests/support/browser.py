"""Headless Chromium through WebDriver: what a page does, without a package for it."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
]  # fmt: skip
_PATIENCE = 60.0  # seconds until the driver answers, or a page is ready


def require_chromium() -> tuple[str, str]:
    """Return the programs chromium and chromedriver; skip, naming them, where one is absent."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        reason = "needs the programs chromium and chromedriver"
        if os.environ.get("SORAKIT_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return browser, driver


class Browser:
    """One window of a headless Chromium.

    Args:
        url: Where the driver listens.
        session: What it calls the window.
    """

    def __init__(self, url: str, session: str) -> None:
        self._url = f"{url}/session/{session}"

    def open(self, file: Path) -> None:
        """Open a page and wait until it says that it is ready."""
        self._post("url", {"url": file.resolve().as_uri()})
        end = time.monotonic() + _PATIENCE
        while self.run("return document.body.dataset.ready") != "true":
            assert time.monotonic() < end, f"not ready: {self.console()}"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Return what a script returns."""
        return self._post("execute/sync", {"script": script, "args": []})

    def settle(self) -> None:
        """Wait for two frames: Vega draws in the first after a change."""
        script = "const d = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(d))"
        self._post("execute/async", {"script": script, "args": []})

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the page in pixels."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.settle()

    def point_at(self, x: float, y: float) -> None:
        """Move the pointer, in pixels from the corner of what the window shows."""
        self._cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def screenshot(self, file: Path, *, full: bool = True) -> None:
        """Write what the page shows as PNG; the whole page, or what the window shows."""
        answer = self._cdp("Page.captureScreenshot", captureBeyondViewport=full)
        file.write_bytes(base64.b64decode(answer["data"]))

    def console(self) -> list[str]:
        """Return the messages of the console since the last call."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        entries = self._post("se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _cdp(self, command: str, **parameters: Any) -> Any:
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _call(f"{self._url}/{path}", body)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium, and end it; skip where it is absent."""
    browser, driver = require_chromium()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            options = {
                "binary": browser,
                "args": [*_ARGUMENTS, f"--user-data-dir={profile}"],
            }
            capabilities = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            _wait_for(url)
            answer = _call(f"{url}/session", {"capabilities": {"alwaysMatch": capabilities}})
            session = answer["sessionId"]
            yield Browser(url, session)
            _call(f"{url}/session/{session}", None, method="DELETE")
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            if _call(f"{url}/status", None, method="GET")["ready"]:
                return
        except urllib.error.URLError:
            pass  # not listening yet
        assert time.monotonic() < end, "chromedriver does not answer"
        time.sleep(0.05)


def _call(url: str, body: dict[str, Any] | None, *, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    # a proxy of the environment does not serve this machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=2 * _PATIENCE) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        value = json.load(error)["value"]
        raise AssertionError(f"{value['error']}: {value['message']}") from error
