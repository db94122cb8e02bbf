"""A headless Chromium for tests, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the driver runs on this machine
NAMES = ("chromium", "chromium-browser", "google-chrome")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of a reference to an element


class Browser:
    """A page in a browser."""

    def __init__(self, session: str) -> None:
        self._session = session

    def call(self, method: str, path: str, **body: Any) -> Any:
        return _call(method, f"{self._session}/{path}", body)

    def open(self, page: Path, fragment: str = "") -> None:
        self.call("POST", "url", url="about:blank")  # a change of the fragment alone would not load the page anew
        self.call("POST", "url", url=page.as_uri() + fragment)

    def click(self, selector: str) -> None:
        found = self.call("POST", "element", using="css selector", value=selector)
        self.call("POST", f"element/{found[ELEMENT]}/click")

    def run(self, script: str) -> Any:
        return self.call("POST", "execute/sync", script=script, args=[])

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("GET", "screenshot"))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, or skip the test where it, or its driver, is not installed."""
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    with subprocess.Popen(
        [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            base = f"http://127.0.0.1:{_port(process)}/session"
            options = {"binary": binary, "args": ["--headless=new", "--no-sandbox", "--window-size=1300,1000"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            session = f"{base}/{_call('POST', base, wanted)['sessionId']}"
            try:
                yield Browser(session)
            finally:
                _call("DELETE", session)
        finally:
            process.terminate()


def _port(process: subprocess.Popen[str]) -> int:
    """Return the port the driver chose, which it says in a sentence."""
    deadline = time.monotonic() + 30
    assert process.stdout is not None
    for line in process.stdout:
        if "started successfully on port" in line:
            return int(line.split()[-1].strip("."))
        if time.monotonic() > deadline:
            break
    pytest.fail("chromedriver did not say its port")


def _call(method: str, url: str, body: Any = None) -> Any:
    data = None if method != "POST" else json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _DIRECT.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()}") from error
