"""`task=search`: from a configuration to an answer."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from contextlib import closing as closed
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dropsearch.config.schema import Config, plain
from dropsearch.core.errors import FAILED, STOPPED, first_cause
from dropsearch.core.records import ArmOutcome, Site, Summary, TrialPhase, TrialSpec, best_arm
from dropsearch.experiment import build, engines, retrainings, user_module
from dropsearch.experiment.arm_runner import ArmRunner, checkpoint, checkpoint_folder
from dropsearch.experiment.artifacts import best_retraining, winning_model, write_files
from dropsearch.experiment.collect import collect_evidence
from dropsearch.experiment.dropout_check import require_active_dropout
from dropsearch.experiment.l2_control import check_weight_decay
from dropsearch.experiment.preflight import reached
from dropsearch.experiment.provenance import commands, git_state, this_command, versions
from dropsearch.experiment.run_header import notes, run_header
from dropsearch.experiment.scoring import comparison_metric_of
from dropsearch.experiment.studies import arm_studies, fingerprints
from dropsearch.experiment.train_sizes import check_train_sizes, sized_engines
from dropsearch.experiment.watched_feed import Interruption, TrackedFeed
from dropsearch.report import Progress, closing, opening
from dropsearch.stats.comparisons import compared
from dropsearch.study.storage import open_storage, storage_exists
from dropsearch.study.studies import RETRAINED, check_studies, identity
from dropsearch.tracking import Tracker, make_tracker
from dropsearch.training.protocols import Engine, Feed


def search(config: Config) -> int:
    """Search, confirm, test, leave every file and print what was found.

    Returns:
        0, 1 where no trial was completed, or 130 where the user stopped it.
    """
    summary = searched(config)
    print(closing(summary))
    if not summary.complete:
        return STOPPED
    return 0 if any(arm.best for arm in summary.arms.values()) else FAILED


def searched(config: Config) -> Summary:
    """Search, confirm, test, leave every file, and return what was found."""
    started = time.perf_counter()
    source = build.data(config, build.device(config))
    sites = build.sites(config, source)
    require_active_dropout(config, source, sites)
    check_weight_decay(config, source)
    check_train_sizes(config, source)
    engines.use_precision(config)
    engines.use_threads(config, source)
    plan = engines.plan(config, source, sites)
    folder = Path(config.output_dir)
    journal = folder / "study.journal"
    if storage_exists(config.study.storage, journal):
        check_studies(open_storage(config.study.storage, journal), fingerprints(config, source, sites))
    tracker = make_tracker(config.tracking.name, uri=config.tracking.uri, output_dir=folder)
    # Processes are forked here, before the tracker and the studies have threads and open files.
    engine = engines.engine(
        config, source, plan, partial(_checkpoint_path, checkpoint_folder(folder, config.study.name))
    )
    with closed(engine), sized_engines(config, source, plan) as sized, reached(folder):
        return ExperimentRun(config, source, sites, engine, folder, tracker, started, sized).work(journal)


def _checkpoint_path(folder: Path, spec: TrialSpec) -> Path | None:
    return checkpoint(folder, spec) if spec.phase in retrainings.WITH_WEIGHTS else None


class ExperimentRun:
    """One invocation: the studies, the tracker and the progress bar, and what comes of them.

    `work` does all of it. After `open`, its `arm_runner` can also be run part by part.

    Args:
        config: The configuration.
        source: The data.
        sites: The model's sites.
        engine: What trains.
        folder: The output directory.
        tracker: Where runs are tracked; not yet connected.
        started: `time.perf_counter()` when the invocation began.
        sized: What trains on parts of the training set, by their size.
    """

    def __init__(
        self,
        config: Config,
        source: build.Source,
        sites: tuple[Site, ...],
        engine: Engine,
        folder: Path,
        tracker: Tracker,
        started: float,
        sized: Mapping[int, Engine] = MappingProxyType({}),
    ) -> None:
        self.config, self.source, self.sites, self.engine = config, source, sites, engine
        self.folder, self.tracker, self.started = folder, tracker, started
        self.sized = sized
        self.interruption = Interruption()
        self._checkpoints = checkpoint_folder(folder, config.study.name)

    def open(self, journal: Path) -> None:
        """Reach the tracker, open the studies, then the parent run: a tracker that refuses leaves no study behind."""
        self.tracker.connect(f"{self.config.model.name}-{self.source.name}")
        build.output_folder(self.config)
        storage = open_storage(self.config.study.storage, journal)
        self.open_studies(storage)
        self.start_tracking(storage)

    def open_studies(self, storage: Any) -> None:
        """Open the studies, which are made where they are not there."""
        config, source = self.config, self.source
        studies = [arm_studies(config, source, self.sites, storage, name) for name in config.arms]
        self.arm_runner = ArmRunner(
            config, source, self.sites, studies, self.engine, self._checkpoints, self.interruption
        )

    def start_tracking(self, storage: Any, *, amends: bool = False) -> None:
        """Open the parent run, or take that of an earlier invocation to amend it."""
        config, source = self.config, self.source
        self.tracker.start(
            study=config.study.name,
            study_id=identity(storage, config.study.name),
            config=plain(config),
            tags={
                **git_state(),
                "command": this_command(),
                **{f"versions.{k}": v for k, v in versions().items()},
            },
            data={
                "name": source.name,
                "digest": source.digest,
                "source": source.source,
                "sizes": source.sizes,
                "input_shape": list(source.input_shape),
                "classes": source.classes,
            },
            amends=amends,
        )

    def _track_untracked_results(self) -> None:
        """Track what processes that are gone told to the studies, and no tracker."""
        for arm in self.arm_runner.studies:
            arm.close_abandoned()
        results = {r.spec.key: r for arm in self.arm_runner.studies for r in arm.untracked_results()}
        missing = self.tracker.missing(results) if results else set()
        for key in sorted(missing):
            self.tracker.end(results[key])

    def work(self, journal: Path) -> Summary:
        """Search, confirm and test; then close everything, however it ended."""
        try:
            self.open(journal)
            print(opening(*self._run_header()), flush=True)
            self._track_untracked_results()
            with self.interruption.listening():
                self._train()
            self._track_untracked_results()  # a neighbour may have died meanwhile
            complete = not self.interruption.requested
            summary = self.summary(self.arm_runner.outcomes(open_test=complete), complete)
            self._log_model(summary)  # before the evidence, so that it is exported meanwhile
            summary = self._finished(summary)
            artifacts = write_files(summary, self.config, self.folder, self.source.sizes.get("test") or None)
            self.tracker.finish(summary, artifacts)
        except BaseException as error:
            stopped = self.interruption.requested or isinstance(error, KeyboardInterrupt)
            self.tracker.close("KILLED" if stopped else "FAILED")
            raise
        for problem in self.tracker.problems:
            print(f"tracking: {problem}", file=sys.stderr)
        return summary

    def _log_model(self, summary: Summary) -> None:
        model, example = winning_model(self.config, self.source, summary, self._checkpoints)
        if model is not None:
            tags = {"dropsearch.study": summary.study, "dropsearch.model": summary.model}
            self.tracker.log_model(model, example, tags)

    def _run_header(self) -> tuple[str, dict[str, str]]:
        done = sum(len(arm.results()) for arm in self.arm_runner.studies)
        return run_header(self.config, self.source, self.sites, self.engine.description, done, self.tracker.location)

    def _train(self) -> None:
        config, studies = self.config, self.arm_runner.studies
        confirmations = config.confirm.top_k * config.confirm.seeds
        total = len(studies) * (config.study.repeats * config.study.n_trials + confirmations)
        total += config.confirm.seeds * sum(
            retrainings.most(arm, phase, config.evidence.train_sizes) for arm in studies for phase in arm.retrained
        )
        asked: list[TrialPhase] = [each for each in RETRAINED if any(each in arm.retrained for arm in studies)]
        done = sum(len(arm.results()) for arm in studies)
        progress = Progress(total, initial=done, monitor=build.monitor(config))

        def watch(feed: Feed) -> Feed:
            return TrackedFeed(feed, self.tracker, progress)

        try:
            progress.phase("search")
            self.arm_runner.search(watch)
            if not self.interruption.requested:
                progress.phase("confirm")
                self.arm_runner.confirm(watch)
            for phase in asked:
                if not self.interruption.requested:
                    progress.phase(retrainings.PHASES[phase])
                    retrainings.vary(self.arm_runner, watch, phase, self.sized)
            for number in range(2, config.study.repeats + 1):
                if not self.interruption.requested:
                    progress.phase(f"repeat {number}")
                    self.arm_runner.repeat(watch, number)
        finally:
            progress.close()

    def summary(self, arms: Mapping[str, ArmOutcome], complete: bool) -> Summary:
        """Return all that was found, without what dropout did."""
        comparison_metric = comparison_metric_of(self.config, self.source)
        return Summary(
            study=self.config.study.name,
            model=self.config.model.name,
            data=self.source.name,
            seed=self.config.seed,
            versions=versions(),
            seconds=time.perf_counter() - self.started,
            engine=self.arm_runner.engine.description,
            sites=self.sites,
            arms=arms,
            comparisons=compared(arms, comparison_metric),
            config=plain(self.config),
            mlflow=dict(self.tracker.info),
            commands=commands(self.config, best_arm(arms), self.tracker.info, self._carried(arms)),
            monitor=build.monitor(self.config),
            comparison_metric=comparison_metric,
            notes=notes(self.config, self.source),
            fixed_luck=user_module.fixed_luck_of(self.config, self.source, build.settings(self.config)),
            complete=complete,
        )

    def _finished(self, summary: Summary) -> Summary:
        """Return the summary with what dropout did, or where that fails with a note: the run is not lost to it."""
        try:
            return self.with_evidence(summary)
        except Exception as error:  # user modules and data are looked at, and all else is done and told
            said = f"{type(error).__name__}: {first_cause(error)[:200]}"
            note = f"what dropout did in the winners was not measured ({said}); task=evidence tries it again"
            print(f"evidence: {note}", file=sys.stderr)
            return dataclasses.replace(summary, notes=(*summary.notes, note))

    def with_evidence(self, summary: Summary) -> Summary:
        """Return the summary with what dropout did in the winners, where that is asked for and they stand."""
        if self.config.evidence.name == "off" or not summary.complete:
            return summary
        models = sum(len(arm.winner.results) for arm in summary.arms.values() if arm.winner)
        print(f"[evidence] looking at {models} models", file=sys.stderr, flush=True)
        with engines.all_cores():
            evidence = collect_evidence(self.arm_runner, summary)
        return dataclasses.replace(summary, evidence=evidence, seconds=time.perf_counter() - self.started)

    def _carried(self, arms: Mapping[str, ArmOutcome]) -> dict[str, Any]:
        name = best_arm(arms)
        winner = arms[name].winner if name else None
        return build.carried(self.config, self.source, best_retraining(winner).spec) if winner else {}
