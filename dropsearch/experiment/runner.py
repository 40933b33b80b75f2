"""The order of a run: search, confirmation, test, evidence and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dropsearch.core.errors import first_cause
from dropsearch.core.preparation import preparing
from dropsearch.core.printable import tell
from dropsearch.core.processes import Stopwatch, forget_crashes
from dropsearch.core.records import ArmOutcome, Summary, best_arm
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.artifacts import kept_winner, reproduced, why_not_loaded, winning_model, write_files
from dropsearch.experiment.build import make_output_folder
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.evidence import collect_evidence
from dropsearch.experiment.interruption import Interruption
from dropsearch.experiment.layout import described_layout
from dropsearch.experiment.phases import phases
from dropsearch.experiment.provenance import commands, git_state, shown_config, summary_of, this_command, versions
from dropsearch.experiment.run_budget import RunBudget
from dropsearch.experiment.run_header import notes, run_header
from dropsearch.experiment.run_progress import TrackedFeed, run_progress, winners_count
from dropsearch.experiment.studies import arm_studies, mark_folder
from dropsearch.experiment.watchdog import named_if_still
from dropsearch.experiment.winner_tests import TestSetError
from dropsearch.experiment.winners import measuring_threads
from dropsearch.report.figures.registry import FIGURES, drawings
from dropsearch.report.progress import Progress
from dropsearch.report.terminal import opening
from dropsearch.report.text.verdict import answer
from dropsearch.report.text.warnings import warnings
from dropsearch.stats.comparisons import compared
from dropsearch.study.storage import open_storage
from dropsearch.study.studies import identity, listed
from dropsearch.tracking import Tracker
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine, Feed

SHARED = (
    "other processes trained trials of this study meanwhile, so its trials depend on their speed: another run with "
    "this seed may propose others"
)
"""Note of a run whose trials do not follow from its seed."""
CODE_CHANGED = "the code of {} has changed since the study began, and earlier trials were trained with the code of then"
"""Note of a run with `study.allow_code_changes`."""


DATA = ("name", "digest", "source", "sizes", "input_shape", "classes")
"""Attributes of the data that a tracker records."""


class ExperimentRun:
    """One invocation with its studies, tracker and progress.

    `work` runs everything. After `open`, the parts of `arm_runner` can also be run separately.
    """

    def __init__(
        self, context: ExperimentContext, engine: Engine, tracker: Tracker, watch: Stopwatch, plan: Plan | None = None
    ) -> None:
        self.context, self.engine, self.tracker, self.watch = context, engine, tracker, watch
        self.plan = plan
        self.interruption = Interruption()
        self.progress = Progress()
        self.budget: RunBudget | None = None
        self.trained_before = 0
        self.remarks: list[str] = []
        """Notes of the run in addition to those of its context."""

    def open(self) -> None:
        """Connect the tracker, open the studies, then the parent run, so that a tracker error creates no study."""
        config = self.context.config
        self.tracker.connect(f"{config.model.name}-{self.context.source.name}")
        make_output_folder(self.context.folder)
        storage = open_storage(config.study.storage, self.context.folder / "study.journal")
        self.open_studies(storage)
        mark_folder(self.context, storage)
        self.start_tracking(storage)

    def open_studies(self, storage: Any) -> None:
        """Open the studies; create them if necessary."""
        studies = [arm_studies(self.context, storage, name) for name in self.context.config.arms]
        self.arm_runner = ArmRunner(self.context, studies, self.engine, self.interruption)
        self.trained_before = sum(len(arm.results()) for arm in studies)
        if changed := sorted({name for arm in studies for name in arm.search.code_changes}):
            self.remarks.append(CODE_CHANGED.format(listed(changed)))

    def start_tracking(self, storage: Any, *, amends: bool = False) -> None:
        """Open the parent run, or that of an earlier invocation to extend it."""
        config, source = self.context.config, self.context.source
        self.tracker.start(
            study=config.study.name,
            study_id=identity(storage, config.study.name),
            config=shown_config(config),
            tags={**git_state(), "command": this_command(), **{f"versions.{k}": v for k, v in versions().items()}},
            data={name: getattr(source, name) for name in DATA},
            amends=amends,
        )

    def _track_untracked_results(self) -> None:
        """Track results of dead processes that no tracker has."""
        for arm in self.arm_runner.studies:
            arm.close_abandoned()
        results = {r.spec.key: r for arm in self.arm_runner.studies for r in arm.untracked_results()}
        missing = self.tracker.missing(results) if results else set()
        for key in sorted(missing):
            self.tracker.end(results[key])

    def show_progress(self) -> None:
        """Start showing progress."""
        paces, slow = (self.budget.paces, self.budget.slow) if self.budget else (None, 1.0)
        self.progress = run_progress(self.context, self.plan, self.arm_runner.studies, paces, slow)
        self.arm_runner.new_elsewhere()  # they are known to the progress
        self.progress.start()

    def work(self) -> Summary:
        """Search, confirm and test, and close everything in any case."""
        with self.closed_on_failure():
            if self.context.config.budget is not None and self.plan is not None:
                self.budget = RunBudget(self.context, self.engine, self.watch)
                self.remarks += self.budget.remarks
            with preparing("opening the study and the tracker"):
                self.open()
            if self.budget is not None:
                self.budget.begin(self.arm_runner)
            print(opening(*self._run_header()), flush=True)
            self._track_untracked_results()
            self.show_progress()
            with self.interruption.listening():
                self._train()
            if not self.arm_runner.is_repeatable:
                self._remark(SHARED)
            forget_crashes(self.context.folder)
            self._track_untracked_results()  # another process may have died in the meantime
            complete = not self.interruption.requested
            outcomes = self._outcomes(complete)
            self.progress.begin("compare")
            if complete:
                self._check_kept(outcomes)
            summary = self.summary(outcomes, complete)
            self._log_model(summary)  # before the evidence, so that both run in parallel
            return self.finish(self._finished(summary))

    @contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Close progress and tracker if the context fails; say what was not tracked if it does not."""
        try:
            yield
        except BaseException as error:
            stopped = self.interruption.requested or isinstance(error, KeyboardInterrupt)
            self.progress.close("stopped" if stopped else "failed")
            self.tracker.close("KILLED" if stopped else "FAILED")
            raise
        for problem in self.tracker.problems:
            tell(f"tracking: {problem}")

    def _outcomes(self, complete: bool) -> dict[str, ArmOutcome]:
        """Return the outcome of each arm; test the winners if the run is complete.

        If the user's code fails on the test set, the outcomes have no test scores.
        """
        if complete and self.context.source.has_test:
            self.progress.begin("test", len(self.arm_runner.studies) * self.context.config.confirm.seeds, "models")
        try:
            with named_if_still("measuring the winners"):
                return self.arm_runner.outcomes(open_test=complete, step=self.progress.step)
        except TestSetError as error:  # report the other results
            self._remark(f"the test set could not be measured ({error}); repeat the command to try again")
            return self.arm_runner.outcomes(open_test=False)

    def _remark(self, note: str) -> None:
        tell(note)
        self.remarks.append(note)

    def _check_kept(self, outcomes: Mapping[str, ArmOutcome]) -> None:
        """Add a note if the best arm's checkpoint does not reproduce the reported score."""
        found = kept_winner(self.context, outcomes)
        if found and (note := reproduced(self.context, *found)):
            self._remark(note)

    def finish(self, summary: Summary) -> Summary:
        """Write all files and finish the trackers; return the summary with the trackers' information."""
        # Their information is available once the run is open, which takes MLflow's process a while.
        waits = "once the run is open in MLflow" if "experiment" in self.tracker.location else ""
        self.progress.begin("report", FIGURES, "figures", waits)
        follow_up = commands(self.context.config, best_arm(summary.arms), self.tracker.info)
        if failure := self._why_not_loaded(summary):
            follow_up.pop("reload", None)
        found = {"commands": follow_up, "not_loaded": failure, "answer": (*answer(summary), *warnings(summary))}
        summary = dataclasses.replace(summary, tracking=dict(self.tracker.info), **found)
        list(drawings())  # imports matplotlib, which is no part of the time that a figure takes
        self.progress.skip_wait()
        artifacts = write_files(self.context, summary, self.progress.step)
        if self.tracker.location:
            self.progress.begin("tracking")
        self.tracker.finish(summary, artifacts)
        self.progress.close("done" if summary.complete else "stopped")
        return summary

    def _why_not_loaded(self, summary: Summary) -> str:
        found = kept_winner(self.context, summary.arms)
        return why_not_loaded(self.context.config, summary.config, found[0].spec, found[1]) if found else ""

    def _log_model(self, summary: Summary) -> None:
        try:
            model, example = winning_model(self.context, summary)
            if model is not None:
                tags = {"dropsearch.study": summary.study, "dropsearch.model": summary.model}
                self.tracker.log_model(model, example, tags)
        except USER_ERRORS as error:  # user code may fail here; everything else is done
            tell(f"note: the winner is not logged as a model ({described(error)})")

    def _run_header(self) -> tuple[str, dict[str, str]]:
        bought = self.budget.describe() if self.budget else ""
        is_chosen = self.plan is not None and (self.plan.layouts or self.context.config.engine.threads != "auto")
        threads = described_layout(self.context, self.plan) if self.plan is not None and is_chosen else ""
        done = [result for arm in self.arm_runner.studies for result in arm.results()]
        return run_header(self.context, self.engine.description, done, self.tracker.location, bought, threads)

    def _train(self) -> None:
        arm_runner, progress = self.arm_runner, self.progress

        def watch(feed: Feed) -> Feed:
            return TrackedFeed(feed, self.tracker, progress, arm_runner.new_elsewhere)

        if self.budget is not None:
            self.budget.training.train(watch, progress)
        for phase in phases(arm_runner):
            if self.interruption.requested:
                return
            if self.budget is None or not phase.is_budgeted:
                progress.train(phase.name, phase.left(), is_search=phase.is_search)
                phase.train(watch)
            self._track_untracked_results()  # workers do not track their trials
            progress.elsewhere(arm_runner.new_elsewhere())

    def summary(self, arms: Mapping[str, ArmOutcome], complete: bool) -> Summary:
        """Return the summary without evidence and without the additions of `finish`."""
        context, metric = self.context, self.context.modules.comparison_metric
        return summary_of(
            context,
            arms,
            metric,
            seconds=self.watch.elapsed(),
            engine=self.arm_runner.engine.description,
            comparisons=compared(arms, metric, fixed_luck=context.modules.fixed_luck),
            notes=(*notes(context), *self.remarks, *([self.budget.note(arms)] if self.budget else [])),
            fixed_luck=context.modules.fixed_luck,
            overlaps=context.source.overlaps,
            without_effect=context.rate_check.without_effect if context.rate_check else {},
            own_arguments=context.modules.own_arguments(),
            redraws_split=context.source.redraws_split,
            trained_before=self.trained_before,
            complete=complete,
        )

    def _finished(self, summary: Summary) -> Summary:
        """Return the summary with evidence or, if that fails, with a note."""
        try:
            return self.with_evidence(summary)
        except USER_ERRORS as error:  # user code may fail here; everything else is done
            cause = f"{type(error).__name__}: {first_cause(error)[:200]}"
            note = f"what dropout did in the winners was not measured ({cause}); use task=evidence to try again"
            tell(f"evidence: {note}")
            return dataclasses.replace(summary, notes=(*summary.notes, note))

    def with_evidence(self, summary: Summary) -> Summary:
        """Return the summary with evidence, if it is enabled and there are winners."""
        if self.context.config.evidence.name == "off" or not summary.complete:
            return summary
        looks = winners_count(summary.arms)
        if not looks:
            return summary
        if self.budget is not None and not self.budget.training.affords_evidence(looks):
            note = "the budget left no time for evidence: use task=evidence to measure it"
            return dataclasses.replace(summary, notes=(*summary.notes, note))
        self.progress.begin("evidence", looks, "models")
        with measuring_threads(self.context), named_if_still("measuring what dropout did in the winners"):
            evidence = collect_evidence(self.arm_runner, summary, self.progress.step)
        return dataclasses.replace(summary, evidence=evidence, seconds=self.watch.elapsed())
