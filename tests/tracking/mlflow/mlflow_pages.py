"""MLflow's own server and its pages, as a user goes through them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chromium import Chromium
from tests.free_port import free_port

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Settings of the server: no usage statistics, and no processes for jobs, each of which would import MLflow."""
PROXIED = {
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "./mlartifacts",
}
"""What ``mlflow server`` tells its workers of artifacts: the server takes and gives them."""
PATIENCE = 600
"""Seconds in which a server on a busy machine must answer."""
MOST_SAID = 4000
"""Characters of its standard error that are shown."""


@contextmanager
def served(database: Path) -> Iterator[str]:
    """Serve a run's store on this machine alone, and yield the address."""
    port = free_port()
    server = start_server(port, database, PROXIED)
    try:
        wait_for(server, port, database)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(300)


def start_server(
    port: int, database: Path, artifacts: Mapping[str, str], *, in_session: bool = False
) -> subprocess.Popen[bytes]:
    """Start what ``mlflow server`` starts, which first imports MLflow itself and takes five seconds for that."""
    command = ["uvicorn", "--host", "127.0.0.1", "--port", str(port), "mlflow.server.fastapi_app:app"]
    settings = {**artifacts, "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database}"}
    with _errors(database).open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=database.parent,
            env={**os.environ, **QUIET, **settings, "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true"},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=in_session,
        )


def _errors(database: Path) -> Path:
    return database.with_suffix(".server.log")


def wait_for(server: subprocess.Popen[bytes], port: int, database: Path) -> None:
    """Wait until the server has opened its database, which it does at the first question.

    Raises:
        RuntimeError: The server ended early; the message has the end of what it wrote to standard error.
        TimeoutError: It does not answer.
    """
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id=0"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=60):
                return
        except urllib.error.HTTPError:
            raise
        except OSError:  # no process listens at this port yet; asking again costs a millisecond
            time.sleep(0.05)
    said = _errors(database).read_text(errors="replace")[-MOST_SAID:]
    if server.poll() is not None:
        raise RuntimeError(f"mlflow server ended with status {server.returncode}: {said}")
    raise TimeoutError(f"mlflow server does not answer within {PATIENCE} s: {said}")


class Pages:
    """The pages of one experiment.

    Args:
        browser: In which they are opened.
        address: Of the server.
        experiment: Its id.
    """

    def __init__(self, browser: Chromium, address: str, experiment: str) -> None:
        self.browser = browser
        self._address = address
        self._home = f"{address}/#/"
        self._top = f"{self._home}experiments/{experiment}"

    def open(self, page: str) -> None:
        """Open a page by what follows the address of the server."""
        self._go(self._home + page)

    def runs(self, parent: str) -> None:
        """Open the table of runs as far as a parent run, folded as at a first visit, without the assistant."""
        # MLflow remembers which runs were unfolded, and to unfold one of them again would fold it.
        remembered = "Object.keys(localStorage).filter(key => key.includes('ReactComponentState'))"
        self.browser.open(f"{self._address}/health")  # a page of the server without a program
        self.browser.run(f"for (const key of {remembered}) localStorage.removeItem(key)")
        self._go(f"{self._top}/runs")
        more = "[...document.querySelectorAll('button')].find(button => button.innerText == 'Load more')?.click()"
        self.browser.until(f"document.querySelector('[row-id=\"{parent}\"]') ?? {more}")
        self.browser.run("document.querySelector('button[aria-label=Close][data-component-id*=assistant]')?.click()")

    def listed(self) -> list[str]:
        """Return the names in the table of runs, from top to bottom."""
        rows = "[...document.querySelectorAll('[row-id]')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)"
        names = f"{rows}.map(row => row.querySelector('a[href*=\"/runs/\"]')?.innerText).filter(name => name)"
        return self.browser.run(f"return {names}")

    def expand(self, run: str, shows: str) -> None:
        """Open the runs under one, and wait until that of another id is among them."""
        self.browser.run(f"document.querySelector('[row-id=\"{run}\"] button[data-component-id*=runname]').click()")
        self.browser.until(f"document.querySelector('[row-id=\"{shows}\"] a')")

    def compare(self, runs: Sequence[str]) -> None:
        """Tick runs in the table, and press the button that compares them."""
        for run in runs:
            self.browser.run(f"document.querySelector('[row-id=\"{run}\"] input.ag-checkbox-input').click()")
        button = "[...document.querySelectorAll('button')].find(e => e.innerText.trim() == 'Compare' && !e.disabled)"
        self.browser.until(button + " !== undefined")
        self.browser.run(f"{button}.click()")
        for words in (f"Comparing {len(runs)} Runs", "Metrics", "Tags"):
            self.browser.until(f"document.body.innerText.includes('{words}')")

    def last_rows(self, shows: str) -> None:
        """Scroll every table of the page to its end, and wait for words: a table holds only the rows in sight."""
        self.browser.until(
            "[...document.querySelectorAll('div')].filter(it => it.scrollHeight > it.clientHeight)"
            ".forEach(it => { it.scrollTop = it.scrollHeight; })"
            f" ?? document.body.innerText.includes('{shows}')"
        )

    def curves(self, run: str) -> Mapping[str, int]:
        """Open a run's metrics and return each chart that has a curve, with its number of points."""
        self.browser.screen(1280, 3000)  # a chart is drawn when it comes into sight
        self._follow(f"{self._top}/runs/{run}/model-metrics")
        plots = "[...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.data?.length)"
        wanted = ("dropsearch/train_loss", "val_loss")
        self.browser.until(" && ".join(f"document.body.innerText.includes('({name})')" for name in wanted))
        self.browser.until(f"{plots}.length >= {len(wanted)}")
        titled = "plot.closest('[data-testid=experiment-view-compare-runs-card]') ?? plot.parentElement.parentElement"
        pairs = f"{plots}.map(plot => [({titled}).innerText, plot.data[0].x.length])"
        found: list[tuple[str, int]] = self.browser.run(f"return {pairs}")
        return {text.rpartition("(")[2].rstrip(")"): points for text, points in found}

    def report(self, run: str) -> None:
        """Open the report where MLflow shows it, in a frame, and go on inside."""
        self._follow(f"{self._top}/runs/{run}/artifacts/report.html")
        self.browser.until("document.querySelector('iframe.mlflow-html-iframe')")
        self.browser.frame("iframe.mlflow-html-iframe")
        self.browser.until("document.querySelector('.answer')")

    def model(self, model: str) -> None:
        """Open the page of a logged model."""
        self._go(f"{self._top}/models/{model}")
        self.browser.until(f"document.body.innerText.includes('{model}')")

    def text(self) -> str:
        """Return all that can be read on the page."""
        return self.browser.run("return document.body.innerText")

    def _follow(self, url: str) -> None:
        """Go to a page as a link within the pages does, which does not load MLflow's program again."""
        if self.browser.run("return location.href").startswith(self._home):
            self.browser.run("location.href = arguments[0]", url)
        else:
            self._go(url)

    def _go(self, url: str) -> None:
        # All pages are one document: an address that differs behind the # alone would not load it again.
        self.browser.open("about:blank")
        self.browser.open(url)
