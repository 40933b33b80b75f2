"""The stages of a run, their expected durations, the progress views, and the feed whose trials they count."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from dropsearch.core.preparation import preparing, redraws
from dropsearch.core.records import ArmOutcome, EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.paces import (
    REPORT_SECONDS,
    TEST_SHARE,
    TRACKING_SECONDS,
    Pace,
    clock_length,
    planned_pace,
    searched_share,
    waves,
)
from dropsearch.experiment.pilot import evidence_pace, pilots
from dropsearch.experiment.studies import ArmStudies
from dropsearch.experiment.winners import measuring_threads
from dropsearch.report.figures.registry import FIGURES
from dropsearch.report.progress import Forecast, Progress, Stage
from dropsearch.report.progress.lines import Lines
from dropsearch.report.progress.page import LivePage, NotebookDisplay, in_notebook
from dropsearch.report.progress.state import RunState
from dropsearch.report.progress.table import LiveTable, can_draw
from dropsearch.report.progress.view import View
from dropsearch.study.retrainings import RETRAININGS
from dropsearch.study.selection import retraining_count
from dropsearch.tracking import Tracker, tracker_names
from dropsearch.training.feeds import ForwardingFeed
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine, Feed


def run_progress(
    context: ExperimentContext,
    plan: Plan | None,
    studies: Sequence[ArmStudies],
    paces: Mapping[TrialPhase, Pace] | None = None,
    slow: float = 1.0,
) -> Progress:
    """Return the progress of a run that trains the missing trials of its studies; none without a plan.

    `paces` and `slow` are those of `run_stages`.
    """
    config = context.config
    state = RunState(
        config.arms, config.study.n_trials, config.trainer.max_epochs, searched_share(config), context.monitor
    )
    for arm in studies:
        state.known(arm.results())
    with measuring_threads(context):
        model = evidence_pace(context)
    trials = missing_trials(context, studies) if plan else {}
    epoch = planned_pace(context, plan) if plan else None
    stages = run_stages(context, trials, epoch, model, paces, slow)
    return Progress(Forecast(stages), state, views(context))


def planned_stages(
    context: ExperimentContext, plan: Plan, engine: Engine, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[Stage], Mapping[TrialPhase, Pace]]:
    """Return the stages of a new run, and the training paces measured with its engine."""
    with preparing("measuring the speed of search and confirmation"):
        paces = pilots(context, engine, clock)
    with measuring_threads(context):
        model = evidence_pace(context, clock, thorough=True)
    stages = run_stages(context, missing_trials(context), planned_pace(context, plan), model, paces)
    return stages, paces


def views(context: ExperimentContext) -> list[View]:
    """Return the progress views of a run: a page in its folder, and a notebook display, a table or lines."""
    config = context.config
    shown: View = Lines()
    if in_notebook():
        shown = NotebookDisplay()
    elif redraws(sys.stderr) and can_draw():
        shown = LiveTable()
    if config.task != "search":  # keeps the existing report until it is written again
        return [shown]
    # The page comes last, so that a slow disk does not delay what the terminal shows.
    return [shown, LivePage(context.folder / "report.html", f"{config.model.name} on {context.source.name}")]


def run_stages(
    context: ExperimentContext,
    trials: Mapping[str, int],
    epoch: float | None,
    model: float,
    paces: Mapping[TrialPhase, Pace] | None = None,
    slow: float = 1.0,
) -> list[Stage]:
    """Return the stages of a run in order.

    Args:
        paces: Paces measured by pilots, which replace `epoch`.
        slow: By what the durations of reports, which are those of an idle machine, are multiplied.
    """
    config, epochs = context.config, context.config.trainer.max_epochs
    share, known = searched_share(config), paces or {}
    stages = []
    for name, count in trials.items():
        is_search = name == "search" or name.startswith("repeat")
        each = epochs * (share if is_search else 1.0)
        pace = known.get("search" if is_search else "confirm")
        seconds = epoch if name == "search" else None
        if pace is not None:
            trials_of_arm = -(-count // len(config.arms))
            length = clock_length(config, pace.at_once) if is_search else waves(trials_of_arm, pace.at_once)
            seconds = pace.of(each, length)
        stages.append(Stage(name, count * each, seconds, like="" if name == "search" else "search"))
    models = len(config.arms) * config.confirm.seeds
    if context.source.has_test:
        stages.append(Stage("test", models, TEST_SHARE * model))
    if config.evidence.name != "off":
        stages.append(Stage("evidence", models, model))
    stages.append(Stage("report", FIGURES, slow * REPORT_SECONDS / FIGURES))
    return [*stages, Stage("tracking", 1, slow * TRACKING_SECONDS)] if tracker_names(config.tracking.name) else stages


def missing_trials(context: ExperimentContext, studies: Sequence[ArmStudies] = ()) -> dict[str, int]:
    """Return the maximum number of missing trials of each training stage; without studies, all trials."""
    config = context.config
    arms = len(config.arms)
    done = [(len(arm.search.results()), len(arm.confirm.results())) for arm in studies] or [(0, 0)] * arms
    n_trials = config.study.n_trials
    confirmed = retraining_count(
        min(n_trials, config.confirm.top_k), config.confirm.seeds, config.confirm.screening_seeds
    )
    found = {
        "search": sum(max(n_trials - searched, 0) for searched, _ in done),
        "confirm": sum(max(confirmed - retrained, 0) for _, retrained in done),
    }
    sites = sum(site.controllable for site in context.sites)
    for phase, each in RETRAININGS.items():
        if getattr(config.evidence, each.asked_by):
            arms_with = [arm for arm in studies if phase in arm.retrained] or context.searching_arms
            found[each.title] = config.confirm.seeds * each.most(sites) * len(arms_with)
    for number in range(2, config.study.repeats + 1):
        again = [len(arm.repeats[number - 2].results()) for arm in studies] or [0] * arms
        found[f"repeat {number}"] = sum(max(n_trials - each, 0) for each in again)
    return found


def winners_count(arms: Mapping[str, ArmOutcome]) -> int:
    """Return the number of confirmed models of winners."""
    return sum(len(arm.winner.results) for arm in arms.values() if arm.winner)


class TrackedFeed(ForwardingFeed):
    """A feed whose trials are tracked and counted.

    Args:
        elsewhere: Returns results of trials that other processes have ended since its last call.
    """

    def __init__(
        self, feed: Feed, tracker: Tracker, progress: Progress, elsewhere: Callable[[], Sequence[TrialResult]] = tuple
    ) -> None:
        super().__init__(feed)
        self._tracker, self._progress, self._elsewhere = tracker, progress, elsewhere
        self._has_begun = False

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials, and count trials ended by other processes."""
        specs = self._feed.ask(count)
        if specs and not self._has_begun:  # before, workers started: no part of the time that a trial takes
            self._has_begun = True
            self._progress.skip_wait()
        self._progress.asked(specs)
        self._progress.elsewhere(self._elsewhere())
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Forward epochs."""
        for spec, metrics in reports:
            self._tracker.epoch(spec, metrics)
            self._progress.epoch(spec, metrics)
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results, first to the study, since stored results can be tracked later but not vice versa."""
        self._feed.tell(results)
        for result in results:
            # Interrupted trials are trained again as new trials.
            if not result.interrupted:
                self._tracker.end(result)
                self._progress.end(result)
