"""`task=search`: search, confirmation, test and report."""

from __future__ import annotations

import sys
from contextlib import closing as closed

from dropsearch.config.schema import Config
from dropsearch.core.errors import FAILED, STOPPED
from dropsearch.core.preparation import preparing
from dropsearch.core.processes import Stopwatch
from dropsearch.core.records import Summary
from dropsearch.experiment import build, engines
from dropsearch.experiment.artifacts import try_end
from dropsearch.experiment.context import build_context
from dropsearch.experiment.layout import with_layout
from dropsearch.experiment.preflight import reached
from dropsearch.experiment.runner import ExperimentRun
from dropsearch.experiment.studies import check_existing
from dropsearch.report.terminal import closing, rows_of


def search(config: Config, watch: Stopwatch | None = None) -> int:
    """Search, confirm, test, write all files and print the answer.

    Returns:
        0, 1 if no trial was completed, or 130 if the user stopped the run.
    """
    summary = searched(config, watch)
    print(closing(summary, rows_of(sys.stdout)))
    if not summary.complete:
        return STOPPED
    return 0 if any(arm.best for arm in summary.arms.values()) else FAILED


@engines.torch_settings_kept()
def searched(config: Config, watch: Stopwatch | None = None) -> Summary:
    """Search, confirm, test, write all files, and return the summary."""
    watch = watch or Stopwatch()
    with preparing("reading the data and inspecting the module"):
        context = build_context(config)
    try_end(context)
    engines.use_precision(config.trainer.matmul)
    engines.use_threads(context)
    with preparing("comparing vectorized with sequential training"):
        context, plan = with_layout(context, engines.plan(context))
    check_existing(context)
    tracker = build.tracker(context.config, context.folder)
    # Fork here, before the tracker and the studies have threads and open files.
    engine = engines.run_engine(context, plan)
    with closed(engine), reached(context.folder):
        return ExperimentRun(context, engine, tracker, watch, plan).work()
