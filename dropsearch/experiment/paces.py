"""Estimated durations of the parts of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dropsearch.config.budget import is_time
from dropsearch.config.schema import Config
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext
from dropsearch.study.algorithms import PRUNERS
from dropsearch.study.search_feed import TrialClock
from dropsearch.training.planning.plan import Plan
from dropsearch.training.trainers import batches_in

EVALUATION = 1.3
"""Estimated ratio of an epoch's duration, with two evaluations, to that of its steps; used without a pilot."""
UNITS = 20
"""Ticks of a trial's full duration in `clock_length`."""
MOST_TRIALS = 200
"""Maximum number of trials that `clock_length` simulates."""
REPORT_SECONDS = 5.0
"""Seconds for figures and reports on an idle machine; of four arms with evidence they take 3.8 processor seconds."""
TRACKING_SECONDS = 3.0
"""Seconds for the tracker to finish writing on an idle machine."""
TEST_SHARE = 0.1
"""Ratio of the duration of a test to that of the measures."""


@dataclass(frozen=True)
class Pace:
    """Durations of training in seconds, with all simultaneous trials."""

    epoch: float
    trial: float = 0.0
    """Seconds per trial in addition to its epochs."""
    at_once: int = 1
    """Number of simultaneous trials."""
    idle: float = 0.5
    """Duration of a step with empty rows, between one that takes no time (0) and one of full rows (1)."""

    def of(self, epochs: float, length: float = 1.0) -> float:
        """Return the seconds per epoch, including the share of costs per trial.

        Args:
            length: Number of steps relative to that with full rows; see `waves` and `clock_length`.
        """
        return (self.epoch + self.trial / max(epochs, 1.0)) * (1 + self.idle * (length - 1))


def waves(trials: int, at_once: int) -> float:
    """Return the length of a stage whose last trials leave rows empty, relative to full rows."""
    return -(-trials // at_once) * at_once / trials if trials else 1.0


def clock_length(config: Config, at_once: int) -> float:
    """Return the length of an arm's search relative to full rows.

    Rows are empty at its end, and while a proposal waits for results that it has to know (`TrialClock`). Here, every
    trial that is not pruned takes `UNITS` ticks, and pruned ones are spread evenly. A study of more than `MOST_TRIALS`
    is simulated in a smaller size. In a budget of time no proposal waits.
    """
    if is_time(config.budget):
        return waves(config.study.n_trials, at_once)
    scale = min(MOST_TRIALS / config.study.n_trials, 1.0)
    durations = _expected_durations(config, scale)
    most = engines.most_at_once(config) or config.study.n_trials
    at_once, places = (max(round(scale * count), 1) for count in (at_once, most))
    clock, running, ended, ticks = TrialClock(places), dict[int, int](), 0, 0
    while ended < len(durations):
        while len(running) < at_once and (begun := ended + len(running)) < len(durations):
            if clock.start(begun) is None:
                break
            running[begun] = 0
        ticks += 1
        for index in [*running]:
            running[index] += 1
            if running[index] < durations[index]:
                clock.survive(index, running[index])
            else:
                clock.end(index, running.pop(index))
                ended += 1
    return ticks * at_once / sum(durations)


def _expected_durations(config: Config, scale: float = 1.0) -> list[int]:
    """Return the expected duration of each search trial of an arm, in ticks, in a study scaled down to `scale`."""
    counts = (config.study.n_trials, min(config.pruner.n_startup_trials, config.study.n_trials))
    trials, startup = (max(round(scale * count), 1) if count else 0 for count in counts)
    shortest = max(round(UNITS * min(config.pruner.warmup_epochs / config.trainer.max_epochs, 1.0)), 1)
    mean = UNITS * (trials * searched_share(config) - startup) / max(trials - startup, 1)
    whole = min(max((mean - shortest) / (UNITS - shortest), 0.0), 1.0) if shortest < UNITS else 1.0
    is_whole = [index < startup or int((index + 1) * whole) > int(index * whole) for index in range(trials)]
    return [UNITS if each else shortest for each in is_whole]


def searched_share(config: Config) -> float:
    """Return the expected share of epochs that search trials train for."""
    startup = min(config.pruner.n_startup_trials if config.pruner.name != "none" else 0, config.study.n_trials)
    may_be_pruned = (config.study.n_trials - startup) / config.study.n_trials
    known = PRUNERS.get(config.pruner.name)
    share = known.share if known else 1.0  # unknown for a pruner object
    warmup = min(config.pruner.warmup_epochs / config.trainer.max_epochs, 1.0)
    return 1 - may_be_pruned * (1 - max(share, warmup))


def planned_pace(context: ExperimentContext, plan: Plan) -> float | None:
    """Return the expected seconds per epoch of the search from the plan's measurements; None if they are unknown."""
    batches = batches_in(context.source.train_loader(0))
    if not plan.speed or batches == math.inf:
        return None
    sequential, config = plan.engine == "sequential", context.config
    rows = min(context.processes * (1 if sequential else plan.width), engines.most_rows(config))
    seconds = EVALUATION * batches / (plan.speed * context.processes)
    return Pace(seconds, at_once=rows, idle=1.0 if sequential else 0.5).of(1.0, clock_length(config, rows))
