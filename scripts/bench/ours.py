"""dropsearch's search of the same trials, tracked in MLflow: prints {"startup": s, "run": s, "trials": n}.

python scripts/bench/ours.py WORKLOAD FOLDER [OVERRIDES ...]

The run ends when every trial is in the study and in MLflow; confirmation and report, which the other side does
not have, are left out.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from functools import partial
from pathlib import Path

STARTED = time.perf_counter()

import torch  # noqa: E402
from workloads import overrides  # noqa: E402

from dropsearch.app import build, invocation  # noqa: E402
from dropsearch.app.watch import WatchedFeed  # noqa: E402
from dropsearch.config.compose import compose_overrides  # noqa: E402
from dropsearch.report import Progress  # noqa: E402
from dropsearch.tracking import make_tracker  # noqa: E402


def main(name: str, folder: Path, *more: str) -> None:
    """Search the workload's trials and print how long it took."""
    warnings.filterwarnings("ignore")
    config = compose_overrides([*overrides(name, str(folder)), *more])
    source = build.data(config, build.device(config))
    sites = build.sites(config, source)
    if build.process_count(config) > 1:
        torch.set_num_threads(1)
    plan = build.plan(config, source, sites)
    print(plan, file=sys.stderr)
    tracker = make_tracker(config.tracking.name, uri=None, output_dir=folder)
    engine = build.engine(config, source, plan, lambda _: None)
    run = invocation._Run(config, source, sites, engine, folder, tracker, STARTED)
    run._open(folder / "study.journal")
    begun = time.perf_counter()
    progress = Progress(config.study.n_trials)
    run.ablation.search(partial(WatchedFeed, tracker=tracker, progress=progress))
    tracker.close("KILLED")
    ended = time.perf_counter()
    engine.close()
    done = [result for result in run.ablation.studies[0].search.results() if result.state == "COMPLETE"]
    times = {"startup": begun - STARTED, "run": ended - begun, "trials": len(done)}
    print(json.dumps({**times, "engine": engine.description}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
