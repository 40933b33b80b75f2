"""How many messages a second a run can answer: 1,000 fake workers against the real feed, without any training.

The workers speak as vectorized engines do: they ask for as many trials as they have rows, report an epoch of all rows
in one message, and tell all results in one. Behind the real loop of a run stands the real feed of a search, with its
sampler, pruner and a journal on disk. What is left out is the way of a message: pipes or Ray.

    python scripts/bench/driver_messages.py
    python scripts/bench/driver_messages.py --workers 1000 --rows 1 16 --samplers random tpe
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropsearch.core.records import ARMS, EpochMetrics, Site, TrialResult, TrialSpec
from dropsearch.study.algorithms import make_pruner, sampler_factory
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.search_space import Space, SpaceSettings
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from dropsearch.training.multiprocess import CrewEngine

SITES = tuple(Site(f"hidden{n}.dropout", "hidden", 0.1, 64) for n in range(4))


class FakeWorker:
    """A channel to a worker that says at once what an engine would say after training."""

    def __init__(self, rows: int, epochs: int, counted: Counter[str]) -> None:
        self.rows, self.epochs, self.counted = rows, epochs, counted
        self.messages: deque[Any] = deque()
        self.curves: dict[str, list[EpochMetrics]] = {}
        self.specs: list[TrialSpec] = []
        self.last = ""

    def send(self, answer: Any) -> None:
        """Take an answer, and say what comes next."""
        if self.last == "ask":
            self.specs, _ = answer
            self.curves = {spec.key: [] for spec in self.specs}
            if self.specs:
                self._say("report", self._epoch())
            else:
                self._say("done")
        elif self.last == "report" and self.specs and len(self.curves[self.specs[0].key]) < self.epochs:
            self._say("report", self._epoch())
        else:
            if self.last == "report":
                self.messages.append(
                    ("tell", [TrialResult(s, "COMPLETE", tuple(self.curves[s.key]), 1.0) for s in self.specs])
                )
                self.counted["tell"] += 1
            self._say("ask", self.rows)

    def _epoch(self) -> list[tuple[TrialSpec, EpochMetrics]]:
        for spec in self.specs:
            epoch = len(self.curves[spec.key])
            loss = sum((rate - 0.3) ** 2 for rate in spec.rates.values()) + 1 / (1 + epoch)
            self.curves[spec.key].append(EpochMetrics(epoch, loss, loss, loss))
        return [(spec, self.curves[spec.key][-1]) for spec in self.specs]

    def _say(self, word: str, *content: Any) -> None:
        self.last = word
        self.counted[word] += 1
        self.messages.append((word, *content))

    def recv(self) -> Any:
        """Return what the worker said."""
        return self.messages.popleft()


class FakeCrew:
    """So many fake workers."""

    forgiven = 0

    def __init__(self, workers: int, rows: int, epochs: int) -> None:
        self.workers, self.rows, self.epochs = workers, rows, epochs
        self.counted: Counter[str] = Counter()

    def wanted(self) -> int:
        """Return their number."""
        return self.workers

    def start(self) -> FakeWorker:
        """Start one."""
        return FakeWorker(self.rows, self.epochs, self.counted)

    def ready(self, channels: Sequence[FakeWorker], seconds: float) -> list[FakeWorker]:
        """Return those that have spoken: all of them."""
        return [channel for channel in channels if channel.messages]

    def has_arrived(self, channel: FakeWorker) -> bool:
        """Return True."""
        return True

    def ending(self, channel: FakeWorker) -> tuple[str, bool]:
        """Return nothing of use: none ends."""
        return "", True

    def pid(self, channel: FakeWorker) -> int | None:
        """Return None: a fake worker has no process."""
        return None

    def kill(self, channel: FakeWorker) -> None:
        """Do nothing."""

    def stop(self, stopped: bool) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def measured(workers: int, rows: int, epochs: int, sampler: str, rounds: int) -> str:
    """Return a line of the table: as many workers with as many rows each, `rounds` times."""
    with tempfile.TemporaryDirectory() as folder:
        store = StudyStore(
            open_storage(None, Path(folder) / "study.journal"),
            "fake/dropout",
            arm="dropout",
            phase="search",
            fingerprint={},
            make_sampler=sampler_factory(sampler, 10),
            pruner=make_pruner("median", epochs, 5, 3),
        )
        rates = {site.name: 0.2 for site in SITES}
        space = Space(SpaceSettings(), ARMS["dropout"], SITES, rates)
        trials = workers * rows * rounds
        feed = SearchFeed(store, space, total=trials, seed=0, cancelled=lambda: False)
        crew = FakeCrew(workers, rows, epochs)
        engine = CrewEngine(crew, str)
        began, computed = time.perf_counter(), time.process_time()
        engine.run(feed)
        took, computed = time.perf_counter() - began, time.process_time() - computed
        engine.close()
        done = len(store.results())
    assert done == trials, f"{done} of {trials} trials ended"
    messages = sum(crew.counted.values()) - crew.counted["done"]
    return (
        f"{sampler:8} {workers:8} {rows:5} {trials:8} {messages:9} {messages / took:11,.0f} "
        f"{messages / computed:11,.0f} {trials / took:9,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--samplers", nargs="+", default=["random"])
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.epochs} epochs a trial")
    print("sampler   workers  rows   trials  messages  messages/s  of CPU time  trials/s")
    for sampler in options.samplers:
        for rows in options.rows:
            print(measured(options.workers, rows, options.epochs, sampler, options.rounds), flush=True)


if __name__ == "__main__":
    main()
