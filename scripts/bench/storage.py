"""What the storage of a study costs a trial: to ask for it, to report its epochs, to tell how it ended.

Nothing is trained. A batch of trials is open at a time, as the rows of a vectorized engine are: all are asked for at
once, report each epoch together, and are told together. The cost "at" a number of trials is the mean over the
hundred before it, or over the last batches where that is larger. `cpu` is what this process computes of it; the rest
is waiting: for the disk, for the server, or on a busy machine for a core. `MB` is the memory that is resident then, of
this process and of all that it did before: compare rows of one storage, sampler, number of epochs and batch.

    python scripts/bench/storage.py
    python scripts/bench/storage.py --long
    python scripts/bench/storage.py --postgres postgresql+psycopg://user@localhost/database
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, InMemoryStorage

from dropsearch.core.records import ARMS, EpochMetrics, Site, TrialResult
from dropsearch.study.algorithms import make_pruner, make_sampler
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.search_space import Space, SpaceSettings
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore

SITES = tuple(Site(f"hidden{n}.dropout", "hidden", 0.1, 64) for n in range(4))
LOOKED_AT = 100


@dataclass
class Cost:
    """Milliseconds a trial, of each kind of call."""

    seconds: tuple[float, ...] = (0.0,) * 4
    """Of asking, reporting, telling, and computing."""
    trials: int = 0
    resident: int = 0
    """Megabytes of this process, when the last of these trials had ended."""

    def add(self, seconds: tuple[float, ...], trials: int) -> None:
        """Add the cost of a batch."""
        self.seconds = tuple(map(sum, zip(self.seconds, seconds, strict=True)))
        self.trials += trials
        self.resident = resident()

    def __str__(self) -> str:
        *each, computed = [1000 * kind / self.trials for kind in self.seconds]
        return " ".join(f"{value:7.2f}" for value in (*each, sum(each), computed)) + f" {self.resident:5}"


def resident() -> int:
    """Return how many megabytes of this process are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


@dataclass
class Study:
    """A study that is worked through without training."""

    feed: SearchFeed
    epochs: int
    done: int = 0

    def run(self, total: int, batch: int, marks: tuple[int, ...]) -> dict[int, Cost]:
        """Work through a number of trials; return the cost at each mark."""
        costs = {mark: Cost() for mark in marks}
        while self.done < total:
            began, count = self.done, min(batch, total - self.done)
            seconds = self._batch(count)
            for mark, cost in costs.items():
                if began < mark and self.done > mark - max(LOOKED_AT, batch):
                    cost.add(seconds, self.done - began)
        return costs

    def _batch(self, count: int) -> tuple[float, ...]:
        computed, times = time.process_time(), [time.perf_counter()]
        specs = self.feed.ask(count)
        assert len(specs) == count
        times.append(time.perf_counter())
        curves: dict[int, list[EpochMetrics]] = {spec.number: [] for spec in specs}
        pruned: set[int] = set()
        for epoch in range(self.epochs):
            reports = []
            for spec in specs:
                if spec.number not in pruned:
                    loss = abs(math.log(spec.lr / 3e-3)) + sum((rate - 0.3) ** 2 for rate in spec.rates.values())
                    curves[spec.number].append(EpochMetrics(epoch, loss, loss, loss + 1 / (1 + epoch), 0.5, 0.5))
                    reports.append((spec, curves[spec.number][-1]))
            for (spec, _), prune in zip(reports, self.feed.report(reports), strict=True):
                if prune and epoch + 1 < self.epochs:
                    pruned.add(spec.number)
        times.append(time.perf_counter())
        self.feed.tell(
            [
                TrialResult(spec, "PRUNED" if spec.number in pruned else "COMPLETE", tuple(curves[spec.number]), 1.0)
                for spec in specs
            ]
        )
        times.append(time.perf_counter())
        self.done += count
        return *(after - before for before, after in pairwise(times)), time.process_time() - computed


@contextmanager
def opened(kind: str, postgres: str) -> Iterator[BaseStorage]:
    """Open an empty storage of a kind; of PostgreSQL, the one at the address, in which a new study begins."""
    if kind == "memory":
        yield InMemoryStorage()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        urls = {"journal": None, "sqlite": f"sqlite:///{path / 'study.db'}", "postgresql": postgres}
        yield open_storage(urls[kind], path / "study.journal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="go on to 10,000 trials")
    parser.add_argument("--postgres", default="", help="an SQLAlchemy address of an empty database")
    parser.add_argument("--storages", default="journal,sqlite,memory")
    parser.add_argument("--samplers", default="random,tpe")
    parser.add_argument("--pruner", default="none", help="none, median or hyperband")
    parser.add_argument("--epochs", default="5,10")
    parser.add_argument("--batches", default="1,32,256", help="how many trials are open at a time")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    marks = (1000, 10_000) if given.long else (1000,)
    kinds = [*given.storages.split(","), *(["postgresql"] if given.postgres else [])]
    print(f"pruner {given.pruner}; ms a trial")
    print("storage    sampler epochs batch trials     ask  report    tell     all     cpu    MB")
    for kind in kinds:
        for sampler in given.samplers.split(","):
            for epochs in map(int, given.epochs.split(",")):
                for batch in map(int, given.batches.split(",")):
                    with opened(kind, given.postgres) as storage:
                        store = StudyStore(
                            storage,
                            f"bench-{uuid.uuid4().hex[:8]}/dropout",
                            arm="dropout",
                            phase="search",
                            fingerprint={},
                            make_sampler=partial(make_sampler, sampler),
                            pruner=make_pruner(given.pruner, epochs),
                        )
                        space = Space(
                            SpaceSettings(), ARMS["dropout"], SITES, dict.fromkeys((site.name for site in SITES), 0.3)
                        )
                        feed = SearchFeed(store, space, total=marks[-1], seed=0, cancelled=lambda: False)
                        for mark, cost in Study(feed, epochs).run(marks[-1], batch, marks).items():
                            print(f"{kind:10} {sampler:7} {epochs:6} {batch:5} {mark:6} {cost}", flush=True)


if __name__ == "__main__":
    main()
