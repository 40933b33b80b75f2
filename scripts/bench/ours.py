"""dropsearch's search of the same trials, tracked in MLflow: prints what plain.py prints, and the engine.

python scripts/bench/ours.py WORKLOAD FOLDER [--without-part] [OVERRIDES ...]

The run ends when every trial is in the study and in MLflow; confirmation and report, which the other side does
not have, are left out. With
--without-part the part of the training set that is evaluated after each epoch is one example: that evaluation, too,
is something that the other side does not do.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

from processor_seconds import cpu_seconds  # noqa: E402
from workloads import words  # noqa: E402

from dropsearch.config.compose import compose_overrides  # noqa: E402
from dropsearch.core.processes import Stopwatch  # noqa: E402
from dropsearch.core.records import TrialResult  # noqa: E402
from dropsearch.datasets.data_module import TensorDataModule  # noqa: E402
from dropsearch.datasets.loaders import TensorLoader  # noqa: E402
from dropsearch.experiment import engines  # noqa: E402
from dropsearch.experiment.context import build_context  # noqa: E402
from dropsearch.experiment.run_progress import TrackedFeed  # noqa: E402
from dropsearch.experiment.runner import ExperimentRun  # noqa: E402
from dropsearch.report.progress import Progress  # noqa: E402
from dropsearch.tracking import Tracker, make_tracker  # noqa: E402
from dropsearch.training.protocols import Feed  # noqa: E402

Seconds = tuple[float, float]
"""Wall and processor seconds."""


def leave_out_part(source: TensorDataModule) -> None:
    """Have one training example evaluated after an epoch, instead of as many as validation has."""
    part = source.train_part_loader().tensors
    source.train_part_loader = lambda: TensorLoader(tuple(tensor[:1] for tensor in part), 1)


class TimedFeed(TrackedFeed):
    """A tracked feed that notes each ended trial, when it ended, and its settings.

    Args:
        feed: The feed.
        tracker: The tracker.
        progress: The progress.
        clock: Returns wall and processor seconds.
        sites: The sites whose rates are noted, in their order.
    """

    def __init__(
        self, feed: Feed, tracker: Tracker, progress: Progress, clock: Callable[[], Seconds], sites: Sequence[str]
    ) -> None:
        super().__init__(feed, tracker, progress)
        self._clock, self._sites = clock, sites
        self.ended: list[dict[str, Any]] = []

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results and note them."""
        super().tell(results)
        wall, cpu = self._clock()
        for result in results:
            loss = result.best.objective if result.state == "COMPLETE" and result.best else None
            spec = result.spec
            rates = [spec.rates[site] for site in self._sites]
            self.ended.append(
                {
                    "wall": wall,
                    "cpu": cpu,
                    "loss": loss,
                    "rates": rates,
                    "lr": spec.lr,
                    "weight_decay": spec.weight_decay,
                }
            )


def main(name: str, folder: Path, *more: str) -> None:
    """Search the workload's trials and print how long it took."""
    warnings.filterwarnings("ignore")
    config = compose_overrides(words(name, str(folder), *(word for word in more if word != "--without-part")))
    engines.use_precision(config.trainer.matmul)
    context = build_context(config)
    if "--without-part" in more:
        assert isinstance(context.source, TensorDataModule)
        leave_out_part(context.source)
    engines.use_threads(context)
    plan = engines.plan(context)
    print(plan, file=sys.stderr)
    tracker = make_tracker(config.tracking.name, uri=None, output_dir=folder)
    engine = engines.engine(context, plan, lambda _: None)
    run = ExperimentRun(context, engine, tracker, Stopwatch())
    run.open()
    _ = tracker.info  # waits for MLflow's import and tables, which are start-up on the other side too
    begun, cpu = time.perf_counter(), cpu_seconds()
    sites = [site.name for site in context.sites if site.controllable]
    feeds: list[TimedFeed] = []

    def timed(feed: Feed) -> TimedFeed:
        now = lambda: (time.perf_counter() - begun, cpu_seconds() - cpu)  # noqa: E731
        feeds.append(TimedFeed(feed, tracker, run.progress, now, sites))
        return feeds[-1]

    run.arm_runner.search(timed)
    tracker.close()
    ended = time.perf_counter()
    engine.close()  # its processes have ended then, and their seconds count
    done = [result for result in run.arm_runner.studies[0].search.results() if result.state == "COMPLETE"]
    times = {"startup": begun - STARTED, "run": ended - begun, "cpu": cpu_seconds() - cpu, "trials": len(done)}
    noted = [trial for feed in feeds for trial in feed.ended]
    print(json.dumps({**times, "startup_cpu": cpu, "engine": engine.description, "ended": noted}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
