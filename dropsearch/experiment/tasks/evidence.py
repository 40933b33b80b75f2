"""`task=evidence`: measure the effects of dropout in the winners of an earlier run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.processes import Stopwatch
from dropsearch.core.records import ARMS, ArmOutcome, Summary
from dropsearch.experiment import build, engines, phases
from dropsearch.experiment.build import make_output_folder
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.preflight import reached
from dropsearch.experiment.runner import ExperimentRun
from dropsearch.experiment.studies import fingerprints, retraining_phases
from dropsearch.experiment.winner_tests import unfinished
from dropsearch.report.terminal import closing, rows_of
from dropsearch.study.retrainings import RETRAININGS
from dropsearch.study.storage import open_storage, storage_exists
from dropsearch.study.studies import check_studies, missing_studies
from dropsearch.training.sequential import SequentialEngine


def measure_finished_run(config: Config) -> int:
    """Measure the winners of an earlier run, write its report again and print it; return 0."""
    summary = measured_finished_run(config)
    print(closing(summary, rows_of(sys.stdout)))
    return 0


def measured_finished_run(config: Config) -> Summary:
    """Measure the winners of an earlier run, write its report again, and return the summary.

    Raises:
        InputError: The study does not exist or is not finished, or its checkpoints are missing.
    """
    watch = Stopwatch()
    context = build_context(config)
    engines.use_precision(config.trainer.matmul)
    engines.use_threads(context)
    storage = _storage(context)
    nothing = SequentialEngine(context.make_module, context.source, context.settings, lambda _: None)
    tracker = build.tracker(context.config, context.folder)
    run = ExperimentRun(context, nothing, tracker, watch)
    run.open_studies(storage)
    arms = run.arm_runner.recorded()
    for arm in run.arm_runner.studies:
        winner = arms[arm.arm.name].winner
        if what := phases.missing(arm, winner):
            raise InputError(unfinished(config.study.name, what))
    with reached(context.folder):
        return _written(run, storage, arms, _recorded_before(context.folder))


def _storage(context: ExperimentContext) -> Any:
    """Open the storage, which must contain the studies of all arms."""
    config, journal, wanted = context.config, context.folder / "study.journal", fingerprints(context)
    there = storage_exists(config.study.storage, journal)
    storage = open_storage(config.study.storage, journal) if there else None
    parts = ["confirm", *(f"repeat-{repeat}" for repeat in range(2, config.study.repeats + 1))]
    names = [name for study in wanted for name in (study, *(f"{study}/{part}" for part in parts))]
    for arm in config.arms:
        names += [
            f"{config.study.name}/{arm}/{RETRAININGS[phase].study}" for phase in retraining_phases(config, ARMS[arm])
        ]
    missing = names if storage is None else missing_studies(storage, names)
    if missing:
        where = config.study.storage or journal
        raise InputError(
            f"task=evidence needs an earlier run, but there is no study {missing[0]} in {where}: use the overrides "
            "of that run, or run it first without task=evidence"
        )
    check_studies(storage, wanted, config.study.allow_code_changes)  # type: ignore[arg-type]  # nothing is missing, so it is there
    return storage


def _recorded_before(folder: Path) -> dict[str, Any]:
    """Return engine and duration of the run, and what it continued, from its results.json, if available."""
    try:
        recorded = json.loads((folder / "results.json").read_text())
        known = {"engine": str(recorded["engine"]), "seconds": float(recorded["seconds"])}
        return known | {"trained_before": int(recorded.get("trained_before", 0))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _written(run: ExperimentRun, storage: Any, arms: Mapping[str, ArmOutcome], before: Mapping[str, Any]) -> Summary:
    with run.closed_on_failure():
        run.tracker.connect(f"{run.context.config.model.name}-{run.context.source.name}")
        make_output_folder(run.context.folder)
        run.start_tracking(storage, amends=True)
        run.show_progress()
        found = run.with_evidence(run.summary(arms, complete=True))
        trained = sum(r.seconds for arm in run.arm_runner.studies for r in arm.results())
        # The report keeps the run's configuration, which trains instead of measuring.
        recorded = {
            "engine": "an earlier run's",
            "seconds": trained,
            "trained_before": 0,
            "config": {**found.config, "task": "search"},
            **before,
        }
        return run.finish(dataclasses.replace(found, **recorded))
