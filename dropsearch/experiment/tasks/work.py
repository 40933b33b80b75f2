"""`task=work`: train trials of a study until it is complete, while another process reports and tracks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from time import sleep
from typing import Any, TextIO

from dropsearch.config.schema import Config
from dropsearch.core.errors import STOPPED
from dropsearch.core.processes import this_process
from dropsearch.core.records import TrialResult
from dropsearch.experiment import engines
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.build import make_output_folder
from dropsearch.experiment.context import build_context
from dropsearch.experiment.interruption import Interruption
from dropsearch.experiment.layout import with_layout
from dropsearch.experiment.phases import phases
from dropsearch.experiment.preflight import reached
from dropsearch.experiment.studies import arm_studies, check_existing, shares_folder
from dropsearch.report.text.phrases import counted
from dropsearch.study.storage import open_storage
from dropsearch.training.feeds import ForwardingFeed
from dropsearch.training.protocols import Feed

SECONDS_BETWEEN_LINES = 60.0
MOST_WAIT = 600.0
"""Seconds that a worker waits after the search for a run that reports."""
SECONDS_BETWEEN_LOOKS = 1.0


def work(config: Config) -> int:
    """Train until the study is complete, or until the user stops it; return 0 or 130.

    The study is created if necessary, so that workers may start before the run that reports.
    """
    context = build_context(config)
    engines.use_precision(config.trainer.matmul)
    engines.use_threads(context)
    context, plan = with_layout(context, engines.plan(context))
    check_existing(context)
    engine = engines.run_engine(context, plan)
    with closing(engine), reached(context.folder):
        make_output_folder(context.folder)
        storage = open_storage(config.study.storage, context.folder / "study.journal")
        studies = [arm_studies(context, storage, name, only_trains=True) for name in config.arms]
        interruption = Interruption()
        arm_runner = ArmRunner(context, studies, engine, interruption, only_trains=True)
        with interruption.listening():
            return _train(arm_runner, storage, interruption)


def _train(arm_runner: ArmRunner, storage: Any, interruption: Interruption) -> int:
    lines = WorkerLines(lambda: _status(arm_runner))
    lines.say(f"trains trials of study {arm_runner.context.config.study.name}: {arm_runner.engine.description}")
    for phase in phases(arm_runner):
        if interruption.requested:
            break
        # A search and its repetitions write no files; a confirmation does, and later phases depend on all of it.
        shares = phase.is_search or shares_folder(arm_runner.context, storage)
        if not shares and phase.name == "confirm":
            shares = _is_shared_soon(arm_runner, storage, interruption, lines)
            if not shares and not interruption.requested:
                lines.say(
                    "leaves the retrainings to processes that share output_dir with the run that reports: "
                    f"{arm_runner.context.folder} contains no file of that run"
                )
        if shares:
            phase.train(lambda feed: CountedFeed(feed, lines))
    lines.say("stopped" if interruption.requested else "has nothing left to train")
    return STOPPED if interruption.requested else 0


def _is_shared_soon(arm_runner: ArmRunner, storage: Any, interruption: Interruption, lines: WorkerLines) -> bool:
    """Wait for the run that reports to mark output_dir, while no process retrains; return whether it did."""
    context, begun = arm_runner.context, time.monotonic()
    if not _is_retrained(arm_runner):
        lines.say(f"waits for the run that reports (task=search), at most {MOST_WAIT / 60:.0f} minutes")
    while not shares_folder(context, storage):
        if interruption.requested or time.monotonic() - begun > MOST_WAIT or _is_retrained(arm_runner):
            return False
        sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _is_retrained(arm_runner: ArmRunner) -> bool:
    """Return whether another process retrains configurations, or has done so."""
    for store in (arm.confirm for arm in arm_runner.studies):
        store.look()
        if store.results() or store.running_elsewhere():
            return True
    return False


def _status(arm_runner: ArmRunner) -> str:
    done = sum(len(store.results()) for arm in arm_runner.studies for store in arm.stores)
    return f"study {arm_runner.context.config.study.name} has {counted(done, 'trial')}"


class WorkerLines:
    """Prints one line per minute with the ended trials of the worker and of the whole study."""

    def __init__(
        self, status: Callable[[], str], clock: Callable[[], float] = time.monotonic, stream: TextIO | None = None
    ) -> None:
        self._status, self._clock, self._stream = status, clock, stream or sys.stderr
        self._began = self._printed = clock()
        self._ended = 0

    def count(self, trials: int) -> None:
        """Count trials that this worker ended."""
        self._ended += trials

    def if_due(self) -> None:
        """Print a line if the last one is a minute old."""
        if self._clock() - self._printed >= SECONDS_BETWEEN_LINES:
            self.say("trains")

    def say(self, what: str) -> None:
        """Print a line."""
        self._printed = self._clock()
        minutes = (self._printed - self._began) / 60
        speed = f", {self._ended / minutes:.1f} a minute" if self._ended and minutes > 0 else ""
        worker, ended = this_process().rpartition(":")[0], counted(self._ended, "trial")
        print(f"worker {worker} {what}; {ended}{speed}; {self._status()}", file=self._stream, flush=True)


class CountedFeed(ForwardingFeed):
    """A feed whose trials are counted but not tracked."""

    def __init__(self, feed: Feed, lines: WorkerLines) -> None:
        super().__init__(feed)
        self._lines = lines

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results and count those that were not interrupted."""
        self._feed.tell(results)
        self._lines.count(sum(not result.interrupted for result in results))

    def cancelled(self) -> bool:
        """Return whether to stop; since engines call this often, it also prints due lines."""
        self._lines.if_due()
        return self._feed.cancelled()
