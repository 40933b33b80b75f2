"""Headless Chromium, driven through its chromedriver by the W3C protocol, with no path to the network."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root may not have; only pages of this machine are opened
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-domain-reliability",
    "--hide-scrollbars",
    "--force-prefers-reduced-motion",  # what moves while a page loads is drawn without a GPU
    # As with a mouse: a page that believes in fingers shows every button that hovering would show.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
    # No name but this machine's is resolved, so nothing can be asked of the network or told to it.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PATIENCE = 300
"""Seconds until a condition that does not come true is an error."""
_UNTIL = """
const done = arguments[arguments.length - 1];
const check = () => {
  let value = null;
  try { value = (() => %s)(); } catch (error) { value = null; }
  if (value) { done(value); } else { setTimeout(check, 150); }
};
check();
"""


def missing() -> list[str]:
    """Return the programs that a browser takes and this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Chromium:
    """A browser with one page; close it when it is no longer needed.

    Args:
        width: Of the window, in CSS pixels.
        height: Of the window.
    """

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        command = [str(shutil.which("chromedriver")), "--port=0"]
        self._driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self._address = f"http://127.0.0.1:{self._port()}/session"
            options = [*OPTIONS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"]
            chrome = {"binary": shutil.which("chromium"), "args": options}
            wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "timeouts": {"script": 1000 * PATIENCE}}
            session = self._ask("", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._end()
            raise
        self._address += f"/{session['sessionId']}"

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser, and the driver that it was started by."""
        try:
            self._ask("", method="DELETE")
        finally:
            self._end()

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._ask("/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a JavaScript function in the page, and return what it returns."""
        return self._ask("/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true in the page, and return its value.

        Raises TimeoutError, with the text of the page, where it does not come true.
        """
        try:
            return self._ask("/execute/async", {"script": _UNTIL % expression, "args": []})
        except BrowserError as error:
            if "timeout" not in str(error):
                raise
            text = self.run("return document.body.innerText")
            raise TimeoutError(
                f"{expression} did not come true in {PATIENCE} s on a page that reads:\n{text}"
            ) from None

    def command(self, name: str, **parameters: Any) -> Any:
        """Give a command of the Chrome DevTools protocol."""
        return self._ask("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def screen(self, width: int, height: int, *, dark: bool = False, phone: bool = False, paper: bool = False) -> None:
        """Show the page as on a screen of so many CSS pixels, or as it is printed."""
        scale = 2 if phone else 1
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", media="print" if paper else "screen", features=[scheme])

    def screenshot(self) -> bytes:
        """Return what the window shows, as PNG."""
        return base64.b64decode(self._ask("/screenshot", method="GET"))

    def printed(self) -> bytes:
        """Return the page as it is printed on A4, as PDF."""
        page = {"width": 21.0, "height": 29.7}
        return base64.b64decode(self._ask("/print", {"page": page, "background": False}))

    def frame(self, selector: str) -> None:
        """Go on inside a frame of the page."""
        element = self._ask("/element", {"using": "css selector", "value": selector})
        self._ask("/frame", {"id": element})

    def top(self) -> None:
        """Go on in the page itself."""
        self._ask("/frame", {"id": None})

    def _port(self) -> str:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return found[1]
        raise BrowserError("chromedriver did not start")

    def _ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise BrowserError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(PATIENCE)
        if self._driver.stdout is not None:
            self._driver.stdout.close()
        self._profile.cleanup()


class BrowserError(Exception):
    """What the browser said no to."""


def file_url(path: Path) -> str:
    """Return the address of a file of this machine."""
    return path.absolute().as_uri()
