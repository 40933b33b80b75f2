"""One progress bar for the whole run, which reads well in a log file too."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from dropsearch.core.records import Monitor, TrialResult

SECONDS_BETWEEN_LINES = 5.0
BAR = "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}"


class Progress:
    """Trials done of `total`, best so far, arm, trials a minute and time left.

    On a terminal it is a bar; otherwise whole lines without carriage returns: the first trial, the last, each
    further tenth, and between them at most one line in five seconds and one for each per cent. `initial`
    trials were done by an earlier run that this one continues; they count as done but not for the speed.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        initial: int = 0,
        clock: Callable[[], float] = time.monotonic,
        monitor: Monitor = Monitor(),  # noqa: B008 - it is frozen
    ) -> None:
        self._monitor = monitor
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._started = clock()
        self._initial = self._done = initial
        self._total = max(total, initial)
        self._phase = self._arm = ""
        self._best: tuple[float, str] = (math.inf, "")
        self._line_at, self._line_done = -math.inf, -math.inf
        self._bar = self._open_bar() if self._stream.isatty() else None

    def phase(self, name: str) -> None:
        """Say what the coming trials are for: search, confirm or test."""
        self._phase, self._arm = name, ""
        if self._bar is None:
            self._print(f"[{name}]")
        self._refresh()

    def end(self, result: TrialResult) -> None:
        """Count a trial that ended, however it ended."""
        self._done += 1
        self._total = max(self._total, self._done)
        self._arm = result.spec.arm
        best = result.best
        if result.state == "COMPLETE" and result.spec.phase == "search" and result.spec.repeat == 1 and best:
            self._best = min(self._best, (best.objective, result.spec.arm))
        if self._bar is None:
            self._line()
        self._refresh()

    def note(self, line: str) -> None:
        """Print a whole line without breaking the bar."""
        if self._bar is None:
            self._print(line)
        else:
            self._bar.write(line, file=self._stream)

    def close(self) -> None:
        """Leave the bar, or a last line, as it stands; may be called twice."""
        if self._bar is not None:
            self._bar.close()
        elif self._line_done not in (self._done, -math.inf):
            self._print(self._status())
            self._line_done = self._done

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_bar(self) -> tqdm:
        return tqdm(
            total=self._total,
            initial=self._initial,
            file=self._stream,
            bar_format=BAR,
            dynamic_ncols=True,
            miniters=1,
        )

    def _refresh(self) -> None:
        if self._bar is None or self._bar.disable:
            return
        self._bar.total = self._total
        self._bar.set_description_str(" ".join(filter(None, [self._phase, self._arm])), refresh=False)
        self._bar.set_postfix_str(", ".join(self._details()), refresh=False)
        self._bar.update(self._done - self._bar.n)

    def _line(self) -> None:
        """Print the status where enough happened since the last line."""
        now, share = self._clock(), 100 * (self._done - self._line_done) / max(self._total, 1)
        waited = now - self._line_at >= SECONDS_BETWEEN_LINES and share >= 1
        if waited or share >= 10 or self._done == self._total:
            self._print(self._status())
            self._line_at, self._line_done = now, self._done

    def _status(self) -> str:
        share = 100 * self._done / max(self._total, 1)
        head = " ".join(filter(None, [self._phase, self._arm]))
        return ", ".join([f"{head} {self._done}/{self._total} trials ({share:.0f} %)".lstrip(), *self._details()])

    def _details(self) -> list[str]:
        details = []
        if math.isfinite(self._best[0]):
            details.append(f"best {self._monitor.objective(self._best[0]):.4f} ({self._best[1]})")
        fresh, elapsed = self._done - self._initial, self._clock() - self._started
        if fresh > 0 and elapsed > 0:
            details.append(f"{_speed(60 * fresh / elapsed)} trials/min")
            details.append(f"{_clock_face((self._total - self._done) * elapsed / fresh)} left")
        return details

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _speed(per_minute: float) -> str:
    return f"{per_minute:.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def _clock_face(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
