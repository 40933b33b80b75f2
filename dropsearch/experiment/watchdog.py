"""Messages about steps and trials without progress, and the end of processes that hang."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from dropsearch.core.printable import tell
from dropsearch.core.processes import ProcessorUse
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.repetition import repeating
from dropsearch.core.user_errors import described
from dropsearch.training.feeds import ForwardingFeed
from dropsearch.training.multiprocess import CrewEngine
from dropsearch.training.protocols import Feed

QUIET, STALL, LOOK = 60.0, 300.0, 5.0
"""Seconds until an idle process is reported; until a busy one without progress is reported (again after twice that time
and so on); and between two checks."""


@contextmanager
def named_if_still(step: str) -> Iterator[None]:
    """Print a line if this process makes no progress in a step."""
    use, patience = ProcessorUse(os.getpid()), STALL
    began = use.moved

    def look() -> list[str]:
        nonlocal patience
        stood, passed, lines = use.stood(), time.monotonic() - began, []
        if stood >= QUIET and not use.is_named:
            use.is_named = True
            lines.append(
                f"{step} makes no progress: no processor time for {stood:.0f} s; a data loader, or code of the module, "
                "may wait for something that never comes: Ctrl-C stops the run"
            )
        if passed >= patience:
            patience *= 2
            lines.append(f"{step} has taken {passed:.0f} s so far: Ctrl-C stops the run")
        return lines

    with looking(look):
        yield


@contextmanager
def looking(look: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Call `look` every `LOOK` seconds while the context lasts, and print the lines that it returns."""
    shown: set[str] = set()

    def print_lines() -> None:
        try:
            lines = look()
        except Exception as error:
            line = f"checking for progress failed and continues: {described(error)}"
            lines = [] if line in shown else [line]
            shown.add(line)
        for line in lines:
            tell(line)

    with repeating(print_lines, LOOK, "watch"):
        yield


MOST_NAMED = 4
"""Maximum number of trials named in a line."""


class Watchdog:
    """Tracks the progress of trials and the activity of their processes."""

    def __init__(self, workers: CrewEngine | None = None) -> None:
        self._workers = workers
        self._doing: dict[str, tuple[str, float]] = {}
        """State of each trial and the time since it changed, by trial key."""
        self._processes: dict[int, ProcessorUse] = {}
        self._heard, self._patience = time.monotonic(), STALL

    def hear(self, doing: Mapping[str, str], ended: Sequence[TrialResult] = ()) -> None:
        """Update the states of trials by key, and remove ended trials."""
        self._heard, self._patience = time.monotonic(), STALL
        self._doing = {**self._doing, **{key: (what, self._heard) for key, what in doing.items()}}
        for result in ended:
            self._doing.pop(result.spec.key, None)

    def look(self) -> list[str]:
        """Kill hanging processes; return the lines to print, none if trials progress."""
        doing = dict(self._doing)
        at_work = self._workers.processes() if self._workers else {os.getpid(): list(doing)}
        self._processes = {pid: self._processes.get(pid) or ProcessorUse(pid) for pid, keys in at_work.items() if keys}
        lines = [self._stood(pid, at_work[pid], doing) for pid in self._processes]
        return [line for line in (*lines, self._unended(doing)) if line]

    def _stood(self, pid: int, keys: Sequence[str], doing: Mapping[str, tuple[str, float]]) -> str:
        """Return a message about a process without processor time and without reports."""
        process = self._processes[pid]
        stood = process.stood(heard=max((doing[key][1] for key in keys if key in doing), default=0.0))
        if self._workers and stood > STALL:
            why = f"no progress for {stood:.0f} s: a deadlock, or a wait for something that never came"
            self._workers.end_process(pid, why)
            return ""
        if stood < QUIET or process.is_named:
            return ""
        process.is_named = True
        end = f"it is ended after {STALL:.0f} s" if self._workers else "Ctrl-C stops the run"
        trials = _listed({key: doing[key] for key in keys if key in doing})
        return f"process {pid} makes no progress: no processor time for {stood:.0f} s while it trains {trials}; {end}"

    def _unended(self, doing: Mapping[str, tuple[str, float]]) -> str:
        """Return a message if no trial progresses."""
        waited = time.monotonic() - self._heard
        if not doing or waited < self._patience:
            return ""
        self._patience *= 2
        return (
            f"no trial has ended an epoch for {waited:.0f} s: {_listed(doing)}; epochs may be long, or a data loader "
            "or a step hangs: Ctrl-C stops the run, and the same command continues"
        )

    def watching(self) -> AbstractContextManager[None]:
        """Check regularly while the context lasts."""
        return looking(self.look)


def _listed(doing: Mapping[str, tuple[str, float]]) -> str:
    named = ", ".join(f"{key} ({what})" for key, (what, _) in list(doing.items())[:MOST_NAMED])
    return named + (f" and {len(doing) - MOST_NAMED} more" if len(doing) > MOST_NAMED else "")


class HeardFeed(ForwardingFeed):
    """A feed that reports to a watchdog."""

    def __init__(self, feed: Feed, watchdog: Watchdog) -> None:
        super().__init__(feed)
        self._watchdog = watchdog

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        specs = self._feed.ask(count)
        self._watchdog.hear({spec.key: "before its first epoch ended" for spec in specs})
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Forward epochs."""
        self._watchdog.hear({spec.key: f"after epoch {metrics.epoch + 1}" for spec, metrics in reports})
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results."""
        self._watchdog.hear({}, results)
        self._feed.tell(results)
