"""dropsearch's search of the same trials, tracked in MLflow: prints {"startup": s, "run": s, "cpu": s, "trials": n}.

python scripts/bench/ours.py WORKLOAD FOLDER [--without-part] [OVERRIDES ...]

The run ends when every trial is in the study and in MLflow; confirmation and report, which the other side does
not have, are left out. "cpu" are the processor seconds of the run, those of its training processes included. With
--without-part the part of the training set that is evaluated after each epoch is one example: that evaluation, too,
is something that the other side does not do.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from functools import partial
from pathlib import Path

STARTED = time.perf_counter()

from workloads import overrides  # noqa: E402

from dropsearch.config.compose import compose_overrides  # noqa: E402
from dropsearch.datasets.data_module import TensorDataModule  # noqa: E402
from dropsearch.datasets.loaders import TensorLoader  # noqa: E402
from dropsearch.experiment import engines  # noqa: E402
from dropsearch.experiment.context import build_context  # noqa: E402
from dropsearch.experiment.runner import ExperimentRun  # noqa: E402
from dropsearch.experiment.watched_feed import TrackedFeed  # noqa: E402
from dropsearch.tracking import make_tracker  # noqa: E402


def leave_out_part(source: TensorDataModule) -> None:
    """Have one training example evaluated after an epoch, instead of as many as validation has."""
    part = source.train_part_loader().tensors
    source.train_part_loader = lambda: TensorLoader(tuple(tensor[:1] for tensor in part), 1)


def cpu_seconds() -> float:
    """Return the processor seconds of this process and of those of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(name: str, folder: Path, *more: str) -> None:
    """Search the workload's trials and print how long it took."""
    warnings.filterwarnings("ignore")
    config = compose_overrides([*overrides(name, str(folder)), *(word for word in more if word != "--without-part")])
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
    run = ExperimentRun(context, engine, tracker, STARTED)
    run.open(folder / "study.journal")
    begun, cpu = time.perf_counter(), cpu_seconds()
    run.arm_runner.search(partial(TrackedFeed, tracker=tracker, progress=run.progress))
    tracker.close("KILLED")
    ended = time.perf_counter()
    engine.close()  # its processes have ended then, and their seconds count
    done = [result for result in run.arm_runner.studies[0].search.results() if result.state == "COMPLETE"]
    times = {"startup": begun - STARTED, "run": ended - begun, "cpu": cpu_seconds() - cpu, "trials": len(done)}
    print(json.dumps({**times, "engine": engine.description}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
